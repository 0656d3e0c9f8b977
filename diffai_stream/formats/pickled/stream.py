"""The bytes of a pickle, by position: of a file, or of a member that had to be inflated."""

from __future__ import annotations

import os
from io import FileIO

from diffai_stream.errors import FormatError

WINDOW_NBYTES = 1 << 18


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
