"""What a cluster costs: the same run through a scheduler and two workers on this machine, which are up already."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from figures import Bench, Figure, Measured, ratio, times
from measure import MeasureError, alternate
from store_figures import prepared

WORKERS = 2
START_SECONDS = 60


@contextmanager
def cluster(python: str) -> Iterator[Path]:
    """The scheduler file of a cluster of workers with one thread each, ended by kill."""
    with tempfile.TemporaryDirectory() as folder:
        file, processes = Path(folder) / "scheduler.json", []
        try:
            where = ("--host", "tcp://127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
            processes.append(_start(python, "dask_scheduler", *where))
            end = time.monotonic() + START_SECONDS
            while not file.exists():
                if processes[0].poll() is not None or time.monotonic() > end:
                    raise MeasureError("distributed: not installed, or its scheduler does not start")
                time.sleep(0.05)
            joins = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder)
            processes += [_start(python, "dask_worker", "--scheduler-file", str(file), *joins) for _ in range(WORKERS)]
            yield file
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def _start(python: str, module: str, *flags: str) -> subprocess.Popen[bytes]:
    command = [python, "-m", f"distributed.cli.{module}", *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def against_local(bench: Bench) -> Measured:
    """The 10 GB pair through a cluster that is up, against the same on two threads; both cold or both warm."""
    pair = bench.pair("10gb")
    local = bench.compare(pair, "--workers", str(WORKERS))
    how = prepared(bench, local, pair)
    with cluster(bench.peer_python) as file:
        through = bench.compare(pair, "--scheduler-file", str(file))
        bench.prime(bench.compare(bench.pair("1mb"), *through[-2:]))
        before = partial(bench.drop, pair) if how == "cold" else None
        runs = alternate([through, local], [bench.rounds] * 2, before)
    measured = ratio(runs[0], runs[1], ([*through[:-1], "scheduler.json"], local))
    return measured._replace(detail=f"{measured.detail}; {how}")


CLUSTER_FIGURES = (
    Figure("cluster", "10 GB a side through a scheduler and 2 workers, against `--workers 2`", times(1.3), against_local),
)
