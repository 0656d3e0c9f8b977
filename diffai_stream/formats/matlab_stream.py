"""Bytes of a MATLAB file from front to back: of the file itself, or of one compressed variable as it is inflated.

Either way most bytes are stepped over, and a reader knows where it is, so that what it finds can be read again anywhere.
"""

from __future__ import annotations

import os
import zlib

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.spill import within

PIECE_NBYTES = 1 << 16
MAX_DEFLATE_RATIO = 1032
MAX_STREAM_SKIP = 4096  # what comes later in a stream would inflate all before it again


class Stored:
    """A range of the file."""

    def __init__(self, descriptor: int, path: str, start: int, nbytes: int) -> None:
        self._descriptor, self._path, self._start, self.nbytes, self.place = descriptor, path, start, nbytes, 0

    def take(self, nbytes: int) -> bytes:
        """The next bytes. Raises ValueError at the end."""
        raw = os.pread(self._descriptor, nbytes, self._start + self.place) if self.place + nbytes <= self.nbytes else b""
        if len(raw) < nbytes:
            raise ValueError(f"it ends at byte {self._start + self.nbytes}, in the middle of a variable: truncated")
        self.place += nbytes
        return raw

    def skip(self, nbytes: int) -> None:
        """Step over bytes, which must be there."""
        if self.place + nbytes > self.nbytes:
            raise ValueError(f"it ends at byte {self._start + self.nbytes}, in the middle of a variable: truncated")
        self.place += nbytes

    def extent(self, place: int, nbytes: int, is_line: bool) -> Extent:
        """Where bytes of this range lie."""
        return Extent(self._path, self._start + place, nbytes)


class Inflated:
    """A variable that is one zlib stream. Raises ValueError for what is no such stream, or claims more than one can hold."""

    def __init__(self, descriptor: int, path: str, start: int, stored_nbytes: int) -> None:
        self._descriptor, self._path, self._start, self._stored = descriptor, path, start, stored_nbytes
        self._stream, self._read, self._pending, self.place = zlib.decompressobj(), 0, bytearray(), 0
        head = os.pread(descriptor, 2, start)
        if len(head) < 2 or head[0] & 15 != 8 or head[1] & 32 or int.from_bytes(head, "big") % 31:
            raise ValueError("it is no zlib stream")
        self.nbytes = MAX_DEFLATE_RATIO * stored_nbytes

    def bound(self, nbytes: int) -> None:
        """Say how many bytes the stream claims to hold. Raises ValueError when it cannot."""
        if nbytes > self.nbytes:
            raise ValueError(f"{self._stored} bytes cannot inflate to {nbytes}: no deflate stream does, refused")
        self.nbytes = nbytes

    def take(self, nbytes: int) -> bytes:
        """The next bytes. Raises ValueError at the end."""
        while len(self._pending) < nbytes:
            self._more()
        raw = bytes(self._pending[:nbytes])
        del self._pending[:nbytes]
        self.place += nbytes
        return raw

    def skip(self, nbytes: int) -> None:
        """Step over bytes, which are inflated and dropped."""
        if self.place + nbytes > self.nbytes:
            raise ValueError("it claims more bytes than a deflate stream of its size can hold")
        while nbytes:
            if not self._pending:
                self._more()
            count = min(nbytes, len(self._pending))
            del self._pending[:count]
            self.place, nbytes = self.place + count, nbytes - count

    def extent(self, place: int, nbytes: int, is_line: bool) -> Extent:
        """Where bytes of the inflated variable lie: streamed when they are read in order, else spilled with the rest of it."""
        deflated = self._stored - 2  # without the header of zlib
        if is_line and place <= MAX_STREAM_SKIP:
            return Extent(self._path, self._start + 2, nbytes, f"deflate:{place}:{deflated}")
        return within(Extent(self._path, self._start + 2, nbytes), place, self.nbytes, deflated)

    def _more(self) -> None:
        data = self._stream.unconsumed_tail
        if not data:
            data = os.pread(self._descriptor, min(PIECE_NBYTES, self._stored - self._read), self._start + self._read)
            self._read += len(data)
            if not data or self._stream.eof:
                raise ValueError("its compressed data ends in the middle of it: truncated")
        try:
            self._pending += self._stream.decompress(data, 1 << 20)
        except zlib.error as error:
            raise ValueError(f"damaged compressed data: {error}") from None
