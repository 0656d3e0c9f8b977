"""Where bytes lie: an extent is a range of one file, a stamp tells whether that file is still the same."""

from __future__ import annotations

import os
from typing import NamedTuple

from diffai_stream.errors import ChangedFileError, TensorError


class Extent(NamedTuple):
    """`nbytes` bytes of the file `path` from `offset` on; `codec` says how they are stored (`""` as they are)."""

    path: str
    offset: int
    nbytes: int
    codec: str = ""


class FileStamp(NamedTuple):
    """Identity of a file's content as far as the file system tells it; an inode of 0 is not known."""

    path: str
    nbytes: int
    mtime_ns: int
    inode: tuple[int, int]

    @classmethod
    def of(cls, path: str) -> FileStamp:
        """The stamp of a path now. Raises OSError when it cannot be read."""
        status = os.stat(path)
        return cls(path, status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino))

    def check(self, descriptor: int, is_local: bool = True) -> None:
        """Raise ChangedFileError unless the open file is still the one that was stamped.

        A file that took its place may have its size and its time (`cp -p`, `rsync -t`), but not its inode. What is not on a
        local file system may get another inode at any time.
        """
        status = os.fstat(descriptor)
        if status.st_size < self.nbytes:
            raise ChangedFileError(
                f"the file shrank from {self.nbytes} to {status.st_size} bytes while it was read; "
                "compare again when it is complete",
                path=self.path,
                offset=status.st_size,
            )
        is_replaced = is_local and self.inode[1] not in (0, status.st_ino)
        if is_replaced or (status.st_size, status.st_mtime_ns) != (self.nbytes, self.mtime_ns):
            raise ChangedFileError("the file changed while it was read; compare again when no one writes to it", path=self.path)


def stamp_of(extent: Extent) -> FileStamp:
    """The stamp of an extent's file now. Raises TensorError when it cannot be read."""
    try:
        return FileStamp.of(extent.path)
    except OSError as error:
        raise TensorError(f"cannot open: {error.strerror}", path=extent.path, offset=extent.offset) from error
