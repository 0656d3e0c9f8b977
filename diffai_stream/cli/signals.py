"""Ctrl-C and SIGTERM: raised where the run can be stopped in good order, never in the middle of a line of output."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Turns both signals into KeyboardInterrupt and remembers which one came first.

    While they are held the first one waits for the next `released`; a second one is raised at once, so that a reader
    who does not read cannot make the program unstoppable.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._held = False
        self._waiting = False

    @property
    def exit_status(self) -> int:
        """128 + the number of the signal, as shells count."""
        return 128 + (self._number or signal.SIGINT)

    @property
    def is_caught(self) -> bool:
        """Whether one came."""
        return self._number is not None

    @contextmanager
    def caught(self) -> Iterator[Signals]:
        """Handle the signals inside; one that is ignored already (`nohup`, background jobs) stays ignored."""
        before = {}
        try:
            for number in _CAUGHT:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._receive)
        except ValueError:
            pass  # not the main thread: whoever runs us there handles signals
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The first signal waits inside."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def released(self) -> _Released:
        """Inside `held`: a signal is raised here, one that waited at once."""
        return _Released(self)

    def release(self) -> None:
        """Raise a signal from now on where it comes, and one that waited at once."""
        self._held = False
        if self._waiting:
            self._waiting, self._held = False, True
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Let a signal wait from now on."""
        self._held = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        is_first = self._number is None
        self._number = self._number or number
        if self._held and is_first:
            self._waiting = True
        else:
            raise KeyboardInterrupt


class _Released:
    """A context entered for every record: a class of its own takes a third of the time of a generator."""

    __slots__ = ("_signals",)

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def __enter__(self) -> None:
        self._signals.release()

    def __exit__(self, *raised: object) -> None:
        self._signals.hold()
