"""The executors on this machine: dask's synchronous and threaded schedulers, fed window by window."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

from diffai_stream.engine.graph import window_graph, windows
from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult
from diffai_stream.plan.chunks import Batch, real_shape
from diffai_stream.storage.files import read_ahead

PENDING_WINDOWS = 1  # finished windows that may wait for the consumer
Get = Callable[[dict, list], Sequence[BatchResult]]


def run_synchronous(batches: Sequence[Batch], program: Program) -> Iterator[BatchResult]:
    """Batch results in plan order, computed in this thread when they are asked for."""
    from dask.local import get_sync

    for window in windows(batches):
        yield from get_sync(*window_graph(window, program))


def run_threads(batches: Sequence[Batch], program: Program, worker_count: int) -> Iterator[BatchResult]:
    """Batch results in plan order from `worker_count` threads; closing the iterator stops after the current window."""
    from dask.threaded import get

    with ThreadPoolExecutor(worker_count, thread_name_prefix="scan") as pool:

        def compute(graph: dict, keys: list) -> Sequence[BatchResult]:
            return get(graph, keys, pool=pool, num_workers=worker_count)  # type: ignore[no-any-return]

        feeder = _Feeder(batches, program, compute)
        try:
            yield from feeder
        finally:
            feeder.stop()


class _Feeder:
    """Submits windows from a thread of its own, one ahead of the consumer, and reads the next window's bytes ahead."""

    def __init__(self, batches: Sequence[Batch], program: Program, compute: Get) -> None:
        self._batches, self._program, self._compute = batches, program, compute
        self._results: queue.Queue[Any] = queue.Queue(PENDING_WINDOWS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windows", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[BatchResult]:
        while True:
            item = self._results.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield from item

    def stop(self) -> None:
        """Let the window in flight end, drop the rest, and wait for it."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._results.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self) -> None:
        plan = list(windows(self._batches))
        ahead = _ReadAhead(plan[:2])
        try:
            for number, window in enumerate(plan):
                if self._stopped.is_set():
                    return
                ahead.add(plan[number + 2 : number + 3])
                self._results.put(self._compute(*window_graph(window, self._program)))
            self._results.put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            self._results.put(error)
        finally:
            ahead.stop()


class _ReadAhead:
    """Asks for the bytes of windows, in order, from one thread: up to two windows before they are scanned."""

    def __init__(self, windows: Sequence[Sequence[Batch]]) -> None:
        self._queue: queue.SimpleQueue[Sequence[Batch] | None] = queue.SimpleQueue()
        self.add(windows)
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def add(self, windows: Sequence[Sequence[Batch]]) -> None:
        """More windows, after those before."""
        for window in windows:
            self._queue.put(window)

    def stop(self) -> None:
        """No more windows."""
        self._queue.put(None)

    def _run(self) -> None:
        while (window := self._queue.get()) is not None:
            for batch in window:
                read_ahead(ranges_of([batch]))


def ranges_of(batches: Sequence[Batch]) -> dict[str, list[tuple[int, int]]]:
    """(offset, nbytes) that batches will read, by path, as far as their tensors are plainly stored."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for batch in batches:
        for piece in batch.slices:
            for entry in {id(e): e for e in (piece.old, piece.new)}.values():
                extents = [extent for part in entry.components.values() for extent in part.extents]
                numel = max(1, prod(real_shape(entry)))
                if len(extents) == 1 and entry.region is None and not extents[0].codec:
                    extent = extents[0]
                    first = extent.offset + extent.nbytes * piece.start // numel
                    last = extent.offset + extent.nbytes * min(piece.stop, numel) // numel
                    ranges.setdefault(extent.path, []).append((first, last - first))
    return ranges
