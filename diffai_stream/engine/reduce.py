"""Results of tasks to finished tensors: parts merge along the tree over their numbers, in plan order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult, FailedResult, FinishedResult, PartResult, TensorStates
from diffai_stream.engine.scan import Result, merge_results
from diffai_stream.errors import DiffaiError
from diffai_stream.plan.chunks import Slice

Key = tuple[int, str]


class Outcome(NamedTuple):
    """One side-pair of a tensor: its states, or the error that kept them from being computed."""

    piece: Slice
    states: TensorStates | None
    error: DiffaiError | None


class Reducer:
    """Takes batch results in plan order and yields outcomes, each as soon as its tensor is complete."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._open: dict[Key, list[PartResult]] = {}
        self._failed: set[Key] = set()

    def take(self, batch: BatchResult) -> Iterator[Outcome]:
        """The outcomes that this result completes."""
        for result in batch.results:
            if isinstance(result, FinishedResult):
                yield from outcomes_of(result)
            elif isinstance(result, FailedResult):
                yield from self._fail(result)
            else:
                yield from self._grow(result)

    def _fail(self, result: FailedResult) -> Iterator[Outcome]:
        key = (result.piece.pair, result.piece.side)
        self._open.pop(key, None)
        if key not in self._failed:
            self._failed.add(key)
            yield Outcome(result.piece, None, result.error)

    def _grow(self, part: PartResult) -> Iterator[Outcome]:
        key = (part.piece.pair, part.piece.side)
        if key in self._failed:
            return
        stack = self._open.setdefault(key, [])
        stack.append(part)
        while len(stack) > 1 and _siblings(stack[-2], stack[-1]):
            self._join(stack)
        if part.last == part.piece.count:
            while len(stack) > 2:
                self._join(stack)
            yield from self._complete(key)

    def _join(self, stack: list[PartResult]) -> None:
        right, left = stack.pop(), stack.pop()
        merged = merge_results([left, right], self._program)
        assert isinstance(merged, PartResult)
        stack.append(merged)

    def _complete(self, key: Key) -> Iterator[Outcome]:
        merged: Result = merge_results(self._open.pop(key), self._program)
        assert isinstance(merged, FinishedResult)
        yield from outcomes_of(merged)


def _siblings(left: PartResult, right: PartResult) -> bool:
    """Whether two parts are children of one node of the tree; a shorter last part waits for the end."""
    size = left.last - left.first
    whole = left.last == right.first and right.last - right.first == size and left.first % (2 * size) == 0
    return whole and right.last < right.piece.count


def outcomes_of(result: FinishedResult) -> Iterator[Outcome]:
    """The tensors of a finished batch, one by one."""
    for place, (piece, extras) in enumerate(zip(result.pieces, result.extras, strict=True)):
        yield Outcome(piece, TensorStates(result.finished, place, extras), None)
