"""A real dask cluster on this machine: a scheduler and workers, each a process that a test may kill, stop or starve."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 60


class Cluster:
    """A scheduler and its workers; `flags` go to all of them (TLS files, say)."""

    def __init__(self, folder: Path, workers: int = 2, flags: Sequence[str] = (), protocol: str = "tcp") -> None:
        self.file = folder / "scheduler.json"
        self._folder, self._flags = folder, tuple(flags)
        self._log = (folder / "cluster.log").open("ab")
        self.workers: list[subprocess.Popen[bytes]] = []
        where = ("--host", f"{protocol}://127.0.0.1", "--port", "0", "--scheduler-file", str(self.file))
        self.scheduler = self._start("dask_scheduler", *where, "--no-dashboard")
        self._until(self.file.exists, "scheduler")
        for _ in range(workers):
            self.add()
        self.wait_for(workers)

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(json.loads(self.file.read_text())["address"])

    def add(self, *flags: str) -> None:
        """One more worker of one thread."""
        told = ("--scheduler-file", str(self.file), "--nthreads", "1", "--no-nanny", "--no-dashboard", *flags)
        self.workers.append(self._start("dask_worker", *told))

    def wait_for(self, count: int, security: object = None) -> None:
        """Until so many workers are known to the scheduler: what they log when they are."""
        self._until(lambda: (self._folder / "cluster.log").read_bytes().count(b"Registered to:") >= count, f"{count} workers")

    def close(self) -> None:
        """Kill all of it."""
        for process in (*self.workers, self.scheduler):
            process.send_signal(signal.SIGKILL)
            process.wait(START_SECONDS)
        self._log.close()

    def _start(self, module: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *flags, *self._flags]
        return subprocess.Popen(command, cwd=self._folder, stdout=self._log, stderr=self._log)

    def _until(self, happens: object, what: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not happens():  # type: ignore[operator]
            if time.monotonic() > end:
                raise TimeoutError(f"no {what}: {(self._folder / 'cluster.log').read_text()[-2000:]}")
            time.sleep(0.05)
