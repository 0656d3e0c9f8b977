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

    @contextmanager
    def released(self) -> Iterator[None]:
        """Inside `held`: a signal is raised here, one that waited at once."""
        self._held = False
        try:
            if self._waiting:
                self._waiting = False
                raise KeyboardInterrupt
            yield
        finally:
            self._held = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        is_first = self._number is None
        self._number = self._number or number
        if self._held and is_first:
            self._waiting = True
        else:
            raise KeyboardInterrupt
