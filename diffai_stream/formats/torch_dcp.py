"""Directories of torch.distributed.checkpoint: `.metadata` beside the `.distcp` files of the ranks that saved.

Layout (`torch/distributed/checkpoint/metadata.py`, `filesystem.py`): `.metadata` is a pickle of the shapes, the
boxes into which each tensor was cut, and the file, offset and length of each; there stands a complete little file of torch.
The names do not depend on how many ranks there were, so checkpoints of different world sizes are compared as they are.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from io import FileIO
from typing import Any, NamedTuple, cast

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, open_regular
from diffai_stream.formats.pickled.allowed import Names
from diffai_stream.formats.pickled.collect import contents_of
from diffai_stream.formats.pickled.distributed import Metadata, Piece, Stored, read_metadata
from diffai_stream.formats.pickled.entries import tensor_component
from diffai_stream.formats.pickled.machine import Machine
from diffai_stream.formats.pickled.stream import Stream
from diffai_stream.formats.pickled.torch_values import ENCODINGS_OF, Tensor
from diffai_stream.formats.pickled.torch_zip import Archive
from diffai_stream.formats.pickled.training import dotted, sort_leaves
from diffai_stream.formats.pickled.tree import Leaf, Scalar
from diffai_stream.formats.pickled.values import Broken
from diffai_stream.storage.boxes import Box, boxed
from diffai_stream.storage.extent import FileStamp

_METADATA = ".metadata"
_SUFFIX = ".distcp"
_MAX_OBJECT_NBYTES = 1 << 20
_MAX_OPEN = 64
_CHUNK_BUDGET = 100_000  # instructions of one chunk, which holds one tensor or setting


def probe(path: str, head: bytes) -> bool:
    """Whether it is a directory with the metadata and a file of a distributed checkpoint."""
    if head or not os.path.isfile(os.path.join(path, _METADATA)):
        return False
    return any(entry.name.endswith(_SUFFIX) for entry in os.scandir(path))


def index(path: str) -> Checkpoint:
    """The tensors of all ranks, weights first.

    Raises FormatError when the metadata cannot be read; a tensor of which a box cannot be is a TensorError in `errors`.
    """
    notes, names = Notes(path), Names()
    with collection_paused(), ExitStack() as opened:
        metadata, stamp = _metadata(os.path.join(path, _METADATA), names)
        files = _Files(path, names, opened)
        leaves = [Leaf(place, stored) for place, stored in metadata.tensors.items()]
        leaves += [Leaf(place, Broken(reason)) for place, reason in metadata.flaws.items()]

        def describe(name: str, value: Any, part: str) -> list[TensorEntry]:
            component = _component(value, files)
            return [TensorEntry(name, component.shape, component.dtype, {"data": component}, part=part)]

        found = contents_of(sort_leaves(leaves), describe, notes, dict(_settings(metadata, files)))
        stamps = {stamp.path: stamp, **files.stamps}
    return Checkpoint(
        path=path,
        format="torch_dcp",
        tensors=found.tensors,
        metadata={},
        stamps=stamps,
        oddities=notes.oddities(),
        errors=found.errors,
        aliases=found.aliases,
        container="directory",
        hyperparameters=found.hyperparameters,
        unsafe_globals=names.told(),
    )


def _metadata(path: str, names: Names) -> tuple[Metadata, FileStamp]:
    with open_regular(path) as (file, stamp):
        root = Machine(Stream(file, 0, stamp.nbytes, path), names.find, lambda _: Broken("a reference")).run()
    try:
        return read_metadata(root), stamp
    except ValueError as error:
        raise FormatError(str(error), path=path) from None


class _Bounded(io.RawIOBase):
    """A file that ends early: an archive is found by its end. Reading by descriptor still counts from the file's start."""

    def __init__(self, file: FileIO, stop: int) -> None:
        self._file, self._stop, self._at = file, stop, 0

    def fileno(self) -> int:
        return self._file.fileno()

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + {0: 0, 1: self._at, 2: self._stop}[whence])
        return self._at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._stop - self._at))
        raw = os.pread(self._file.fileno(), count, self._at)
        buffer[: len(raw)] = raw
        self._at += len(raw)
        return len(raw)


class _Chunk(NamedTuple):
    """What a little file of torch holds, and the file it lies in."""

    value: Any
    archive: Archive
    stamp: FileStamp


class _Files:
    """The files of the directory, opened once each."""

    def __init__(self, directory: str, names: Names, opened: ExitStack) -> None:
        self.directory, self.names = directory, names
        self.stamps: dict[str, FileStamp] = {}
        self._opened, self._files = opened, dict[str, tuple[FileIO, FileStamp]]()
        self._claimed: Counter[str] = Counter()

    def chunk(self, piece: Piece) -> _Chunk:
        """The little file at a place. Raises ValueError when there is none that can be read."""
        try:
            file, stamp = self._open(piece.file)
            stop = piece.offset + piece.nbytes
            self._claimed[piece.file] += piece.nbytes
            if self._claimed[piece.file] > stamp.nbytes:  # else reading them could take any time
                raise ValueError(f"the chunks of {piece.file!r} overlap, they claim more bytes than it has")
            if stop > stamp.nbytes:
                raise ValueError(
                    f"{piece.file!r} ends at byte {stamp.nbytes}, its chunk at {piece.offset} should end at {stop}"
                )
            bounded = cast(FileIO, _Bounded(file, stop))
            archive = Archive(bounded, stop, os.path.join(self.directory, piece.file), stamp.path, self.names)
            archive.budget = _CHUNK_BUDGET
            return _Chunk(archive.value(), archive, stamp)
        except FormatError as error:
            how = f" (written through {piece.transforms}, which is not read)" if piece.transforms else ""
            raise ValueError(f"its chunk at {piece.offset} of {piece.file!r}{how}: {error.message}") from None

    def _open(self, name: str) -> tuple[FileIO, FileStamp]:
        if os.path.basename(name) != name or not name or "\0" in name:
            raise ValueError(f"the metadata name the file {name[:80]!r}, which is no file of the directory")
        if name not in self._files:
            if len(self._files) >= _MAX_OPEN:
                self._files.clear()
                self._opened.close()
            self._files[name] = self._opened.enter_context(open_regular(os.path.join(self.directory, name)))
            stamp = self._files[name][1]
            self.stamps[stamp.path] = stamp
        return self._files[name]


def _component(stored: Stored, files: _Files) -> Component:
    """The stored array of a tensor. Raises ValueError that says why there is none."""
    parts = [_part(piece, files) for piece in stored.pieces]
    if not parts:  # an empty tensor, which no rank had anything of
        return Component((), ENCODINGS_OF[stored.dtype], stored.shape)
    dtype = parts[0][0].dtype
    if any(component.dtype != dtype for component, _ in parts):
        raise ValueError("its chunks are of different dtypes")
    if len(parts) == 1:
        return parts[0][0]
    if any(component.strides is not None or component.extents[0].codec for component, _ in parts):
        raise ValueError("its chunks are not contiguous or are compressed; save it again with contiguous tensors")
    if all(piece.sizes[1:] == stored.shape[1:] for piece in stored.pieces):
        return Component(tuple(component.extents[0] for component, _ in parts), dtype, stored.shape)
    stamps = list(dict.fromkeys(stamp for _, stamp in parts))
    boxes = [
        Box(stamps.index(stamp), component.extents[0].offset, piece.origin, piece.sizes)
        for piece, (component, stamp) in zip(stored.pieces, parts, strict=True)
    ]
    return Component((boxed(ENCODINGS[dtype].bits // 8, stored.shape, boxes, stamps),), dtype, stored.shape)


def _part(piece: Piece, files: _Files) -> tuple[Component, FileStamp]:
    chunk = files.chunk(piece)
    if isinstance(chunk.value, Broken):
        raise ValueError(chunk.value.reason)
    if not isinstance(chunk.value, Tensor):
        raise ValueError(f"its chunk at {piece.offset} of {piece.file!r} holds no tensor")
    component = tensor_component(chunk.value, chunk.archive.locate)
    if component.shape != piece.sizes:
        raise ValueError(f"its chunk at {piece.offset} of {piece.file!r} is {component.shape}, not {piece.sizes}")
    return component, chunk.stamp


def _settings(metadata: Metadata, files: _Files) -> Iterator[tuple[str, Scalar]]:
    """Plain values that were saved beside the tensors, each in a little file of its own."""
    for path, piece in metadata.objects.items():
        if piece.nbytes > _MAX_OBJECT_NBYTES or path[-1] in ("params", "param_names"):
            continue
        try:
            value = files.chunk(piece).value
        except ValueError:
            continue
        if isinstance(value, str | int | float):
            yield dotted(path), value
