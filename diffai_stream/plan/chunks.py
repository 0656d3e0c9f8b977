"""Pairs cut into slices and packed into batches: the unit of a task.

The leaves of a tensor follow from its shape alone: whole rows, about 32 Ki elements. A slice is an aligned run of 2^k
leaves (a chunk), so neither the chunk size nor the workers change how states merge. Small tensors share a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import TensorEntry
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.plan.sources import is_streamed, scanned_encoding
from diffai_stream.statistics.layout import leaf_numel

BATCH_NUMEL = 1 << 20  # elements of small tensors in one batch: their histograms are as large as they are
BATCH_SLICES = 1024


class Slice(NamedTuple):
    """Elements [start, stop) of a pair; `number` counts the slices of its tensor and side, `count` is how many there are.

    `side` is both, old or new. Complex tensors count real components. `streamed` tensors are one slice, read in order.
    """

    pair: int
    name: str
    side: str
    old: TensorEntry
    new: TensorEntry
    start: int
    stop: int
    leaf_numel: int
    number: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    statistics: tuple[Any, ...]
    streamed: bool

    @property
    def whole(self) -> bool:
        """Whether the slice is its whole tensor."""
        return self.count == 1


class Batch(NamedTuple):
    """The slices of one task; `nbytes` of stored data are read for it."""

    index: int  # type: ignore[assignment]
    slices: tuple[Slice, ...]
    nbytes: int


def real_shape(entry: TensorEntry) -> tuple[int, ...]:
    """The shape as measured: complex numbers have one more axis of 2."""
    return (*entry.shape, 2) if ENCODINGS[entry.encoding].components == 2 else tuple(entry.shape)


def chunk_numel(leaf: int, bits: int, chunk_nbytes: int) -> int:
    """Elements of a chunk: the largest 2^k leaves that take at most `chunk_nbytes` on the wider side."""
    numel = leaf
    while numel * 2 * bits <= chunk_nbytes * 8:
        numel *= 2
    return numel


def sides_of(pair: TensorPair, read_identical: bool) -> list[tuple[str, TensorEntry, TensorEntry]]:
    """What is scanned for a pair: both sides together, or each by itself; nothing when it is known to be identical."""
    old, new = pair.old, pair.new
    if pair.identical and old is not None:
        return [("both", old, old)] if read_identical and new is not None else []
    if pair.status == "paired" and old is not None and new is not None:
        return [("both", old, new)]
    alone = (("old", old), ("new", new))
    return [(side, entry, entry) for side, entry in alone if entry is not None and not entry.is_profiled]


def slices_of(pair: TensorPair, chunk_nbytes: int, statistics: tuple[Any, ...], read_identical: bool) -> Iterator[Slice]:
    """The slices of a pair, old side first where the sides are scanned apart."""
    for side, old, new in sides_of(pair, read_identical):
        shape = real_shape(old)
        numel, leaf = prod(shape), leaf_numel(shape)
        bits = max(row.bits // row.components for row in map(scanned_encoding, (old, new)))
        streamed = is_streamed(old) or is_streamed(new)
        step = max(numel, 1) if streamed else chunk_numel(leaf, bits, chunk_nbytes)
        count = max(1, -(-numel // step))
        for number in range(count):
            stop = min((number + 1) * step, numel)
            yield Slice(pair.index, pair.name, side, old, new, number * step, stop, leaf, number, count, statistics, streamed)


def slice_nbytes(piece: Slice) -> int:
    """Stored bytes that a slice reads; the slices of a tensor add up to all of them."""
    stored = piece.old.stored_nbytes
    if piece.new is not piece.old:
        stored += piece.new.stored_nbytes
    if piece.whole:
        return stored
    total = max(1, prod(real_shape(piece.old)))
    return stored * piece.stop // total - stored * piece.start // total


def batches(slices: Iterable[Slice]) -> Iterator[Batch]:
    """Pack slices in order: a chunk of a large tensor by itself, small tensors together."""
    pending: list[Slice] = []
    numel = index = 0
    for piece in slices:
        size = piece.stop - piece.start
        if pending and (not piece.whole or numel + size > BATCH_NUMEL or len(pending) >= BATCH_SLICES):
            yield _batch(index, pending)
            index, pending, numel = index + 1, [], 0
        pending.append(piece)
        numel += size
        if not piece.whole:
            yield _batch(index, pending)
            index, pending, numel = index + 1, [], 0
    if pending:
        yield _batch(index, pending)


def _batch(index: int, slices: list[Slice]) -> Batch:
    return Batch(index, tuple(slices), sum(map(slice_nbytes, slices)))
