"""Windows into remote objects: fetched when asked for, or there already because they were asked for in time.

Requests go out in the order of the plan, several at once, for as many batches as `AHEAD_NBYTES` holds; what a batch read is
let go when it is done. A window that nobody asked for in time is fetched by whoever needs it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from diffai_stream.errors import ChangedFileError, FormatError, TensorError
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.read_ahead import Piece
from diffai_stream.storage.remote import objects
from diffai_stream.storage.remote.objects import Buffer

AHEAD_NBYTES = 192 << 20
MIN_BATCHES = 2  # ahead, however large they are
REQUESTS = 8  # at once

_lock = threading.Lock()
_running: list[RemoteAhead] = []


def remote_window(extent: Extent, start: int, stop: int, stamp: FileStamp | None) -> Buffer:
    """Bytes [start, stop) of a plain extent of a remote object.

    Raises ChangedFileError when it is not the stamped one, TensorError when it cannot be read or is too short.
    """
    first, last = extent.offset + start, extent.offset + stop
    remote = objects.found(extent.path)
    if remote is None:
        raise TensorError("a remote object that was opened by another process", path=extent.path, offset=first)
    if stamp is not None and stamp != remote.stamp:
        raise ChangedFileError("the object was replaced since it was indexed; compare again", path=extent.path)
    try:
        for ahead in tuple(_running):
            if (held := ahead.find(extent.path, first, last)) is not None:
                return held
        return remote.read(first, last)
    except FormatError as error:
        raise TensorError(error.message, path=extent.path, offset=first) from None


def fetched(piece: Piece) -> Buffer:
    """The bytes of a piece. Raises CheckpointError."""
    remote = objects.found(piece.path)
    if remote is None:
        raise FormatError("a remote object that was opened by another process", path=piece.path)
    return remote.read(piece.offset, piece.offset + piece.nbytes)


class RemoteAhead:
    """Asks for the pieces of batches (number, pieces, in plan order) before they are needed, until it is stopped."""

    def __init__(self, steps: Iterable[tuple[int, list[Piece]]]) -> None:
        self._steps, self._lock = ((number, pieces) for number, pieces in steps if pieces), threading.Lock()
        self._held: OrderedDict[int, list[tuple[Piece, Future[Buffer]]]] = OrderedDict()
        self._nbytes, self._is_stopped = 0, False
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="remote")
        with _lock:
            _running.append(self)
        self._ask()

    def find(self, path: str, start: int, stop: int) -> Buffer | None:
        """Bytes [start, stop) of an object, waited for when they are on their way; None when they were not asked for.

        Raises what fetching them raised.
        """
        with self._lock:
            asked = next((found for found in self._all() if _covers(found[0], path, start, stop)), None)
        if asked is None:
            return None
        piece, future = asked
        return memoryview(future.result())[start - piece.offset : stop - piece.offset]

    def used(self, number: int) -> None:
        """A batch is done with."""
        with self._lock:
            self._nbytes -= sum(piece.nbytes for piece, _ in self._held.pop(number, []))
        self._ask()

    def stop(self) -> None:
        """Ask for nothing more and let go of everything."""
        with _lock:
            _running.remove(self)
        with self._lock:
            self._is_stopped = True
            self._held.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _all(self) -> Iterator[tuple[Piece, Future[Buffer]]]:
        return (asked for batch in self._held.values() for asked in batch)

    def _ask(self) -> None:
        """Send as many requests as there is room for."""
        with self._lock:
            while not self._is_stopped and (self._nbytes < AHEAD_NBYTES or len(self._held) < MIN_BATCHES):
                number, pieces = next(self._steps, (-1, []))
                if not pieces:
                    return
                self._held[number] = [(piece, self._pool.submit(fetched, piece)) for piece in pieces]
                self._nbytes += sum(piece.nbytes for piece in pieces)


def _covers(piece: Piece, path: str, start: int, stop: int) -> bool:
    return piece.path == path and piece.offset <= start and stop <= piece.offset + piece.nbytes
