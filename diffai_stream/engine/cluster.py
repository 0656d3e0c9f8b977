"""The distributed executor: batches on a dask cluster, a bounded number in flight, results in plan order.

Whatever happens to the cluster, every batch gives exactly one result: what is lost, refused or far too late is computed
here, and when the scheduler or all workers are gone, so is all the rest.
"""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diffai_stream.engine.ahead import pieces_of
from diffai_stream.engine.connection import connected
from diffai_stream.engine.local import run_threads
from diffai_stream.engine.program import Program
from diffai_stream.engine.relocation import Relocation
from diffai_stream.engine.remote import Untold, scan_packed, unpacked
from diffai_stream.engine.results import BatchResult, FailedResult
from diffai_stream.engine.scan import scan_batch
from diffai_stream.engine.workers import Workers
from diffai_stream.options import Options
from diffai_stream.plan.chunks import Batch

IN_FLIGHT_PER_THREAD = 4
PATIENCE_SECONDS = 60.0  # with a batch, and with a cluster without workers; kernels are compiled first
SLOWEST = 8  # times the longest batch so far
LOST_SECONDS = 10.0  # without a scheduler
TICK_SECONDS = 0.5

log = logging.getLogger("diffai_stream")


class _LostError(Exception):
    """There is no cluster any more."""


def run_distributed(batches: Sequence[Batch], program: Program, options: Options, threads: int) -> Iterator[BatchResult]:
    """Batch results in plan order; with `threads` of this machine when the cluster is gone.

    Raises UsageError for a wrong address, ClusterError when there is no cluster to begin with or it sees other files.
    """
    with connected(options) as client:
        flight = Flight(client, batches, program, Relocation.of(list(program.stamps), options.path_maps))
        done = 0
        try:
            for result in flight.results():
                yield result
                done += 1
        except _LostError as lost:
            log.warning("%s: the rest is computed here", lost)
        finally:
            flight.end()
    if done < len(batches):
        yield from run_threads(batches[done:], program, threads)


class Flight:
    """The batches under way: handed out in order, a bounded number at a time, given back in order."""

    def __init__(
        self,
        client: Any,
        batches: Sequence[Batch],
        program: Program,
        relocation: Relocation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._batches, self._program, self._relocation = client, batches, program, relocation
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._workers = Workers(client, self._token, relocation.program(program), clock)
        self._done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._futures: dict[int, Any] = {}
        self._sent: dict[int, float] = {}
        self._given: dict[int, str] = {}  # which worker got it
        self._suspended: set[str] = set()  # who is late, until something comes of them
        self._results: dict[int, BatchResult] = {}
        self._longest = 0.0
        self._connected = self._staffed = clock()

    def results(self) -> Iterator[BatchResult]:
        """The results in plan order, each once. Raises ClusterError at the beginning, _LostError later."""
        self._workers.begin()
        sent = 0
        for number in range(len(self._batches)):
            while sent < len(self._batches) and sent < number + self._window:
                self._send(sent)
                sent += 1
            while number not in self._results:
                self._wait(number)
            yield self._results.pop(number)

    def end(self) -> None:
        """Give up what is still under way."""
        if self._futures and self._client.status == "running":
            self._client.cancel(list(self._futures.values()))
        self._futures.clear()

    @property
    def _window(self) -> int:
        return IN_FLIGHT_PER_THREAD * max(1, sum(self._workers.threads.values()))

    def _send(self, number: int) -> None:
        """Hand a batch to the worker with the least to do, the earlier the more urgent; should that one die, another gets it.

        Without workers it is kept, and computed here when patience ends.
        """
        self._sent[number] = self._clock()
        threads = {address: n for address, n in self._workers.threads.items() if address not in self._suspended}
        if not threads:
            return
        load = Counter(self._given[other] for other in self._futures)
        self._given[number] = address = min(threads, key=lambda address: load[address] / threads[address])
        batch = self._relocation.batch(self._batches[number])
        ahead = [
            piece for later in self._batches[number + self._window :][:1] for piece in pieces_of(self._relocation.batch(later))
        ]
        key = f"scan-{self._token}-{number}"
        future = self._client.submit(
            *(scan_packed, batch, self._token, ahead),
            key=key,
            pure=False,
            priority=-number,
            workers=[address],
            allow_other_workers=True,
            retries=2,
        )
        self._futures[number] = future
        future.add_done_callback(lambda done: self._done.put((number, done)))

    def _wait(self, number: int) -> None:
        """Take in what comes next; compute this batch here when it does not come."""
        try:
            self._take(*self._done.get(timeout=TICK_SECONDS))
        except queue.Empty:
            self._check_cluster()
            if self._clock() - self._sent[number] > max(PATIENCE_SECONDS, SLOWEST * self._longest):
                self._suspended.update(self._given[number] for number in {number} & self._futures.keys())
                self._compute(number)
        self._workers.look_now_and_then()

    def _take(self, number: int, future: Any) -> None:
        """One finished future: its result, or the batch computed here when it has none."""
        if future.status == "finished":
            self._suspended.discard(self._given[number])
        if self._futures.pop(number, None) is None:
            return  # it comes after all, too late
        found = _result_of(future)
        future.release()
        if isinstance(found, BatchResult):
            self._longest = max(self._longest, self._clock() - self._sent[number])
            self._results[number] = self._brought_back(unpacked(found, self._batches[number]))
            return
        if isinstance(found, Untold):
            self._workers.forget(found.address)
        self._check_cluster()
        self._compute(number)

    def _brought_back(self, result: BatchResult) -> BatchResult:
        """The result with the paths of this machine in its errors."""
        results = [
            found._replace(error=self._relocation.error(found.error)) if isinstance(found, FailedResult) else found
            for found in result.results
        ]
        return result._replace(results=tuple(results))

    def _compute(self, number: int) -> None:
        """The batch computed here: its worker died, is stopped or paused, or does not know what to do."""
        if (future := self._futures.pop(number, None)) is not None:
            self._client.cancel([future], force=True)
        self._results[number] = scan_batch(self._batches[number], self._program)

    def _check_cluster(self) -> None:
        """Raise _LostError when the scheduler, or every worker, has been away for too long."""
        now = self._clock()
        if self._client.status == "running":
            self._connected = now
        elif self._client.status == "closed" or now - self._connected > LOST_SECONDS:
            raise _LostError("the scheduler is gone")
        if self._workers.threads:
            self._staffed = now
        elif now - self._staffed > PATIENCE_SECONDS:
            raise _LostError("all workers are gone")


def _result_of(future: Any) -> Any:
    """What a future came to; its error where it failed: a bug of ours shows again where the batch is computed."""
    try:
        return future.result(timeout=LOST_SECONDS)
    except Exception as error:  # a killed worker, a lost connection, a cancelled task
        return error
