"""Reading ahead: bytes come into the page cache before the scan asks for them, and the disk is never idle.

What is ahead is really read, in the order of the plan, but sent to /dev/null: that copies nothing, waits for the disk and
so sets the pace, and lets the kernel gather large pages, all of which advice (`posix_fadvise`) does not. What the cache
holds already costs one question a MiB.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from diffai_stream.storage.files import FILES

AHEAD_NBYTES = 512 << 20  # of the page cache, before the scan: what a fast disk reads while the engine is imported
PIECE_NBYTES = 8 << 20  # read from one file before the other one's turn
PROBE_NBYTES = 1 << 20  # the cache drops pages in runs, so one of each MiB is asked for


class Piece(NamedTuple):
    """A range of a file."""

    path: str
    offset: int
    nbytes: int


class ReadAhead:
    """Reads steps (pieces, and how many bytes of the plan they stand for) in a thread, AHEAD_NBYTES ahead of `used`."""

    def __init__(self, steps: Iterable[tuple[list[Piece], int]]) -> None:
        self._steps, self._free = steps, AHEAD_NBYTES
        self._changed = threading.Condition()
        self._is_stopped = False
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def used(self, nbytes: int) -> None:
        """So many bytes of the plan are done with."""
        with self._changed:
            self._free += nbytes
            self._changed.notify()

    def stop(self) -> None:
        """Read nothing more than the piece in hand."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def _run(self) -> None:
        for pieces, nbytes in self._steps:
            with self._changed:
                self._changed.wait_for(lambda: self._free > 0 or self._is_stopped)
                self._free -= nbytes
            for piece in cut(pieces):
                if self._is_stopped:
                    return
                fetch(piece)


def cut(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces in smaller ones, the first of each, then the second of each, ..."""
    left = list(pieces)
    while left:
        for path, offset, nbytes in left:
            yield Piece(path, offset, min(nbytes, PIECE_NBYTES))
        left = [Piece(p, offset + PIECE_NBYTES, n - PIECE_NBYTES) for p, offset, n in left if n > PIECE_NBYTES]


def fetch(piece: Piece) -> None:
    """Bring a range of a file into the page cache, and return when it is there; never fails."""
    try:
        descriptor, remote = FILES.duplicate(piece.path)
    except OSError:
        return
    try:
        if remote:  # may have no page cache, and then would be read twice
            os.posix_fadvise(descriptor, piece.offset, piece.nbytes, os.POSIX_FADV_WILLNEED)
        elif not is_cached(descriptor, piece):
            _read(descriptor, piece)
    except (OSError, AttributeError):  # the scan will say what is wrong with the file; not every system has these calls
        pass
    finally:
        os.close(descriptor)


def is_cached(descriptor: int, piece: Piece) -> bool:
    """Whether the page cache holds a range, judged by one byte of each MiB; False where the system does not tell."""
    byte = [bytearray(1)]
    try:
        for offset in range(piece.offset, piece.offset + piece.nbytes, PROBE_NBYTES):
            os.preadv(descriptor, byte, offset, os.RWF_NOWAIT)
    except (OSError, AttributeError):
        return False
    return True


def _read(descriptor: int, piece: Piece) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    offset, end = piece.offset, piece.offset + piece.nbytes
    try:
        while offset < end and (count := os.sendfile(nowhere, descriptor, offset, end - offset)):
            offset += count
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        while offset < end and (count := len(os.pread(descriptor, min(PROBE_NBYTES, end - offset), offset))):
            offset += count
    finally:
        os.close(nowhere)


def start_early(paths: Iterable[str]) -> None:
    """Read the first bytes of files, or of the first file of directories, in the background; never fails."""
    files = [file for path in paths if (file := _first_file(path))]
    pieces = [Piece(file, 0, AHEAD_NBYTES // len(files)) for file in files]
    ReadAhead([(pieces, 0)])


def _first_file(path: str) -> str | None:
    """Regular files only: opening a pipe would wait for its writer."""
    try:
        found = min((entry.path for entry in os.scandir(path) if entry.name.endswith(".safetensors")), default=path)
    except OSError:
        found = path
    return found if os.path.isfile(found) else None
