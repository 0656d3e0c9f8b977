"""Datasets: shape, datatype, and where their bytes lie: in the header, in one piece, or in chunks that filters have packed."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from diffai_stream.storage.hdf5 import objects
from diffai_stream.storage.hdf5.objects import Header
from diffai_stream.storage.hdf5.source import Cursor, Damaged, Source, Unsupported
from diffai_stream.storage.hdf5.types import MAX_RANK, Datatype, dataspace, datatype

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
OLD_TREE, SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, TREE = range(6)
MAX_FILTERS = 32
MAX_FILL_NBYTES = 64


class Filter(NamedTuple):
    """A step of packing a chunk, by its registered number; `values` are its parameters."""

    number: int
    name: str
    values: tuple[int, ...]


class Chunks(NamedTuple):
    """How a dataset is chunked: `shape` of one, `kind` of index, and what the index needs to be read.

    `page_bits` of a fixed array; `filtered_nbytes` and `mask` of a single filtered chunk; `partial_plain` where chunks that
    reach over the edge are not filtered.
    """

    shape: tuple[int, ...]
    kind: int
    address: int | None
    page_bits: int = 0
    filtered_nbytes: int | None = None
    mask: int = 0
    partial_plain: bool = False


class Dataset(NamedTuple):
    """One dataset, which can grow up to `limits`.

    Contiguous and compact bytes lie at `place` in the container; None where nothing was ever written.
    """

    shape: tuple[int, ...]
    limits: tuple[int, ...]
    type: Datatype
    layout: int
    place: int | None
    chunks: Chunks | None
    filters: tuple[Filter, ...]
    fill: bytes

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.type.nbytes


def is_dataset(header: Header) -> bool:
    """Whether an object is a dataset."""
    return {objects.DATATYPE, objects.DATASPACE, objects.LAYOUT} <= {message.kind for message in header.messages}


def read_dataset(header: Header) -> Dataset:
    """What a dataset is. Raises Damaged; Unsupported for what lies in other files and for null dataspaces."""
    space, kind = header.first(objects.DATASPACE), header.first(objects.DATATYPE)
    if space is None or kind is None:
        raise Damaged("a dataset without a shape or datatype")
    (shape, limits), element = dataspace(space), datatype(kind)
    if shape is None:
        raise Unsupported("a null dataspace, which holds nothing")
    if any(message.kind == objects.EXTERNAL for message in header.messages):
        raise Unsupported("its data lies in other files, which are not opened; repack it (h5repack)")
    if element.nbytes == 0:
        raise Damaged("elements of 0 bytes")
    layout, place, chunks = _layout(header, prod(shape) * element.nbytes)
    if chunks is not None and len(chunks.shape) != len(shape):
        raise Damaged(f"chunks of {len(chunks.shape)} dimensions in a dataset of {len(shape)}")
    return Dataset(shape, limits, element, layout, place, chunks, _filters(header), _fill(header, element.nbytes))


def _layout(header: Header, nbytes: int) -> tuple[int, int | None, Chunks | None]:
    cursor = header.first(objects.LAYOUT)
    if cursor is None:
        raise Damaged("a dataset without a layout")
    version = cursor.uint(1)
    if version < 3:
        return _old_layout(header.source, cursor, nbytes)
    if version > 5:
        raise Unsupported(f"layouts of version {version} are not known")
    kind = cursor.uint(1)
    if kind == COMPACT:
        size = cursor.uint(2)
        if size < nbytes:
            raise Damaged(f"it takes {nbytes} bytes, {size} are stored", cursor.offset)
        offset = cursor.offset
        cursor.take(nbytes)
        return kind, offset, None
    if kind == CONTIGUOUS:
        return kind, _contiguous(header.source, cursor.address(), nbytes), None
    if kind == CHUNKED:
        return kind, None, _old_chunks(cursor) if version == 3 else _chunks(cursor)
    if kind == VIRTUAL:
        raise Unsupported("a virtual dataset, whose data lies in other datasets or files; write a real one (h5repack)")
    raise Unsupported(f"layouts of class {kind} are not known")


def _contiguous(source: Source, address: int | None, nbytes: int) -> int | None:
    return None if address is None or not nbytes else source.place(address, nbytes)


def _old_layout(source: Source, cursor: Cursor, nbytes: int) -> tuple[int, int | None, Chunks | None]:
    """Versions 1 and 2, before HDF5 1.6.3."""
    rank, kind = cursor.uint(1), cursor.uint(1)
    cursor.take(5)
    address = cursor.address() if kind != COMPACT else None
    if rank > MAX_RANK + 1:
        raise Damaged(f"a layout of {rank} dimensions", cursor.offset)
    sizes = tuple(cursor.uint(4) for _ in range(rank))
    if kind == CONTIGUOUS:
        return kind, _contiguous(source, address, nbytes), None
    if kind == CHUNKED:
        return kind, None, Chunks(_checked(sizes[:-1], cursor), OLD_TREE, address)
    stored, offset = cursor.uint(4), cursor.offset
    if kind != COMPACT or stored < nbytes:
        raise Damaged(f"a layout of class {kind} and {stored} bytes where {nbytes} are due", offset)
    cursor.take(nbytes)
    return kind, offset, None


def _checked(shape: tuple[int, ...], cursor: Cursor) -> tuple[int, ...]:
    if not shape or 0 in shape:
        raise Damaged(f"chunks of shape {shape}", cursor.offset)
    return shape


def _old_chunks(cursor: Cursor) -> Chunks:
    rank, address = cursor.uint(1), cursor.address()
    if rank > MAX_RANK + 1:
        raise Damaged(f"chunks of {rank} dimensions", cursor.offset)
    sizes = tuple(cursor.uint(4) for _ in range(rank))
    return Chunks(_checked(sizes[:-1], cursor), OLD_TREE, address)


def _chunks(cursor: Cursor) -> Chunks:
    flags, rank, width = cursor.uint(1), cursor.uint(1), cursor.uint(1)
    if rank > MAX_RANK + 1 or not 0 < width <= 8:
        raise Damaged(f"chunks of {rank} dimensions, {width} bytes each", cursor.offset)
    shape = _checked(tuple(cursor.uint(width) for _ in range(rank))[:-1], cursor)
    index, page_bits, nbytes, mask = cursor.uint(1), 0, None, 0
    if index == SINGLE and flags & 2:
        nbytes, mask = cursor.length(), cursor.uint(4)
    elif index == FIXED_ARRAY:
        page_bits = cursor.uint(1)
    elif index in (EXTENSIBLE_ARRAY, TREE):
        cursor.take(5 if index == EXTENSIBLE_ARRAY else 6)
    elif index not in (SINGLE, IMPLICIT):
        raise Unsupported(f"a chunk index of type {index} is not known")
    return Chunks(shape, index, cursor.address(), page_bits, nbytes, mask, bool(flags & 1))


def _filters(header: Header) -> tuple[Filter, ...]:
    cursor = header.first(objects.FILTERS)
    if cursor is None:
        return ()
    version, count = cursor.uint(1), cursor.uint(1)
    if version not in (1, 2) or count > MAX_FILTERS:
        raise Unsupported(f"{count} filters, described in version {version}")
    cursor.take(6 if version == 1 else 0)
    found = []
    for _ in range(count):
        number = cursor.uint(2)
        name_nbytes = cursor.uint(2) if version == 1 or number >= 256 else 0
        cursor.take(2)
        value_count = cursor.uint(2)
        name = cursor.take(name_nbytes).split(b"\0")[0].decode("ascii", "replace")
        values = tuple(cursor.uint(4) for _ in range(value_count))
        cursor.take(4 if version == 1 and value_count % 2 else 0)
        found.append(Filter(number, name, values))
    return tuple(found)


def _fill(header: Header, nbytes: int) -> bytes:
    """The bytes of an element that was never written."""
    cursor, kept = header.first(objects.FILL), b""
    if cursor is not None:
        version = cursor.uint(1)
        flags = cursor.uint(1) if version == 3 else 0
        is_defined = bool(flags & 0x20)
        if version < 3:
            cursor.take(2)
            is_defined = cursor.uint(1) == 1 or version == 1
        size = cursor.uint(4) if is_defined else 0
        kept = cursor.take(size) if size < 1 << 16 else b""
    elif (old := header.first(objects.OLD_FILL)) is not None:
        kept = old.take(old.uint(4))
    return kept if len(kept) == nbytes else bytes(min(nbytes, MAX_FILL_NBYTES))
