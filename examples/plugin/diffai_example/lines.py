"""The format: one line of JSON, {"name": ["F32", [rows, columns]], ...}, then the arrays in that order, little endian.

A format gives places, never data: this module reads the first line and computes where each array lies; the engine does all the
reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
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
    declared, sizes = _declared(path, line)
    starts = accumulate([len(line), *sizes])
    tensors, errors = [], []
    for (name, (dtype, shape)), start, nbytes in zip(declared.items(), starts, sizes, strict=False):
        if start + nbytes > stamp.nbytes:
            errors.append(TensorError("ends behind the end of the file", path=path, tensor=name, offset=start))
            continue
        data = Component((Extent(path, start, nbytes),), dtype, shape)
        tensors.append(TensorEntry(name, shape, dtype, {"data": data}))
    return Checkpoint(path, "lines", tuple(tensors), {}, {path: stamp}, errors=tuple(errors))


def _declared(path: str, line: bytes) -> tuple[dict[str, tuple[str, tuple[int, ...]]], list[int]]:
    """(encoding, shape) by name, and the bytes of each array: nothing of it is believed before it is checked."""
    try:
        header = json.loads(line)
        declared = {name: (dtype, tuple(map(int, shape))) for name, (dtype, shape) in header.items()}
        sizes = [ENCODINGS[dtype].nbytes(prod(shape)) for dtype, shape in declared.values()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise FormatError(f"its header cannot be read: {error!r}", path=path, offset=0) from None
    if any(size < 0 for _, shape in declared.values() for size in shape):
        raise FormatError("its header has a negative size", path=path, offset=0)
    return declared, sizes


def write(path: Path, arrays: Mapping[str, tuple[str, np.ndarray]]) -> Path:
    """A file of the format from (encoding, stored elements) by name; the tests need it, the program does not."""
    header = {name: [encoding, list(array.shape)] for name, (encoding, array) in arrays.items()}
    path.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for _, array in arrays.values()))
    return path
