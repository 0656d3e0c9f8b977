"""What a group holds and what is written on an object: links and attributes, compact or stored apart, old style or new."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from typing import NamedTuple

from diffai_stream.storage.hdf5 import objects
from diffai_stream.storage.hdf5.heaps import MAX_TEXT_NBYTES, FractalHeap, global_object, local_heap
from diffai_stream.storage.hdf5.objects import Header, shared
from diffai_stream.storage.hdf5.source import Cursor, Damaged, Source, Unsupported
from diffai_stream.storage.hdf5.trees import GROUP_NODES, walk_v1, walk_v2
from diffai_stream.storage.hdf5.types import SEQUENCE, TEXT, Datatype, dataspace, datatype

MAX_VALUES = 4096
Value = str | int | tuple[str, ...]


class Link(NamedTuple):
    """A name in a group: `address` of the object it leads to, None for one that names its `target` (`is_soft`: a path here)."""

    name: str
    address: int | None
    target: str = ""
    is_soft: bool = False


def is_group(header: Header) -> bool:
    """Whether an object is a group."""
    return any(message.kind in (objects.SYMBOL_TABLE, objects.LINK_INFO, objects.LINK) for message in header.messages)


def links(header: Header) -> Iterator[Link]:
    """The links of a group, in no order that means anything. Raises Damaged, Unsupported."""
    source = header.source
    if (table := header.first(objects.SYMBOL_TABLE)) is not None:
        yield from _symbols(source, table)
        return
    for cursor in header.each(objects.LINK):
        yield _link(cursor)
    if (info := header.first(objects.LINK_INFO)) is not None:
        info.take(1)
        info.take(8 if info.uint(1) & 1 else 0)
        heap, names = info.address(), info.address()
        if heap is not None:
            store = FractalHeap(source, heap)
            for record in walk_v2(source, names):
                record.take(4)
                yield _link(store.get(record.take(record.left)))


def _symbols(source: Source, table: Cursor) -> Iterator[Link]:
    """The links of an old group: a tree of symbol nodes, their names in a local heap."""
    superblock = source.superblock
    tree, names = table.address(), local_heap(source, table.address())
    entry = 2 * superblock.address_nbytes + 24
    for _, node in walk_v1(source, tree, GROUP_NODES, superblock.length_nbytes):
        head = source.cursor(node, 8)
        head.signature(b"SNOD")
        head.take(2)
        count = head.uint(2)
        cursor = source.cursor(node + 8, count * entry)
        for _ in range(count):
            name, address = cursor.uint(superblock.address_nbytes), cursor.address()
            kind = cursor.uint(4)
            cursor.take(4)
            place = int.from_bytes(cursor.take(16)[:4], "little")
            yield Link(_name(names, name), address) if kind != 2 else Link(_name(names, name), None, _name(names, place), True)


def _name(heap: Cursor, place: int) -> str:
    if place >= len(heap.raw):
        raise Damaged("the name of a link lies outside of its heap", heap.offset)
    heap.place = place
    return heap.text()


def _link(cursor: Cursor) -> Link:
    version, flags = cursor.uint(1), cursor.uint(1)
    if version != 1:
        raise Unsupported(f"links of version {version} are not known")
    kind = cursor.uint(1) if flags & 8 else 0
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.take(cursor.uint(1 << (flags & 3))).decode("utf-8", "backslashreplace")
    if kind == 0:
        return Link(name, cursor.address())
    target = cursor.take(cursor.uint(2))
    return Link(name, None, target.strip(b"\0").replace(b"\0", b":").decode("utf-8", "backslashreplace"), kind == 1)


def attributes(header: Header, names: Collection[str]) -> dict[str, Value]:
    """The attributes of these names that are texts or small integers; one that cannot be read is left out."""
    found = {}
    for cursor in _attribute_bodies(header):
        try:
            if (item := _attribute(header.source, cursor, names)) is not None:
                found[item[0]] = item[1]
        except (Damaged, Unsupported):
            continue
    return found


def _attribute_bodies(header: Header) -> Iterator[Cursor]:
    yield from header.each(objects.ATTRIBUTE)
    if (info := header.first(objects.ATTRIBUTE_INFO)) is None:
        return
    info.take(1)
    info.take(2 if info.uint(1) & 1 else 0)
    heap, tree = info.address(), info.address()
    if heap is not None:
        store = FractalHeap(header.source, heap)
        for record in walk_v2(header.source, tree):
            heap_id = record.take(8)
            if not record.uint(1) & 2:
                yield store.get(heap_id)


def _attribute(source: Source, cursor: Cursor, names: Collection[str]) -> tuple[str, Value] | None:
    version, flags = cursor.uint(1), cursor.uint(1)
    if version not in (1, 2, 3):
        raise Unsupported(f"attributes of version {version} are not known")
    sizes = cursor.uint(2), cursor.uint(2), cursor.uint(2)
    cursor.take(1 if version == 3 else 0)
    padded = [size + (-size % 8 if version == 1 else 0) for size in sizes]
    name = cursor.take(padded[0])[: sizes[0]].rstrip(b"\0").decode("utf-8", "backslashreplace")
    if name not in names:
        return None
    parts = []
    for nbytes, is_shared, kind in ((padded[1], flags & 1, objects.DATATYPE), (padded[2], flags & 2, objects.DATASPACE)):
        body = Cursor(cursor.take(nbytes), cursor.offset, source.superblock)
        parts.append(shared(source, body, kind) if is_shared and version > 1 else body)
    kind_of, shape = datatype(parts[0]), dataspace(parts[1]).shape
    count = 0 if shape is None else prod(shape)
    if count > MAX_VALUES:
        return None
    values = [_value(source, kind_of, cursor) for _ in range(count)]
    if shape == () or (len(values) == 1 and not isinstance(values[0], str)):
        return None if values[0] is None else (name, values[0])
    return name, tuple(value for value in values if isinstance(value, str))


def _value(source: Source, kind: Datatype, cursor: Cursor) -> str | int | None:
    if kind.kind in (TEXT, SEQUENCE) and kind.base is not None:
        length, address, index = cursor.uint(4), cursor.address(), cursor.uint(4)
        if length > MAX_TEXT_NBYTES:
            raise Damaged(f"a text of {length} bytes", cursor.offset)
        if kind.kind == SEQUENCE and kind.base.kind != TEXT:
            width = kind.base.nbytes
            raw = global_object(source, address, index)[: length * width]
            return raw[::width].decode("latin-1")  # one character each, as MATLAB writes names
        return "" if not length else global_object(source, address, index)[:length].rstrip(b"\0").decode("utf-8", "replace")
    raw = cursor.take(kind.nbytes)
    if kind.kind == TEXT:
        return raw.split(b"\0")[0].rstrip(b" ").decode("utf-8", "replace")
    if kind.encoding[:1] in ("I", "U"):
        return int.from_bytes(raw, "big" if kind.big_endian else "little", signed=kind.encoding[0] == "I")
    return None
