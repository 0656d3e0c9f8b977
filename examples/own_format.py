"""A format of one's own in forty lines, compared like any other: `python examples/own_format.py FOLDER`.

The format: one line of JSON, {"name": ["F32", [rows, columns]], ...}, then the arrays in that order, little endian. A format
gives places, never data: this module reads the first line and computes where each array lies; the engine does all the reading.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np

from diffai_stream import compare
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.catalogue import FormatRow, register
from diffai_stream.storage.extent import Extent, FileStamp

LONGEST_HEADER = 1 << 20


def probe(path: str, head: bytes) -> bool:
    """Whether it begins like such a file: content decides, the name does not matter."""
    return head.startswith(b'{"') and b'": ["' in head and not head.startswith(b'{"__')


def index(path: str) -> Checkpoint:
    """Where every array lies. Raises FormatError for a header that cannot be read; an array beyond the end is a TensorError."""
    stamp = FileStamp.of(path)
    with open(path, "rb") as file:
        line = file.readline(LONGEST_HEADER)
    try:
        declared = {name: (dtype, tuple(map(int, shape))) for name, (dtype, shape) in json.loads(line).items()}
        sizes = [ENCODINGS[dtype].nbytes(prod(shape)) for dtype, shape in declared.values()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"its header cannot be read: {error!r}", path=path, offset=0) from None
    starts = accumulate([len(line), *sizes])
    tensors, errors = [], []
    for (name, (dtype, shape)), start, nbytes in zip(declared.items(), starts, sizes, strict=False):
        if start + nbytes > stamp.nbytes:
            errors.append(TensorError("ends behind the end of the file", path=path, tensor=name, offset=start))
            continue
        data = Component((Extent(path, start, nbytes),), dtype, shape)
        tensors.append(TensorEntry(name, shape, dtype, {"data": data}))
    return Checkpoint(path, "lines", tuple(tensors), {}, {path: stamp}, errors=tuple(errors))


def write(path: Path, weights: dict[str, np.ndarray]) -> str:
    """A file of the format, for the comparison below."""
    header = {name: ["F32", list(value.shape)] for name, value in weights.items()}
    path.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(value.tobytes() for value in weights.values()))
    return os.fspath(path)


def main(folder: Path) -> None:
    register(FormatRow("lines", "a line of JSON, then arrays", (".lines",), __name__))
    old = {"a": np.zeros((4, 8), np.float32), "b": np.ones(5, np.float32)}
    new = {**old, "a": old["a"] + np.eye(4, 8, dtype=np.float32)}
    for record in compare(write(folder / "old.lines", old), write(folder / "new.lines", new)):
        if record["type"] == "tensor":
            print(record["name"], record["status"], record["change"]["changed_count"], "elements")
        elif record["type"] == "summary":
            print(record["status"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
