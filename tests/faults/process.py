"""The real command as a process. Every wait is bounded: one that takes too long is ended, and is a finding."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

COMMAND = (sys.executable, "-m", "diffai_stream.cli")
ROOT = Path(__file__).parents[2]
SECONDS = 180  # on a busy machine; an undisturbed run takes a few
PIPE_NBYTES = 4096  # the least a pipe can hold: who is not read has to wait


class Finding(AssertionError):
    """A fault that was not survived as it should be."""


class ImpossibleError(Exception):
    """A fault that cannot be had here, and why."""


class Ended(NamedTuple):
    """What became of a process: its exit status (-9: killed by signal 9), what it printed, what it said on stderr."""

    status: int
    out: bytes
    said: str


class Running:
    """A process whose output is read from the narrowest pipe there is, or goes to `stdout`."""

    def __init__(
        self, command: Sequence[str], folder: Path, stdout: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._said: list[bytes] = []
        self._out: list[bytes] = []
        self._is_late = False
        paths = os.pathsep.join([*(environment or {}).get("PYTHONPATH", "").split(), str(ROOT)])
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "DIFFAI_DEBUG": "1", **(environment or {}), "PYTHONPATH": paths},
        )
        if self.process.stdout is not None:
            fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, PIPE_NBYTES)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._watchdog = threading.Timer(SECONDS, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        self._listener.join(SECONDS)
        self.close()

    def read(self, count: int) -> list[bytes]:
        """The next `count` lines, fewer when it ends before."""
        assert self.process.stdout is not None
        lines = [line for _ in range(count) if (line := self.process.stdout.readline())]
        self._out += lines
        return lines

    def close(self) -> None:
        """Go away from its output, as `head` does."""
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.stdout.close()

    def end(self) -> Ended:
        """Read what is left and wait for its end. Raises Finding when that does not come."""
        if self.process.stdout is not None and not self.process.stdout.closed:
            self._out.append(self.process.stdout.read())
        status = self.process.wait()
        self._listener.join(SECONDS)
        said = b"".join(self._said).decode(errors="replace")
        if self._is_late:
            raise Finding(f"it hung: not done after {SECONDS} s\n{said[-3000:]}")
        return Ended(status, b"".join(self._out), said)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self._said.append(stream.read())

    def _give_up(self) -> None:
        self._is_late = True
        self.process.kill()


def run(command: Sequence[str], folder: Path, **how: object) -> Ended:
    """A process from start to end."""
    with Running(command, folder, **how) as process:  # type: ignore[arg-type]
        return process.end()


def shell(script: str, command: Sequence[str]) -> list[str]:
    """A command inside a line of shell, where it is "$@"."""
    return ["bash", "-c", script, "bash", *command]
