"""The workers that may be trusted with a run: those that have our versions and see our files."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from typing import Any

from diffai_stream.engine.program import Program
from diffai_stream.engine.remote import prepare, versions
from diffai_stream.errors import ClusterError

WAIT_SECONDS = 20.0  # for the first workers
LOOK_SECONDS = 5.0  # between looks for new ones
ANSWER_SECONDS = 2.0  # of the scheduler
FIRST = 1 << 30  # priority of being told

log = logging.getLogger("diffai_stream")


class Workers:
    """The workers of a cluster that took the program. Those that start later are told when they are seen, without waiting."""

    def __init__(self, client: Any, token: str, program: Program, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._token, self._program, self._clock = client, token, program, clock
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._asked: dict[str, Any] = {}
        self._refused: dict[str, str] = {}
        self._looked = clock()
        self._here: dict[str, int] = {}
        self._ready: set[str] = set()

    @property
    def threads(self) -> dict[str, int]:
        """Address -> threads, of those that may be given something to do."""
        return {address: count for address, count in self._here.items() if address in self._ready}

    def begin(self) -> None:
        """Tell all that are there. Raises ClusterError when there are none, none answers, or one sees something else."""
        try:
            self._client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError as error:
            raise ClusterError(f"the cluster has no workers after {WAIT_SECONDS:g} s; start `dask worker` there") from error
        self.look()
        end = self._clock() + WAIT_SECONDS
        while self._asked and self._clock() < end:
            self._take(timeout=0.1)
            for worker, reason in self._refused.items():
                raise ClusterError(f"worker {worker} {reason}")
        if not self._ready:
            raise ClusterError(f"no worker of the cluster answers within {WAIT_SECONDS:g} s; are they busy, paused or stopped?")

    def look_now_and_then(self) -> None:
        """Look for workers that came or went, unless that was done a moment ago."""
        while self._take():
            pass
        if self._clock() - self._looked >= LOOK_SECONDS:
            self.look()

    def look(self) -> None:
        """Forget who is gone, and tell who is new."""
        self._looked = self._clock()
        try:  # as client.nthreads(), which would wait for a scheduler that is gone
            self._here = dict(self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_SECONDS))
        except OSError:  # closed, or too late
            return
        self._ready &= self._here.keys()
        self._asked = {address: future for address, future in self._asked.items() if address in self._here}
        for address in self._here.keys() - self._ready - self._asked.keys() - self._refused.keys():
            self._tell(address)

    def forget(self, address: str) -> None:
        """A worker that does not know the program after all: it was started again."""
        self._ready.discard(address)

    def _tell(self, address: str) -> None:
        """A task, not a message: nothing here waits for a worker that is stopped."""
        future = self._client.submit(
            *(prepare, self._token, self._program, versions()),
            pure=False,
            priority=FIRST,
            workers=[address],
            key=f"tell-{self._token}-{address}",
        )
        self._asked[address] = future
        future.add_done_callback(lambda done: self._answers.put((address, done)))

    def _take(self, timeout: float | None = None) -> bool:
        """Take in one answer; False when there is none."""
        try:
            address, future = self._answers.get(block=timeout is not None, timeout=timeout)
        except queue.Empty:
            return False
        if self._asked.pop(address, None) is not None and future.status in ("finished", "error"):
            reason = _reason(future)
            if reason is None:
                self._ready.add(address)
            else:
                self._refused[address] = reason
                log.warning("worker %s is left out: it %s", address, reason)
        return True


def _reason(future: Any) -> str | None:
    """What keeps a worker from taking part."""
    try:
        answer: str | None = future.result(timeout=WAIT_SECONDS)
    except Exception as error:  # whatever it lacks to unpickle or run our code
        return f"cannot take the program: {type(error).__name__}: {error}; is the same diffai-stream installed there?"
    return answer
