"""What a task returns and what the reducer yields: states of parts, finished tensors, errors as data."""

from __future__ import annotations

from typing import Any, NamedTuple

from diffai_stream.errors import DiffaiError
from diffai_stream.plan.chunks import Slice
from diffai_stream.statistics.finishing import Finished
from diffai_stream.statistics.scanner import Part


class PartResult(NamedTuple):
    """A part of a tensor, slices [first, last) of it: its state and the states of its other statistics."""

    piece: Slice
    first: int
    last: int
    state: Part
    extras: tuple[Any, ...]


class TensorStates(NamedTuple):
    """One side-pair of a finished tensor: its place among the tensors finished with it, and its other statistics."""

    finished: Finished
    place: int
    extras: dict[Any, dict[str, Any]]


class FinishedResult(NamedTuple):
    """Whole tensors of a batch, finished in its task."""

    pieces: tuple[Slice, ...]
    finished: Finished
    extras: tuple[dict[Any, dict[str, Any]], ...]


class FailedResult(NamedTuple):
    """A slice that could not be read."""

    piece: Slice
    error: DiffaiError


class BatchResult(NamedTuple):
    """All that a task says: results of any kind, and what it cost."""

    index: int  # type: ignore[assignment]
    results: tuple[PartResult | FinishedResult | FailedResult, ...]
    nbytes: int
