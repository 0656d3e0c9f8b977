"""LevelDB tables: sorted keys and values in blocks, as TensorFlow writes the index of a checkpoint.

Layout (leveldb, doc/table_format.md): data blocks, an index block, and a footer of 48 bytes with the places of the index and
of meta data and a magic number. A place is two varints, offset and size. After each block stand one byte for its compression
(0 is none) and a masked CRC-32C. In a block a key is given as the length that it shares with the key before, and the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO
from typing import NamedTuple

from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import read_exactly
from diffai_stream.formats.wire import varint
from diffai_stream.storage.crc32c import masked_crc32c

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER_NBYTES = 48
_TRAILER_NBYTES = 5
_MAX_BLOCK_NBYTES = 1 << 26  # TensorFlow writes blocks of 256 KiB, larger only for one huge value
_MAX_KEY_NBYTES = 1 << 16


class Item(NamedTuple):
    """A key, and where in the file its value lies."""

    key: bytes
    offset: int
    nbytes: int


class Table:
    """A table in an open file: `items` walks it."""

    def __init__(self, file: FileIO, nbytes: int, path: str) -> None:
        self._file, self._nbytes, self._path = file, nbytes, path

    def items(self) -> Iterator[Item]:
        """All keys in order. Raises FormatError at the first damage, after the keys that lie before it."""
        for place in self._entries(*self._index()):
            offset, at = self._varint(place.key, 0, place.offset)
            size, _ = self._varint(place.key, at, place.offset)
            yield from self._entries_of_block(offset, size)

    def _index(self) -> tuple[bytes, int]:
        """The index block and its offset."""
        if self._nbytes < FOOTER_NBYTES:
            raise self._error(f"{self._nbytes} bytes are too few for a table, whose footer alone takes 48", 0)
        start = self._nbytes - FOOTER_NBYTES
        footer = read_exactly(self._file, start, FOOTER_NBYTES, self._path)
        if not footer.endswith(MAGIC):
            raise self._error("it does not end as a table does: truncated, or another kind of file", start)
        at = 0
        for _ in range(2):  # the place of meta data, which TensorFlow has none of
            _, at = self._varint(footer, at, start)
        offset, at = self._varint(footer, at, start)
        size, _ = self._varint(footer, at, start)
        return self._block(offset, size), offset

    def _entries_of_block(self, offset: int, size: int) -> Iterator[Item]:
        return self._walk(self._block(offset, size), offset)

    def _entries(self, block: bytes, offset: int) -> Iterator[Item]:
        """The items of the index block, with the value, which is a place, instead of the key."""
        for item in self._walk(block, offset):
            start = item.offset - offset
            yield item._replace(key=block[start : start + item.nbytes])

    def _block(self, offset: int, size: int) -> bytes:
        if size > _MAX_BLOCK_NBYTES or offset + size + _TRAILER_NBYTES > self._nbytes:
            raise self._error(f"a block of {size} bytes at offset {offset} cannot lie in {self._nbytes} bytes", self._nbytes)
        raw = read_exactly(self._file, offset, size + _TRAILER_NBYTES, self._path)
        if raw[size] != 0:
            raise self._error(f"a block is compressed (kind {raw[size]}), which no TensorFlow writes", offset)
        if masked_crc32c(raw[: size + 1]) != int.from_bytes(raw[size + 1 :], "little"):
            raise self._error(f"the checksum of the block of {size} bytes here is wrong: it is damaged", offset)
        return raw[:size]

    def _walk(self, block: bytes, offset: int) -> Iterator[Item]:
        """The items of one block, up to its list of restart points."""
        restarts = int.from_bytes(block[-4:], "little")
        stop = len(block) - 4 * (restarts + 1)
        if stop < 0:
            raise self._error(f"a block of {len(block)} bytes claims {restarts} restart points", offset)
        at, key = 0, b""
        while at < stop:
            start = at
            shared, at = self._varint(block, at, offset)
            added, at = self._varint(block, at, offset)
            size, at = self._varint(block, at, offset)
            if shared > len(key) or at + added + size > stop or shared + added > _MAX_KEY_NBYTES:
                raise self._error("an entry of a block contradicts the block", offset + start)
            key = key[:shared] + block[at : at + added]
            yield Item(key, offset + at + added, size)
            at += added + size

    def _varint(self, raw: bytes, at: int, offset: int) -> tuple[int, int]:
        try:
            return varint(raw, at)
        except ValueError as error:
            raise self._error(str(error), offset + at) from None

    def _error(self, message: str, offset: int) -> FormatError:
        return FormatError(message, path=self._path, offset=offset)
