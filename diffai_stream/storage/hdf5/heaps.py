"""Heaps: local ones hold the names of old groups, global ones texts of variable length, fractal ones links and attributes."""

from __future__ import annotations

from functools import cached_property

from diffai_stream.storage.hdf5.source import Cursor, Damaged, Source, Unsupported

MAX_TEXT_NBYTES = 1 << 20
MAX_ROWS = 64


def local_heap(source: Source, address: int | None) -> Cursor:
    """The data of a local heap: names that end in a zero byte."""
    lengths = source.superblock.length_nbytes
    cursor = source.cursor(address, 8 + 2 * lengths + source.superblock.address_nbytes)
    cursor.signature(b"HEAP")
    cursor.take(4)
    nbytes = cursor.length()
    cursor.length()
    return source.cursor(cursor.address(), nbytes)


def global_object(source: Source, address: int | None, index: int) -> bytes:
    """Object `index` of the global heap collection at an address."""
    lengths = source.superblock.length_nbytes
    head = source.cursor(address, 8 + lengths)
    head.signature(b"GCOL")
    head.take(4)
    cursor = source.cursor((address or 0) + len(head.raw), max(0, head.length() - len(head.raw)))
    while cursor.left >= 8 + lengths:
        found = cursor.uint(2)
        cursor.take(6)
        nbytes = cursor.length()
        if found == index:
            return cursor.take(nbytes)
        if found == 0:
            break
        cursor.take(nbytes + -nbytes % 8)
    raise Damaged(f"object {index} is not in the global heap", cursor.offset)


class FractalHeap:
    """A fractal heap: objects by their ID. Blocks double in size from row to row of a table, which may hold tables again."""

    def __init__(self, source: Source, address: int | None) -> None:
        self._source = source
        width, lengths = source.superblock.address_nbytes, source.superblock.length_nbytes
        cursor = source.cursor(address, 4 + 1 + 4 + 1 + 4 + 12 * lengths + 3 * width + 2 + 2 + 2 + 2)
        cursor.signature(b"FRHP")
        cursor.take(1 + 2)
        if cursor.uint(2):
            raise Unsupported("a compressed fractal heap is not read")
        cursor.take(1)
        largest_object = cursor.uint(4)
        cursor.take(lengths + width + lengths + width + 8 * lengths)
        self._columns, self._first_nbytes = cursor.uint(2), cursor.length()
        self._largest_nbytes, self._offset_bits = cursor.length(), cursor.uint(2)
        cursor.take(2)
        self._root, self._root_rows = cursor.address(), cursor.uint(2)
        powers = self._columns, self._first_nbytes, self._largest_nbytes
        if any(number < 1 or number & (number - 1) for number in powers) or self._first_nbytes > self._largest_nbytes:
            raise Damaged(f"a fractal heap of {powers} columns and bytes a block", cursor.offset)
        self._offset_nbytes = -(-self._offset_bits // 8)
        sizes = -(-(self._largest_nbytes.bit_length() - 1) // 8), -(-largest_object.bit_length() // 8)
        self._length_nbytes = max(1, min(sizes))

    @cached_property
    def _direct_rows(self) -> int:
        """Rows of a table whose blocks hold objects; those of the rows below are tables."""
        return self._largest_nbytes.bit_length() - self._first_nbytes.bit_length() + 2

    def get(self, heap_id: bytes) -> Cursor:
        """The object of an ID. Raises Damaged, Unsupported for one stored apart."""
        kind = heap_id[0] >> 4 & 3
        cursor = Cursor(heap_id[1:], 0, self._source.superblock)
        if kind == 2:
            return Cursor(cursor.take((heap_id[0] & 15) + 1), 0, self._source.superblock)
        if kind != 0:
            raise Unsupported("an attribute or link too large for its heap is not read")
        offset, nbytes = cursor.uint(self._offset_nbytes), cursor.uint(self._length_nbytes)
        block, start = self._block(self._root, self._root_rows, offset)
        return self._source.cursor(block + offset - start, nbytes)

    def _block(self, address: int | None, rows: int, offset: int, start: int = 0, depth: int = 0) -> tuple[int, int]:
        """Address of the block that holds a heap offset, and the heap offset it starts at."""
        if address is None or depth > MAX_ROWS or rows > MAX_ROWS:
            raise Damaged(f"a heap has no block at its offset {offset}")
        if rows == 0:
            return address, start
        for row in range(rows):
            nbytes = self._first_nbytes << max(0, row - 1)
            if offset < start + nbytes * self._columns:
                column = (offset - start) // nbytes
                child, below = self._child(address, row * self._columns + column), start + column * nbytes
                if row < self._direct_rows:
                    return self._block(child, 0, offset, below, depth + 1)
                deeper = nbytes.bit_length() - (self._first_nbytes * self._columns).bit_length() + 1
                return self._block(child, deeper, offset, below, depth + 1)
            start += nbytes * self._columns
        raise Damaged(f"a heap has no block at its offset {offset}")

    def _child(self, table: int, number: int) -> int | None:
        width = self._source.superblock.address_nbytes
        head = self._source.cursor(table, 5 + width + self._offset_nbytes)
        head.signature(b"FHIB")
        return self._source.cursor(table + len(head.raw) + number * width, width).address()
