"""Plain pickles: scikit-learn models, arrays and tensors, written by `pickle.dump` or `joblib.dump`, and never unpickled.

The bytes of an array lie in the stream: in the pickle itself, or behind a description of it, as joblib writes them
(`pickled/arrays.py`), so they can be mapped. joblib's zlib and gzip files are inflated once; others are refused.
"""

from __future__ import annotations

import zlib
from io import FileIO
from typing import Any

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, open_regular, read_exactly
from diffai_stream.formats.pickled.allowed import Names
from diffai_stream.formats.pickled.array_entries import array_entries
from diffai_stream.formats.pickled.arrays import Array
from diffai_stream.formats.pickled.collect import collect
from diffai_stream.formats.pickled.entries import tensor_entry
from diffai_stream.formats.pickled.machine import Machine
from diffai_stream.formats.pickled.stream import Inflating, Stream
from diffai_stream.formats.pickled.torch_legacy import Legacy
from diffai_stream.formats.pickled.torch_values import NESTED, Storage, Tensor
from diffai_stream.formats.pickled.values import Broken
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.spill import within

_COMPRESSED = {b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x5d\0\0": "lzma", b"\x04\x22M\x18": "lz4"}
_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pkl.gz", ".pkl.bz2", ".pkl.xz")
_HEAD_NBYTES = 512
_NESTED_BUDGET = 10_000  # instructions of one storage's file, which has some thirty


def probe(path: str, head: bytes) -> bool:
    """Whether it begins as a pickle of protocol 2 to 5, itself or once inflated; other compressions count by their suffix."""
    if _is_pickle(head) or _is_pickle(_inflated_head(head)):
        return True
    return path.lower().endswith(_SUFFIXES) and any(head.startswith(magic) for magic in _COMPRESSED)


def index(path: str) -> Checkpoint:
    """The arrays of one file under the names of the attributes that hold them.

    Raises FormatError when the pickle cannot be read; an array that cannot is a TensorError in `errors`.
    """
    notes, names = Notes(path), Names()
    with open_regular(path) as (file, stamp), collection_paused():
        stream = _stream(file, stamp.nbytes, path)
        machine = Machine(stream, names.find, _no_reference)
        root = machine.run()
        if stream.mapped and machine.left:
            notes.add("trailing_bytes", f"{machine.left} bytes follow the pickle, from offset {machine.position}")

        nested = _Nested(file, stamp, notes)

        def locate(offset: int, nbytes: int) -> Extent:
            if isinstance(stream, Inflating):
                return within(
                    Extent(stamp.path, stream.first, nbytes), offset, stream.inflated_nbytes, stream.compressed_nbytes
                )
            return Extent(stamp.path, offset, nbytes)

        def describe(name: str, value: Any, part: str) -> list[TensorEntry]:
            if isinstance(value, Array):
                return array_entries(name, value, locate, part)
            if not stream.mapped:
                raise ValueError("a tensor of torch in a compressed pickle; save it uncompressed, or with torch.save")
            return [nested.entry(name, value, part)]

        found = collect(root, describe, notes)
    return Checkpoint(
        path=path,
        format="pickle",
        tensors=found.tensors,
        metadata={},
        stamps={stamp.path: stamp},
        oddities=notes.oddities(),
        errors=found.errors,
        aliases=found.aliases,
        hyperparameters=found.hyperparameters,
        unsafe_globals=names.told(),
    )


class _Nested:
    """Tensors whose storages are little files of torch within the pickle, each looked at once."""

    def __init__(self, file: FileIO, stamp: FileStamp, notes: Notes) -> None:
        self.file, self.stamp, self.notes = file, stamp, notes
        self._known: dict[Storage, tuple[Storage, Legacy] | str] = {}

    def entry(self, name: str, tensor: Tensor, part: str) -> TensorEntry:
        """The entry of a tensor. Raises ValueError when its storage cannot be read."""
        if tensor.storage.dtype != NESTED:
            raise ValueError("its storage is not in this file")
        if tensor.storage not in self._known:
            self._known[tensor.storage] = self._opened(tensor.storage)
        found = self._known[tensor.storage]
        if isinstance(found, str):
            raise ValueError(found)
        storage, inner = found
        dtype = storage.dtype if tensor.dtype == NESTED else tensor.dtype
        return tensor_entry(name, tensor._replace(storage=storage, dtype=dtype), inner.locate, part)

    def _opened(self, outer: Storage) -> tuple[Storage, Legacy] | str:
        """What lies there, or why it cannot be read."""
        try:
            inner = Legacy(self.file, outer.first + outer.numel, self.notes.path, self.stamp.path, self.notes, outer.first)
            inner.limit(_NESTED_BUDGET)
            storage = inner.value()
        except FormatError as error:
            return f"its storage cannot be read: {error.message}"
        return (storage, inner) if isinstance(storage, Storage) else "its storage holds something else"


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _no_reference(_: object) -> Broken:
    return Broken("a reference to something outside of the pickle")


def _stream(file: FileIO, nbytes: int, path: str) -> Stream:
    """The bytes of the pickle, inflated where the file is compressed. Raises FormatError for compressions that are not read."""
    head = read_exactly(file, 0, min(_HEAD_NBYTES, nbytes), path)
    for magic, kind in _COMPRESSED.items():
        if head.startswith(magic):
            message = f"compressed with {kind}, which is not read; save it with compress=0 (then it is mapped) or with zlib"
            raise FormatError(message, path=path)
    if _is_pickle(head) or not _deflate_start(head):
        return Stream(file, 0, nbytes, path)
    return Inflating(file, _deflate_start(head), nbytes, path)


def _deflate_start(head: bytes) -> int:
    """Where the raw deflate data of a zlib or gzip file begins, 0 for other files."""
    if head[:2] == b"\x1f\x8b" and len(head) > 18:
        return _gzip_start(head)
    is_zlib = len(head) > 2 and head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return 2 if is_zlib else 0


def _gzip_start(head: bytes) -> int:
    """Behind the header of RFC 1952: ten bytes, an extra field, name and comment that end with a zero byte, a checksum."""
    flags, start = head[3], 10
    if flags & 4:
        start += 2 + int.from_bytes(head[10:12], "little")
    for flag in (8, 16):
        if flags & flag:
            start = head.find(b"\0", start) + 1
            if start == 0:
                return 0
    return start + (2 if flags & 2 else 0)


def _inflated_head(head: bytes) -> bytes:
    """The first bytes of what a zlib or gzip file holds."""
    start = _deflate_start(head)
    if not start:
        return b""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[start:], 16)
    except zlib.error:
        return b""
