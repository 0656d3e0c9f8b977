"""Open files: a small per-process cache of descriptors."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from diffai_stream.storage.mounts import is_network_file

OPEN_FILES = 64  # far below the usual limit of 1,024, and below a limit of 500


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
