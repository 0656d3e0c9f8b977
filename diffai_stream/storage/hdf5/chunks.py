"""Where the chunks of a dataset lie: the indexes of both generations, as one list of pieces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import NamedTuple

from diffai_stream.storage.hdf5.datasets import FIXED_ARRAY, IMPLICIT, OLD_TREE, SINGLE, TREE, Chunks, Dataset
from diffai_stream.storage.hdf5.source import Cursor, Damaged, Source, Unsupported
from diffai_stream.storage.hdf5.trees import CHUNK_NODES, walk_v1, walk_v2

MAX_CHUNKS = 1 << 20


class Piece(NamedTuple):
    """A stored chunk: its place in the grid of chunks, offset in the container, bytes as stored, filters left out."""

    place: tuple[int, ...]
    offset: int
    nbytes: int
    mask: int


def grid_of(dataset: Dataset, shape: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """How many chunks there are along each axis, of another shape where one is given."""
    sizes = dataset.shape if shape is None else shape
    return tuple(-(-size // step) for size, step in zip(sizes, dataset.chunks.shape if dataset.chunks else sizes, strict=True))


def _all_places(dataset: Dataset) -> Iterator[tuple[int, ...]]:
    """The chunks in the order of an index that has room for all that the dataset can grow to."""
    grid = grid_of(dataset, dataset.limits)
    if prod(grid) > MAX_CHUNKS:
        raise Unsupported(f"more than {MAX_CHUNKS} chunks")
    return product(*map(range, grid))


def chunk_nbytes(dataset: Dataset) -> int:
    """Bytes of one chunk before it was packed; those at the edge are as large as the others."""
    return prod(dataset.chunks.shape if dataset.chunks else ()) * dataset.type.nbytes


def read_chunks(source: Source, dataset: Dataset) -> dict[tuple[int, ...], Piece]:
    """The stored chunks by their place in the grid; one that is not in it was never written. Raises Damaged, Unsupported."""
    chunks = dataset.chunks
    if chunks is None or chunks.address is None:
        return {}
    found: dict[tuple[int, ...], Piece] = {}
    grid = grid_of(dataset)
    for piece in READERS[chunks.kind](source, dataset, chunks, chunks.address):
        if len(found) >= MAX_CHUNKS:
            raise Unsupported(f"more than {MAX_CHUNKS} chunks")
        if all(0 <= at < count for at, count in zip(piece.place, grid, strict=True)):  # others were cut off by a resize
            found[piece.place] = piece
    return found


def _piece(source: Source, place: tuple[int, ...], address: int, nbytes: int, mask: int) -> Piece:
    return Piece(place, source.place(address, nbytes), nbytes, mask)


def _old_tree(source: Source, dataset: Dataset, chunks: Chunks, address: int) -> Iterator[Piece]:
    """Version 1 B-trees: keys are stored size, filter mask, offsets of the first element (and of a byte in an element)."""
    shape = chunks.shape
    for key, child in walk_v1(source, address, CHUNK_NODES, 8 + 8 * (len(shape) + 1)):
        nbytes, mask = key.uint(4), key.uint(4)
        offsets = [key.uint(8) for _ in shape]
        if any(offset % size for offset, size in zip(offsets, shape, strict=True)):
            raise Damaged(f"a chunk at {offsets}, which is no multiple of {shape}", key.offset)
        place = tuple(offset // size for offset, size in zip(offsets, shape, strict=True))
        yield _piece(source, place, child, nbytes, mask)


def _single(source: Source, dataset: Dataset, chunks: Chunks, address: int) -> Iterator[Piece]:
    nbytes = chunk_nbytes(dataset) if chunks.filtered_nbytes is None else chunks.filtered_nbytes
    yield _piece(source, (0,) * len(dataset.shape), address, nbytes, chunks.mask)


def _implicit(source: Source, dataset: Dataset, chunks: Chunks, address: int) -> Iterator[Piece]:
    """All chunks one after the other."""
    nbytes = chunk_nbytes(dataset)
    for number, place in enumerate(_all_places(dataset)):
        yield _piece(source, place, address + number * nbytes, nbytes, 0)


def _fixed_array(source: Source, dataset: Dataset, chunks: Chunks, address: int) -> Iterator[Piece]:
    """An element a chunk in C order of the grid; long arrays are cut into pages, of which a bitmap tells the written ones."""
    address_nbytes, lengths = source.superblock.address_nbytes, source.superblock.length_nbytes
    head = source.cursor(address, 8 + lengths + address_nbytes)
    head.signature(b"FAHD")
    head.take(1)
    is_filtered, element, page_bits, count = head.uint(1) == 1, head.uint(1), head.uint(1), head.length()
    block = head.address()
    if (
        count != prod(grid_of(dataset, dataset.limits))
        or page_bits > 32
        or element < address_nbytes + (5 if is_filtered else 0)
    ):
        raise Damaged(f"an array of {count} chunks of {element} bytes in a grid of {grid_of(dataset)}", head.offset)
    if block is None:
        return
    places = _all_places(dataset)
    for cursor in _pages(source, block, count, element, 1 << page_bits):
        if isinstance(cursor, int):  # a page that was never written
            for _ in range(cursor):
                next(places)
            continue
        while cursor.left:
            place, start = next(places), cursor.address()
            nbytes = cursor.uint(element - address_nbytes - 4) if is_filtered else chunk_nbytes(dataset)
            mask = cursor.uint(4) if is_filtered else 0
            if start is not None:
                yield _piece(source, place, start, nbytes, mask)


def _pages(source: Source, block: int, count: int, element: int, page: int) -> Iterator[Cursor | int]:
    """The elements of a fixed array by pages, or the length of a page that was never written."""
    prefix = 6 + source.superblock.address_nbytes
    source.cursor(block, prefix).signature(b"FADB")
    if count <= page:
        yield source.cursor(block + prefix, count * element)
        return
    page_count = -(-count // page)
    bitmap = source.cursor(block + prefix, -(-page_count // 8)).raw
    start = block + prefix + len(bitmap) + 4
    for number in range(page_count):
        size = min(page, count - number * page)
        if bitmap[number // 8] & (128 >> number % 8):
            yield source.cursor(start + number * (page * element + 4), size * element)
        else:
            yield size


def _tree(source: Source, dataset: Dataset, chunks: Chunks, address: int) -> Iterator[Piece]:
    """Version 2 B-trees, where more than one axis can grow."""
    rank, width = len(dataset.shape), source.superblock.address_nbytes
    for record in walk_v2(source, address):
        start, nbytes, mask = record.address(), chunk_nbytes(dataset), 0
        if dataset.filters:
            nbytes, mask = record.uint(len(record.raw) - width - 4 - 8 * rank), record.uint(4)
        place = tuple(record.uint(8) for _ in range(rank))
        if start is not None:
            yield _piece(source, place, start, nbytes, mask)


READERS = {OLD_TREE: _old_tree, SINGLE: _single, IMPLICIT: _implicit, FIXED_ARRAY: _fixed_array, TREE: _tree}
