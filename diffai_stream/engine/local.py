"""The executors on this machine: dask's synchronous and threaded schedulers, fed window by window."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from diffai_stream.engine.ahead import Ahead
from diffai_stream.engine.blas import single_threaded_blas
from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult
from diffai_stream.engine.scan import scan_batch
from diffai_stream.engine.windows import windows
from diffai_stream.plan.chunks import Batch

PENDING_WINDOWS = 1  # finished windows that may wait for the consumer


def run_synchronous(batches: Sequence[Batch], program: Program) -> Iterator[BatchResult]:
    """Batch results in plan order, computed in this thread when they are asked for."""
    from dask.local import get_sync

    from diffai_stream.engine.graph import window_graph

    with single_threaded_blas(batches), Ahead(batches, program) as ahead:
        for window in windows(batches):
            yield from get_sync(*window_graph(window, program), callbacks=ahead.callbacks)


def run_threads(batches: Sequence[Batch], program: Program, worker_count: int) -> Iterator[BatchResult]:
    """Batch results in plan order from `worker_count` threads; closing the iterator stops after the current window."""
    threads = ThreadPoolExecutor(worker_count, thread_name_prefix="scan")
    with single_threaded_blas(batches), threads as pool, Ahead(batches, program) as ahead:
        feeder = _Feeder(batches, program, pool, ahead)
        try:
            yield from feeder
        finally:
            feeder.stop()


class _Feeder:
    """Submits windows from a thread of its own, one ahead of the consumer."""

    def __init__(self, batches: Sequence[Batch], program: Program, pool: ThreadPoolExecutor, ahead: Ahead) -> None:
        self._batches, self._program, self._pool, self._ahead = batches, program, pool, ahead
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
        try:
            plan = windows(self._batches)
            self._results.put(self._first(next(plan, [])))
            for window in plan:
                if self._stopped.is_set():
                    return
                self._results.put(self._compute(window))
            self._results.put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            self._results.put(error)

    def _first(self, window: Sequence[Batch]) -> Sequence[BatchResult]:
        """Scanned without a graph, while dask is imported: that takes as long. One window alone never needs it."""
        scans = [self._pool.submit(scan_batch, batch, self._program) for batch in window]
        if len(window) < len(self._batches):
            import dask.threaded  # noqa: F401
        results = []
        for scan in scans:
            results.append(scan.result())
            self._ahead.used(results[-1])
        return results

    def _compute(self, window: Sequence[Batch]) -> Sequence[BatchResult]:
        from dask.threaded import get

        from diffai_stream.engine.graph import window_graph

        graph, keys = window_graph(window, self._program)
        return get(graph, keys, pool=self._pool, callbacks=self._ahead.callbacks)  # type: ignore[no-any-return]
