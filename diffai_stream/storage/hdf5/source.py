"""The bytes of an HDF5 file and the superblock, from which all addresses count.

Layout: "HDF5 File Format Specification", versions 1 to 4 (superblocks 0 to 3). Every read is checked against the size of the
file, and their sum against a budget, so that a file whose parts point at each other ends as an error.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import NamedTuple

SIGNATURE = b"\x89HDF\r\n\x1a\n"
BLOCK_NBYTES = 1 << 14
KEPT_BLOCKS = 64
LARGE_NBYTES = 1 << 20  # read apart from the blocks
SPARE_BUDGET_NBYTES = 256 << 20
MAX_USERBLOCK_NBYTES = 1 << 26


class Damaged(ValueError):
    """The file contradicts itself, or the specification, at `offset`."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class Unsupported(ValueError):
    """A sound part of the specification that is not read here."""


class Superblock(NamedTuple):
    """Width of addresses and of lengths in bytes, the base that addresses count from, the header of the root group."""

    address_nbytes: int
    length_nbytes: int
    base: int
    root: int
    end: int


class Cursor:
    """Some bytes of the file, taken from front to back. Raises Damaged where they end too early."""

    def __init__(self, raw: bytes, offset: int, superblock: Superblock) -> None:
        self.raw, self.place, self._offset, self._superblock = raw, 0, offset, superblock

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self.raw) - self.place

    @property
    def offset(self) -> int:
        """Where in the file the next byte lies."""
        return self._offset + self.place

    def take(self, nbytes: int) -> bytes:
        """The next bytes."""
        end = self.place + nbytes
        if end > len(self.raw):
            raise Damaged(f"{nbytes} bytes are due, {self.left} are there", self.offset)
        found, self.place = self.raw[self.place : end], end
        return found

    def uint(self, nbytes: int) -> int:
        """The next unsigned number."""
        return int.from_bytes(self.take(nbytes), "little")

    def length(self) -> int:
        """The next length."""
        return self.uint(self._superblock.length_nbytes)

    def address(self) -> int | None:
        """The next address, None when it is undefined."""
        raw = self.take(self._superblock.address_nbytes)
        return None if raw.count(0xFF) == len(raw) else int.from_bytes(raw, "little")

    def text(self, padding: int = 1) -> str:
        """The next zero-ended text, which takes a multiple of `padding` bytes."""
        end = self.raw.find(b"\0", self.place)
        if end < 0:
            raise Damaged("a name without an end", self.offset)
        nbytes = end + 1 - self.place
        return self.take(nbytes + -nbytes % padding)[: nbytes - 1].decode("utf-8", "backslashreplace")

    def signature(self, expected: bytes) -> None:
        """Take four bytes that must be these."""
        at, found = self.offset, self.take(4)
        if found != expected:
            raise Damaged(f"{expected.decode()} is due, there is {found!r}", at)


class Source:
    """The HDF5 file that lies in `nbytes` bytes of a descriptor from `start` on: reads by address, nothing kept open."""

    def __init__(self, descriptor: int, start: int, nbytes: int) -> None:
        self._descriptor, self.start, self.nbytes = descriptor, start, nbytes
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._budget = nbytes + SPARE_BUDGET_NBYTES
        self.superblock = Superblock(8, 8, 0, 0, 0)
        self.superblock = self._superblock()

    def place(self, address: int, nbytes: int) -> int:
        """Offset in the container of `nbytes` bytes at an address. Raises Damaged when they lie outside of the file."""
        offset = self.superblock.base + address
        if offset + nbytes > self.nbytes:
            raise Damaged(f"{nbytes} bytes at {offset} lie beyond the end of the file at {self.nbytes}: truncated?", offset)
        return self.start + offset

    def cursor(self, address: int | None, nbytes: int) -> Cursor:
        """`nbytes` bytes at an address. Raises Damaged when there are none."""
        if address is None:
            raise Damaged("an undefined address where one is needed")
        offset = self.place(address, nbytes)
        self._budget -= nbytes
        if self._budget < 0:
            raise Damaged("its parts point at each other without end", offset)
        return Cursor(self._read(offset, nbytes), offset, self.superblock)

    def available(self, address: int, nbytes: int) -> int:
        """`nbytes`, or less where the file ends before."""
        return max(0, min(nbytes, self.nbytes - self.superblock.base - address))

    def _read(self, offset: int, nbytes: int) -> bytes:
        if nbytes > LARGE_NBYTES:
            return os.pread(self._descriptor, nbytes, offset)
        first, last = offset // BLOCK_NBYTES, (offset + nbytes - 1) // BLOCK_NBYTES
        raw = b"".join(self._block(number) for number in range(first, last + 1))
        at = offset - first * BLOCK_NBYTES
        return raw[at : at + nbytes]

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = os.pread(self._descriptor, BLOCK_NBYTES, number * BLOCK_NBYTES)
            if len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def _superblock(self) -> Superblock:
        """The superblock at 0, 512, 1,024, ..., where a user block may come first."""
        place = 0
        while place + 48 <= min(self.nbytes, MAX_USERBLOCK_NBYTES):
            if self.cursor(place, 8).raw == SIGNATURE:
                return self._parsed(place)
            place = place * 2 or 512
        raise Damaged("there is no HDF5 signature in it", 0)

    def _parsed(self, place: int) -> Superblock:
        cursor = self.cursor(place, self.available(place, 128))
        cursor.take(8)
        version = cursor.uint(1)
        if version > 3:
            raise Unsupported(f"its superblock has version {version} (0 to 3 are known)")
        cursor.take(0 if version > 1 else 4)
        widths = cursor.uint(1), cursor.uint(1)
        if not set(widths) <= {2, 4, 8}:
            raise Damaged(f"addresses and lengths of {widths[0]} and {widths[1]} bytes", place)
        cursor.take({0: 9, 1: 13}.get(version, 1))
        cursor = Cursor(cursor.raw[cursor.place :], cursor.offset, Superblock(*widths, 0, 0, 0))
        base, _, end = cursor.address(), cursor.address(), cursor.address()
        root = cursor.address()
        if version < 2:  # that was the driver information; the entry of the root group follows
            cursor.address()
            root = cursor.address()
        if base is None or root is None or end is None:
            raise Damaged("the superblock names no root group", place)
        return Superblock(*widths, place, root, end)  # the base is where the signature is, whatever the file says
