"""B-trees of both versions, walked from the root down. A level is one less than the one above, so no walk goes round."""

from __future__ import annotations

from collections.abc import Iterator

from diffai_stream.storage.hdf5.source import Cursor, Damaged, Source

MAX_LEVEL = 32
_PREFIX_NBYTES = 10  # of a node of version 2: signature, version, type, checksum
GROUP_NODES, CHUNK_NODES = 0, 1


def walk_v1(
    source: Source, address: int | None, kind: int, key_nbytes: int, level: int | None = None
) -> Iterator[tuple[Cursor, int]]:
    """(key, child address) of all leaves of a tree of version 1."""
    width = source.superblock.address_nbytes
    head = source.cursor(address, 8 + 2 * width)
    head.signature(b"TREE")
    found, depth, count = head.uint(1), head.uint(1), head.uint(2)
    if found != kind or depth > MAX_LEVEL or (level is not None and depth != level):
        raise Damaged(f"a tree node of type {found}, level {depth} where another is due", head.offset)
    nbytes = count * (key_nbytes + width) + key_nbytes
    cursor = source.cursor((address or 0) + len(head.raw), nbytes)
    for _ in range(count):
        offset = cursor.offset
        key = Cursor(cursor.take(key_nbytes), offset, source.superblock)
        child = cursor.address()
        if child is None:
            raise Damaged("a tree node without a child", offset)
        if depth == 0:
            yield key, child
        else:
            yield from walk_v1(source, child, kind, key_nbytes, depth - 1)


def _width_of(number: int) -> int:
    """Bytes that the library takes for numbers up to this one."""
    return max(1, -(-number.bit_length() // 8))


def walk_v2(source: Source, address: int | None) -> Iterator[Cursor]:
    """The records of a tree of version 2 in order."""
    width, lengths = source.superblock.address_nbytes, source.superblock.length_nbytes
    head = source.cursor(address, 4 + 2 + 4 + 2 + 2 + 2 + width + 2 + lengths)
    head.signature(b"BTHD")
    head.take(2)
    node_nbytes, record_nbytes, depth = head.uint(4), head.uint(2), head.uint(2)
    head.take(2)
    root, count = head.address(), head.uint(2)
    if root is None:
        return
    if not 0 < record_nbytes <= node_nbytes - _PREFIX_NBYTES or depth > MAX_LEVEL:
        raise Damaged(f"a tree of {depth} levels, {record_nbytes} bytes a record, {node_nbytes} a node", head.offset)
    yield from _Nodes(source, node_nbytes, record_nbytes, depth).walk(root, count, depth)


class _Nodes:
    """The nodes of one tree of version 2, and how wide the counts in them are, level by level."""

    def __init__(self, source: Source, node_nbytes: int, record_nbytes: int, depth: int) -> None:
        self._source, self._record_nbytes = source, record_nbytes
        most = (node_nbytes - _PREFIX_NBYTES) // record_nbytes
        self._count_nbytes = _width_of(most)
        self._total_nbytes, total = [0], most  # of the subtree that a pointer at this level leads to
        for level in range(1, depth + 1):
            pointer = source.superblock.address_nbytes + self._count_nbytes + self._total_nbytes[level - 1]
            most = (node_nbytes - _PREFIX_NBYTES - pointer) // (record_nbytes + pointer)
            total = (most + 1) * total + most
            self._total_nbytes.append(_width_of(total))

    def walk(self, address: int | None, count: int, level: int) -> Iterator[Cursor]:
        source, width = self._source, self._source.superblock.address_nbytes
        pointer = (width + self._count_nbytes + self._total_nbytes[level - 1]) if level else 0
        cursor = source.cursor(address, 6 + count * self._record_nbytes + (count + 1) * pointer)
        cursor.signature(b"BTIN" if level else b"BTLF")
        cursor.take(2)
        start = cursor.offset
        records = [
            Cursor(cursor.take(self._record_nbytes), start + i * self._record_nbytes, source.superblock) for i in range(count)
        ]
        for number in range(count + 1):
            if level:
                child, size = cursor.address(), cursor.uint(self._count_nbytes)
                cursor.take(self._total_nbytes[level - 1])
                yield from self.walk(child, size, level - 1)
            if number < count:
                yield records[number]
