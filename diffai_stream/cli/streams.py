"""Standard output and standard error, with their failures told apart from all others.

Only results go to stdout; everything that is said about them goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from diffai_stream.errors import BrokenOutputError, DiffaiError
from diffai_stream.plugins import broken
from diffai_stream.report.colors import wants_color
from diffai_stream.report.figures import escaped

if TYPE_CHECKING:
    from diffai_stream.report.progress import Progress


class OutputError(DiffaiError):
    """Standard output does not take what is written: closed, or no space left."""


def _nothing() -> None:
    pass


HELD_NBYTES = 1 << 16


class StandardOutput:
    """The bytes of stdout. `before` is called before each write: it takes a progress bar off the terminal.

    While it `holds`, what is flushed waits for what follows at once: a call of the system for each of a million lines costs
    more than the lines.
    """

    def __init__(self, before: Callable[[], None] = _nothing) -> None:
        if sys.stdout is None:
            raise OutputError("standard output is closed; redirect it to a file or a pipe")
        self._buffer = sys.stdout.buffer
        self._before = before
        self._held: list[bytes] = []
        self._held_nbytes = 0
        self.holds = False

    def write(self, data: bytes, /) -> None:
        """Take all of `data`. Raises BrokenOutputError or OutputError."""
        self._held.append(data)
        self._held_nbytes += len(data)
        if self._held_nbytes >= HELD_NBYTES:
            self._pass_on()

    def flush(self) -> None:
        """Pass on what is buffered, unless it is held for what follows. Raises BrokenOutputError or OutputError."""
        if not self.holds:
            self._pass_on()

    def _pass_on(self) -> None:
        data, self._held, self._held_nbytes = b"".join(self._held), [], 0
        self._before()
        try:
            self._buffer.write(data)
            self._buffer.flush()
        except OSError as error:
            raise _failure(error) from error

    def print(self, text: str) -> None:
        """Write a text and flush it."""
        self.write(text.encode("utf-8", "backslashreplace"))
        self.flush()


def _failure(error: OSError) -> Exception:
    abandon_output()
    if isinstance(error, BrokenPipeError):
        return BrokenOutputError()
    return OutputError(f"cannot write to standard output: {error.strerror or error}")


def abandon_output() -> None:
    """Let the interpreter flush what is left into nothing when it exits, instead of failing a second time."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass  # stdout is no file, or gone already


def complain(message: str, label: str = "error") -> None:
    """Say on stderr, in one line, what went wrong, or what is worth a note."""
    if sys.stderr is None:
        return
    try:
        is_colored = wants_color("auto", os.environ, sys.stderr.isatty())
        mark = f"\x1b[1;31m{label}:\x1b[0m" if is_colored else f"{label}:"
        sys.stderr.write(f"diffai: {mark} {escaped(message)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens: the exit status says it too


def tell_broken_plugins(*kinds: str) -> None:
    """Say on stderr which plug-ins of these kinds, or of all, were left out."""
    for plugin in broken():
        if not kinds or plugin.kind in kinds:
            complain(plugin.message, label="warning")


class SteadyProgress:
    """Tells progress through another one for as long as that works: a broken stderr must not end a run."""

    follows = False

    def __init__(self, progress: Progress) -> None:
        self._progress: Progress | None = progress

    def start(self, total_nbytes: int) -> None:
        """The run begins."""
        self._tell(lambda progress: progress.start(total_nbytes))

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """More bytes are read."""
        self._tell(lambda progress: progress.advance(nbytes, tensor_name))

    def clear(self) -> None:
        """Make room on the terminal."""
        self._tell(lambda progress: progress.clear())

    def stop(self) -> None:
        """The run is over."""
        self._tell(lambda progress: progress.stop())

    def _tell(self, message: Callable[[Progress], None]) -> None:
        if self._progress is None:
            return
        try:
            message(self._progress)
        except (OSError, ValueError):
            self._progress = None
