"""How far a run is, told on stderr: a bar for a person, a line now and then for a log, JSON lines for a program.

Progress counts bytes, not tensors: tensors differ in size by a factor of a million.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol, TextIO, TypeAlias

from diffai_stream.report.figures import escaped, seconds, size

if TYPE_CHECKING:
    import rich.progress

ProgressKind: TypeAlias = Literal["auto", "bar", "log", "json", "none"]
Clock: TypeAlias = Callable[[], float]

_LOG_SECONDS: Final = 5.0
_JSON_SECONDS: Final = 1.0
_BAR_SECONDS: Final = 0.1
_NAME_WIDTH: Final = 32


class Progress(Protocol):
    """Is told what has been read. Called from one thread.

    `follows` says that the pipeline knows the record after the one it hands out: to print both at once delays neither.
    """

    follows: bool = False

    def start(self, total_nbytes: int) -> None:
        """The run begins and will read this many bytes."""
        ...

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """So many more bytes are read, up to this tensor."""
        ...

    def clear(self) -> None:
        """Take the bar off the terminal, so that something else can be printed; the next `advance` brings it back."""
        ...

    def stop(self) -> None:
        """The run is over, also when it failed; the terminal is as it was."""
        ...


def open_progress(kind: ProgressKind, stream: TextIO) -> Progress:
    """The progress asked for; `auto` is a bar on a terminal and a line now and then in a log."""
    if kind == "auto":
        kind = "bar" if stream.isatty() else "log"
    match kind:
        case "bar":
            return BarProgress(stream)
        case "log":
            return LogProgress(stream)
        case "json":
            return JsonProgress(stream)
        case _:
            return NoProgress()


def peak_memory_nbytes() -> int:
    """Greatest resident memory of this process so far; getrusage may tell that of the process which started it."""
    try:
        with open("/proc/self/status", "rb") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(b"VmHWM:"))
    except (OSError, StopIteration):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class NoProgress(Progress):
    """Tells nothing."""

    def start(self, total_nbytes: int) -> None:
        """Nothing."""

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """Nothing."""

    def clear(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class _Paced:
    """Counts bytes and time, and says when the next report is due."""

    def __init__(self, interval: float, clock: Clock) -> None:
        self._interval = interval
        self._clock = clock
        self._begin = self._last = clock()
        self.total_nbytes = 0
        self.read_nbytes = 0

    def start(self, total_nbytes: int) -> None:
        self._begin = self._last = self._clock()
        self.total_nbytes = total_nbytes
        self.read_nbytes = 0

    def is_due(self, nbytes: int) -> bool:
        """Count the bytes; True when the interval has passed since the last report."""
        self.read_nbytes += nbytes
        now = self._clock()
        if now - self._last < self._interval:
            return False
        self._last = now
        return True

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self._begin

    @property
    def remaining_seconds(self) -> float | None:
        """Time left at the mean speed so far; None before the first byte."""
        if not self.read_nbytes:
            return None
        return max(self.total_nbytes - self.read_nbytes, 0) * self.elapsed_seconds / self.read_nbytes


class LogProgress(Progress):
    """Prints a plain line every five seconds; a run shorter than that prints nothing."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._pace = _Paced(_LOG_SECONDS, clock)

    def start(self, total_nbytes: int) -> None:
        """Begin to count."""
        self._pace.start(total_nbytes)

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """Count, and print when it is time."""
        if self._pace.is_due(nbytes):
            self._stream.write(self._line(tensor_name) + "\n")
            self._stream.flush()

    def clear(self) -> None:
        """Nothing to take off."""

    def stop(self) -> None:
        """Nothing: the summary tells the end."""

    def _line(self, tensor_name: str) -> str:
        pace = self._pace
        share = f" ({pace.read_nbytes / pace.total_nbytes:.0%})" if pace.total_nbytes else ""
        rate = pace.read_nbytes / pace.elapsed_seconds if pace.elapsed_seconds else 0.0
        left = f", {seconds(pace.remaining_seconds)} left" if pace.remaining_seconds is not None else ""
        amount = f"{size(pace.read_nbytes)} of {size(pace.total_nbytes)}{share}"
        return f"diffai: {amount}, {size(rate)}/s{left}, peak memory {size(peak_memory_nbytes())}, {escaped(tensor_name)}"


class JsonProgress(Progress):
    """Prints a JSON object a second, and one at the end, for programs that show their own progress."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._pace = _Paced(_JSON_SECONDS, clock)
        self._name = ""
        self._open = False

    def start(self, total_nbytes: int) -> None:
        """Print the first object."""
        self._pace.start(total_nbytes)
        self._open = True
        self._print("running")

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """Count, and print when it is time."""
        self._name = tensor_name
        if self._pace.is_due(nbytes):
            self._print("running")

    def clear(self) -> None:
        """Nothing to take off."""

    def stop(self) -> None:
        """Print the last object, once."""
        if self._open:
            self._open = False
            self._print("done")

    def _print(self, state: str) -> None:
        remaining = self._pace.remaining_seconds
        progress = {
            "type": "progress",
            "state": state,
            "read_nbytes": self._pace.read_nbytes,
            "total_nbytes": self._pace.total_nbytes,
            "elapsed_seconds": round(self._pace.elapsed_seconds, 3),
            "remaining_seconds": None if remaining is None else round(remaining, 3),
            "peak_memory_nbytes": peak_memory_nbytes(),
            "tensor": self._name,
        }
        self._stream.write(json.dumps(progress, separators=(",", ":")) + "\n")
        self._stream.flush()


class BarProgress(Progress):
    """Shows one line with bar, bytes, speed, time left and peak memory, and takes it away at the end."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._pace = _Paced(_BAR_SECONDS, clock)
        self._bar: rich.progress.Progress | None = None
        self._shown = False

    def start(self, total_nbytes: int) -> None:
        """Put the bar on the terminal."""
        self._pace.start(total_nbytes)
        self._bar = _rich_bar(self._stream)
        self._task = self._bar.add_task("", total=total_nbytes, peak="")
        self._refresh("")

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """Count, and redraw ten times a second at most."""
        if self._pace.is_due(nbytes):
            self._refresh(tensor_name)

    def clear(self) -> None:
        """Take the bar off until the next redraw."""
        if self._bar is not None and self._shown:
            self._bar.stop()
            self._shown = False

    def stop(self) -> None:
        """Take the bar off for good."""
        self.clear()
        self._bar = None

    def _refresh(self, tensor_name: str) -> None:
        if self._bar is None:
            return
        if not self._shown:
            self._bar.start()
            self._shown = True
        name = escaped(tensor_name)
        short = name if len(name) <= _NAME_WIDTH else "..." + name[3 - _NAME_WIDTH :]
        peak = f"peak {size(peak_memory_nbytes())}"
        self._bar.update(self._task, completed=self._pace.read_nbytes, description=short, peak=peak)
        self._bar.refresh()


def _rich_bar(stream: TextIO) -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    return Progress(
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[peak]}", markup=False),
        TextColumn("{task.description}", markup=False, style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(file=stream, highlight=False),
        transient=True,
        auto_refresh=False,
        expand=True,
    )
