"""Run whole processes and measure them: wall time, peak memory, time to the first line that matters.

This module loads nothing beyond the standard library. A child is started with vfork and inherits the peak memory of the
process that starts it, so that the one that measures has to stay small.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

# Programs are measured as they are installed, with their modules compiled, whatever the shell that measures prefers.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PAGE = os.sysconf("SC_PAGE_SIZE")

Command = Sequence[str]


class MeasureError(Exception):
    """A figure that cannot be had here, and why."""


class Run(NamedTuple):
    """One process, from start to end."""

    seconds: float
    peak_nbytes: int


class Runs(tuple[Run, ...]):
    """The rounds of one command."""

    __slots__ = ()

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return median(run.seconds for run in self)

    @property
    def peak_nbytes(self) -> int:
        """Largest resident set size of all rounds, mapped file pages included."""
        return max(run.peak_nbytes for run in self)

    @property
    def spread(self) -> str:
        """Median, and the range when there was more than one round."""
        times = sorted(run.seconds for run in self)
        digits = 2 if self.seconds >= 1 else 3
        middle = f"{self.seconds:.{digits}f} s"
        return middle + (f" [{times[0]:.{digits}f}-{times[-1]:.{digits}f}]" if len(times) > 1 else "")


def run(command: Command, environment: Mapping[str, str] = ENVIRONMENT) -> Run:
    """Run a command with its output thrown away. Raises MeasureError unless its status is 0 or 1 (equal or different)."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode not in (0, 1) or b"Traceback" in said:
        raise MeasureError(f"{Path(command[0]).name} ended with {process.returncode}: {_last_line(said)}")
    return Run(seconds, usage.ru_maxrss * 1024)


def first_line(command: Command, marker: bytes) -> float:
    """Seconds from the start of a command until a line with the marker arrives on a pipe; then the command is ended."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        found = next((time.perf_counter() for line in process.stdout if marker in line), None)
        process.terminate()
    if found is None:
        raise MeasureError(f"{Path(command[0]).name} printed no such line")
    return found - started


def alternate(commands: Sequence[Command], rounds: Sequence[int], before: Callable[[], object] | None = None) -> list[Runs]:
    """Run the commands in turn, A B A B ..., each as many rounds as it is given, so that noise meets them all alike."""
    runs: list[list[Run]] = [[] for _ in commands]
    for number in range(max(rounds)):
        for mine, command, wanted in zip(runs, commands, rounds, strict=True):
            if number < wanted:
                if before is not None:
                    before()
                mine.append(run(command))
    return [Runs(mine) for mine in runs]


def warm(paths: Sequence[Path]) -> None:
    """Read the files, so that the page cache holds them."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def evict(paths: Sequence[Path]) -> None:
    """Drop the files from the page cache; needs no privilege. Raises MeasureError when they stay there."""
    for path in paths:
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(cached_ratio(path) > 0.1 for path in paths):
        raise MeasureError("the page cache keeps the files (a file system in memory?)")


def drop_all() -> None:
    """Drop the whole page cache, programs and libraries included. Raises MeasureError where that is not permitted."""
    os.sync()
    try:
        DROP_CACHES.write_text("1\n")
    except OSError as error:
        raise MeasureError(f"{DROP_CACHES}: {error.strerror}") from error


def cached_ratio(path: Path) -> float:
    """Share of the pages of a file that the page cache holds; 1 when the system does not tell."""
    size = path.stat().st_size
    if size == 0:
        return 0.0
    pages = -(-size // PAGE)
    resident = (ctypes.c_ubyte * pages)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(size), resident)
        del start  # the map cannot be closed while something points into it
    return 1.0 if failed else sum(page & 1 for page in resident) / pages


def available_nbytes() -> int:
    """Memory that the page cache can have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing on standard error"
