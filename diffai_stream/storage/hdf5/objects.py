"""Object headers: the messages that say what an object is, in both versions, with their continuation blocks."""

from __future__ import annotations

from typing import NamedTuple

from diffai_stream.storage.hdf5.source import Cursor, Damaged, Source, Unsupported

MAX_MESSAGES = 1 << 16  # of one object; attributes beyond a few are stored apart
DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT = 1, 2, 3, 4, 5, 6, 7, 8
FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 11, 12, 16, 17, 21
_SHARED = 2


class Message(NamedTuple):
    """A message of an object header: its body, and where in the file that begins."""

    kind: int
    flags: int
    body: bytes
    offset: int


class Header(NamedTuple):
    """The messages of one object."""

    source: Source
    messages: tuple[Message, ...]

    def first(self, kind: int) -> Cursor | None:
        """The body of the first message of a kind, None without one. Raises Unsupported when it is kept in a shared heap."""
        message = next((message for message in self.messages if message.kind == kind), None)
        return None if message is None else body_of(self.source, message)

    def each(self, kind: int) -> list[Cursor]:
        """The bodies of all messages of a kind."""
        return [body_of(self.source, message) for message in self.messages if message.kind == kind]


def body_of(source: Source, message: Message) -> Cursor:
    """The body of a message, that of another object where it is shared (a committed datatype)."""
    cursor = Cursor(message.body, message.offset, source.superblock)
    return shared(source, cursor, message.kind) if message.flags & _SHARED else cursor


def shared(source: Source, cursor: Cursor, kind: int) -> Cursor:
    """The body that a shared message points at: the same kind of message of another object."""
    version, where = cursor.uint(1), cursor.uint(1)
    if version == 1:
        cursor.take(6 + source.superblock.length_nbytes)
    elif version == 3 and where == 1:
        raise Unsupported("messages in a shared heap are not read")
    address = cursor.address()
    target = next((message for message in read_header(source, address).messages if message.kind == kind), None)
    if target is None or target.flags & _SHARED:
        raise Damaged("a shared message points at nothing", cursor.offset)
    return Cursor(target.body, target.offset, source.superblock)


def read_header(source: Source, address: int | None) -> Header:
    """The object at an address. Raises Damaged."""
    first = source.cursor(address, max(16, source.available(address or 0, 64)))
    if first.raw[:4] == b"OHDR":
        messages = _second_version(source, address or 0, first)
    elif first.raw[:1] == b"\x01":
        first.take(1 + 1 + 2 + 4)
        messages = _walk(source, address or 0, 16, first.uint(4), None)
    else:
        raise Damaged(f"there is no object header: it begins {first.raw[:4].hex(' ')}", first.offset)
    return Header(source, messages)


def _second_version(source: Source, address: int, cursor: Cursor) -> tuple[Message, ...]:
    cursor.take(4)
    if (version := cursor.uint(1)) != 2:
        raise Unsupported(f"object headers of version {version} are not known")
    flags = cursor.uint(1)
    cursor.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    nbytes = cursor.uint(1 << (flags & 3))
    return _walk(source, address, cursor.place, nbytes, flags)


def _walk(source: Source, address: int, skip: int, nbytes: int, flags: int | None) -> tuple[Message, ...]:
    """The messages of all blocks; `flags` of the second version, None for the first."""
    messages: list[Message] = []
    blocks, seen = [(address + skip, nbytes)], set[int]()
    while blocks:
        start, length = blocks.pop(0)
        if start in seen:
            raise Damaged("a block of an object header continues in itself", source.superblock.base + start)
        seen.add(start)
        cursor = source.cursor(start, length)
        if flags is not None and start != address + skip:
            cursor.signature(b"OCHK")
            cursor.raw = cursor.raw[:-4]  # the checksum
        for message in _messages(cursor, flags):
            if message.kind == CONTINUATION:
                link = Cursor(message.body, message.offset, source.superblock)
                target, size = link.address(), link.length()
                if target is not None:
                    blocks.append((target, size))
            elif message.kind:
                messages.append(message)
        if len(messages) > MAX_MESSAGES:
            raise Damaged(f"an object header of more than {MAX_MESSAGES} messages", cursor.offset)
    return tuple(messages)


def _messages(cursor: Cursor, flags: int | None) -> list[Message]:
    """The messages of one block; a gap too small for one more ends it."""
    found = []
    prefix = 8 if flags is None else 4 + (2 if flags & 4 else 0)
    while cursor.left >= prefix:
        kind, size, message_flags = cursor.uint(2 if flags is None else 1), cursor.uint(2), cursor.uint(1)
        cursor.take(prefix - (5 if flags is None else 4))
        offset = cursor.offset
        found.append(Message(kind, message_flags, cursor.take(size), offset))
    return found
