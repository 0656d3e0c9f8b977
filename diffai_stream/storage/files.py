"""Open files, a small per-process cache of descriptors, and reading ahead of their use."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from diffai_stream.storage.mounts import is_network_file

OPEN_FILES = 64  # far below the usual limit of 1,024, and below a limit of 500
EARLY_NBYTES = 256 << 20  # of a file, fetched while the engine is still being imported
ADVISED_NBYTES = 128 << 10  # Linux fetches no more than the read-ahead size of the device for one request
EARLY_FILES = 2  # of a directory


class OpenFiles:
    """Descriptors by path, the least recently used closed first. A descriptor in use by a mapping may be closed safely."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._descriptors: OrderedDict[str, tuple[int, bool]] = OrderedDict()

    def duplicate(self, path: str) -> tuple[int, bool]:
        """A descriptor of the file that the caller closes, and whether the file lies on a network file system."""
        with self._lock:
            self._forget_replaced(path)
            if path not in self._descriptors:
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC), is_network_file(path)
            self._descriptors.move_to_end(path)
            descriptor, remote = self._descriptors[path]
            copy = os.dup(descriptor)
            while len(self._descriptors) > self._limit:
                os.close(self._descriptors.popitem(last=False)[1][0])
        return copy, remote

    def _forget_replaced(self, path: str) -> None:
        """Close the descriptor of a file that another one has replaced under its name since, as safe writers do."""
        known = self._descriptors.get(path)
        if known is not None and not os.path.samestat(os.fstat(known[0]), os.stat(path)):
            os.close(self._descriptors.pop(path)[0])

    def close(self) -> None:
        """Close all descriptors."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1][0])


FILES = OpenFiles()


def read_ahead(ranges: Mapping[str, list[tuple[int, int]]]) -> None:
    """Ask the kernel to fetch (offset, nbytes) ranges by path; returns at once where it can, and never fails."""
    for path, pieces in ranges.items():
        try:
            descriptor, _ = FILES.duplicate(path)
        except OSError:
            continue
        try:
            for offset, nbytes in pieces:
                for at in range(offset, offset + nbytes, ADVISED_NBYTES):
                    os.posix_fadvise(descriptor, at, min(ADVISED_NBYTES, offset + nbytes - at), os.POSIX_FADV_WILLNEED)
        except (OSError, AttributeError):
            pass
        finally:
            os.close(descriptor)


def start_early(paths: Iterable[str]) -> None:
    """Begin to fetch the first bytes of files, or of the first files of directories, in the background; never fails."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for path in paths:
        for file in _first_files(path):
            ranges[file] = [(0, EARLY_NBYTES)]
    if ranges:
        threading.Thread(target=read_ahead, args=(ranges,), name="early", daemon=True).start()


def _first_files(path: str) -> list[str]:
    """Regular files only: opening a pipe would wait for its writer."""
    try:
        names = sorted(entry.path for entry in os.scandir(path) if entry.name.endswith(".safetensors"))
        found = names[:EARLY_FILES]
    except OSError:
        found = [path]
    return [file for file in found if os.path.isfile(file)]
