"""A machine for the instructions of pickles, protocols 0 to 5, that can build values and nothing else.

Instructions: `Lib/pickletools.py` of CPython. No name is ever imported: the caller's `find` gives a `Global` for each, and
what a pickle calls that is on no list becomes an inert `Instance`. Memory stays in proportion to what is in the file: a
length is checked against the bytes that are left, bytes of any size stay where they are (`Blob`), and every instruction
and every copied item is counted against a budget.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from diffai_stream.errors import FormatError
from diffai_stream.formats.pickled.stream import Stream
from diffai_stream.formats.pickled.values import Blob, Broken, Global, Instance

BUDGET = 10_000_000  # instructions, and items copied: a checkpoint of 50,000 tensors takes 2 million
HEAD_NBYTES = 1 << 16  # bytes objects up to this size are kept, larger ones only located
MAX_TEXT_NBYTES = 1 << 24
MAX_LINE_NBYTES = 1 << 20
MAX_INTEGER_NBYTES = 512
SLICE = 1 << 14  # instructions between two looks at the budget
MAX_NESTED = 8
MARGIN = 16  # no instruction but those with a payload takes more bytes
TOO_MUCH = f"more than {BUDGET} instructions or copied items: refused"
_CONTAINERS = {list, tuple, dict}

Find = Callable[[str, str], Global]
Persist = Callable[[object], object]


class InstructionError(Exception):
    """The instructions make no sense; told as a FormatError with the offset where."""


class Stopped(Exception):
    """The pickle is complete."""


class Machine:
    """Runs pickles of a stream; after a run `position` is the first byte behind the pickle."""

    def __init__(self, stream: Stream, find: Find, persist: Persist, position: int | None = None) -> None:
        self.stream, self.find, self.persist = stream, find, persist
        self.budget, self.depth = BUDGET, 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.known: dict[tuple[str, str], Global] = {}
        self.data, self.base, self.at, self.low = b"", 0, 0, -1
        self.seek(stream.start if position is None else position)

    @property
    def position(self) -> int:
        """Offset in the file of the next byte."""
        return self.base + self.at

    @property
    def left(self) -> int:
        """Bytes to the end of the stream."""
        return self.stream.stop - self.base - self.at

    def seek(self, position: int) -> None:
        """Go on at another position."""
        self.data, self.base, self.at = self.stream.window(position), position, 0
        is_last = position + len(self.data) >= self.stream.stop
        self.low = len(self.data) if is_last else len(self.data) - MARGIN

    def run(self) -> Any:
        """The value of the pickle at the position. Raises FormatError when it is damaged or beyond the budget."""
        self.stack, self.marks, self.memo = [], [], {}
        self.op = self.position
        try:
            self._run()
        except Stopped:
            return self.stack.pop()
        except InstructionError as error:
            raise self._failure(str(error)) from None
        except (IndexError, struct.error):
            cut = self.left <= MARGIN
            raise self._failure("it ends in the middle of an instruction" if cut else "it takes from an empty stack") from None
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._failure(f"{type(error).__name__}: {str(error)[:80]}") from None
        raise self._failure(TOO_MUCH)

    def _run(self) -> None:
        from diffai_stream.formats.pickled.instructions import HANDLERS as handlers  # they need this class

        at, done = self.at, 0
        try:
            while self.budget > 0:
                for done in range(1, min(self.budget, SLICE) + 1):  # noqa: B007 - counted when it stops
                    if self.at >= self.low:
                        self.seek(self.base + self.at)
                    at = self.at
                    self.at = at + 1
                    handlers[self.data[at]](self)
                self.budget -= done
                done = 0
        finally:
            self.budget -= done
            self.op = min(self.base + at, self.position)  # the window may have moved within the instruction

    def _failure(self, reason: str) -> FormatError:
        return FormatError(f"its pickle cannot be read: {reason}", path=self.stream.path, offset=self.op)

    def inner(self) -> Machine:
        """A machine for a pickle that stands at this position within the pickle; `resume` goes on behind it.

        Raises InstructionError when it is nested too deeply.
        """
        if self.depth >= MAX_NESTED:
            raise InstructionError("pickles are nested too deeply to be genuine")
        made = Machine(self.stream, self.find, self.persist, self.position)
        made.budget, made.known, made.depth = self.budget, self.known, self.depth + 1
        return made

    def resume(self, inner: Machine) -> None:
        """Go on behind a pickle that another machine has run."""
        self.budget = inner.budget
        self.seek(inner.position)

    def charge(self, items: int) -> None:
        """Count items that are copied or kept. Raises InstructionError when the budget is used up."""
        self.budget -= items
        if self.budget < 0:
            raise InstructionError(TOO_MUCH)

    def take(self, nbytes: int) -> bytes:
        """The next bytes. Raises InstructionError when fewer are left."""
        if nbytes > self.left:
            raise InstructionError(f"a length of {nbytes} bytes is claimed where {self.left} are left")
        found = self.data[self.at : self.at + nbytes]
        if len(found) < nbytes:
            found = self.stream.window(self.base + self.at, nbytes)
            self.seek(self.base + self.at + nbytes)
        else:
            self.at += nbytes
        return found

    def number(self, unpack: Callable[[bytes, int], tuple[Any, ...]], nbytes: int) -> Any:
        """A number of fixed size that is the next argument."""
        (value,) = unpack(self.data, self.at)
        self.at += nbytes
        return value

    def line(self) -> bytes:
        """A text argument up to the end of its line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            window = self.stream.window(self.position, MAX_LINE_NBYTES)
            end = window.find(b"\n")
            if end < 0:
                raise InstructionError(
                    "a line of text does not end" + (" within 1 MiB" if len(window) == MAX_LINE_NBYTES else "")
                )
            found = window[:end]
            self.seek(self.position + end + 1)
            return found
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def pop_mark(self) -> list[Any]:
        """The items above the mark, which is taken away."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def blob(self, nbytes: int) -> Blob:
        """The next bytes, skipped; kept too when they are few."""
        if nbytes > self.left:
            raise InstructionError(f"a length of {nbytes} bytes is claimed where {self.left} are left")
        offset = self.position
        if nbytes <= HEAD_NBYTES:
            self.charge(nbytes >> 6)
            return Blob(offset, nbytes, self.take(nbytes))
        self.seek(offset + nbytes)
        return Blob(offset, nbytes)

    def text(self, nbytes: int) -> str:
        """The next bytes as text."""
        if nbytes > MAX_TEXT_NBYTES:
            raise InstructionError(f"a text of {nbytes} bytes is longer than the {MAX_TEXT_NBYTES} that are plausible")
        raw = self.take(nbytes)
        if nbytes > 64:
            self.charge(nbytes >> 6)
        return raw.decode("utf-8", "surrogatepass")

    def look_up(self, module: object, name: object) -> Global:
        """The stand-in for a global name, whatever was given as its name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            module, name = "?", "a name that is no text"
        found = self.known.get((module, name))
        if found is None:
            found = self.known[module, name] = self.find(module, name)
        return found

    def call(self, kind: object, args: object) -> object:
        """What calling something gives: what its stand-in makes of the arguments, or an inert record of both."""
        if isinstance(kind, Global) and kind.call is not None and isinstance(args, tuple):
            self.charge(items_in(args))
            try:
                return kind.call(*args)
            except (ValueError, TypeError) as error:
                return Broken(f"{kind.path} was given what it cannot take: {str(error)[:120]}")
        self.charge(2)
        return Instance(kind, args)


def items_in(values: tuple[Any, ...]) -> int:
    """Items of the containers among some values, which whoever takes them may go through."""
    return sum([len(value) for value in values if type(value) in _CONTAINERS])
