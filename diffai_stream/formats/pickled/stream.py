"""The bytes of a pickle, by position: of a file, of a member that had to be inflated, of a file that is inflated on the way."""

from __future__ import annotations

import os
import zlib
from io import FileIO

from diffai_stream.errors import FormatError

WINDOW_NBYTES = 1 << 18
_UNKNOWN = 1 << 62
_PLAUSIBLE_RATIO = 64  # weights hardly shrink at all; what inflates more than this is a bomb, once it is large
_SMALL_NBYTES = 1 << 30


class Stream:
    """Bytes [start, stop) of an open file; positions are those of the file, so that what lies there can be mapped later."""

    mapped = True

    def __init__(self, file: FileIO, start: int, stop: int, path: str) -> None:
        self.file, self.start, self.stop, self.path = file, start, stop, path

    def window(self, position: int, nbytes: int = WINDOW_NBYTES) -> bytes:
        """Up to `nbytes` bytes from a position on, fewer only at the end. Raises FormatError when the file became shorter."""
        wanted = max(0, min(nbytes, self.stop - position))
        found = self._read(position, wanted)
        if len(found) < wanted:
            raise FormatError("the file ends before its pickle does", path=self.path, offset=position + len(found))
        return found

    def _read(self, position: int, nbytes: int) -> bytes:
        parts, left = [], nbytes
        while left:
            part = os.pread(self.file.fileno(), left, position + nbytes - left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Inflated(Stream):
    """A pickle that is in memory because it was compressed; what lies in it cannot be mapped."""

    mapped = False

    def __init__(self, content: bytes, path: str) -> None:
        self.content, self.start, self.stop, self.path = content, 0, len(content), path

    def _read(self, position: int, nbytes: int) -> bytes:
        return self.content[position : position + nbytes]


class Inflating(Stream):
    """A deflate stream from `first` on, gone through once from front to back; positions count inflated bytes."""

    mapped = False

    def __init__(self, file: FileIO, first: int, file_nbytes: int, path: str) -> None:
        self.file, self.first, self.path = file, first, path
        self.start, self.stop = 0, _UNKNOWN
        self.compressed_nbytes = file_nbytes - first
        self._limit = max(_SMALL_NBYTES, _PLAUSIBLE_RATIO * file_nbytes)
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._next, self._kept, self._from = first, b"", 0  # next compressed byte, the last inflated bytes, their position

    @property
    def inflated_nbytes(self) -> int:
        """Inflated bytes seen so far."""
        return self._from + len(self._kept)

    def window(self, position: int, nbytes: int = WINDOW_NBYTES) -> bytes:
        """Up to `nbytes` bytes from a position on that is not before the last one asked for; fewer at the end."""
        while self.inflated_nbytes < position + nbytes and self._more(position):
            pass
        return self._kept[position - self._from :][:nbytes]

    def _more(self, position: int) -> bool:
        """Inflate a piece and forget what lies before the position; False at the end. Raises FormatError."""
        raw = self._stream.unconsumed_tail or self._read(self._next, WINDOW_NBYTES)
        if self._stream.eof or not raw:
            return False
        self._next += 0 if self._stream.unconsumed_tail else len(raw)
        try:
            piece = self._stream.decompress(raw, 1 << 20)
        except zlib.error as error:
            raise FormatError(f"its compressed data is damaged: {error}", path=self.path, offset=self._next) from None
        keep = max(0, min(position - self._from, len(self._kept)))
        self._kept, self._from = self._kept[keep:] + piece, self._from + keep
        if self.inflated_nbytes > self._limit:
            raise FormatError(f"it inflates to more than {self._limit} bytes: refused", path=self.path)
        return True
