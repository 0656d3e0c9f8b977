"""Tensors to layers: figures merged over the tensors of a layer, complete when its last tensor is out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Digest, LayerEvidence, RunContext, Table
from diffai_stream.analyses.evidence import SIDES
from diffai_stream.options import Options
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.describe import field, nonfinite_count, shape_stats, side_stats
from diffai_stream.statistics.entries import fold_rows
from diffai_stream.statistics.finishing import PROBABILITIES, QUANTILES
from diffai_stream.statistics.layout import COARSE_KEYS, COARSE_SHIFT, ROW_WIDTH, View
from diffai_stream.statistics.scanner import key_domain

Counts = NDArray[np.int64]


class LayerBuilder:
    """Collects one layer: its rows are merged in name order at the end, so the order of the files does not show."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, NDArray[np.float64]]] = []
        self.counts: Counts | None = None
        self.digests: list[Digest] = []
        self.unread_count = 0
        self.extras: dict[str, dict[Any, dict[str, Any]]] = {}


class Layers:
    """All open layers of a run. Only weights make layers, not what is kept beside them in training."""

    def __init__(self, pairs: Iterable[TensorPair]) -> None:
        self._outstanding = Counter(pair.layer for pair in pairs if pair.part == WEIGHTS)
        self._open: dict[str, LayerBuilder] = {}

    def take(
        self, pairs: Sequence[TensorPair], table: Table, digests: Sequence[Digest], options: Options
    ) -> dict[int, LayerEvidence]:
        """Take in tensors that are done: all those of the table, and `pairs`, which failed ones belong to as well.

        The evidence of the layers that are complete now, by the index of their last pair.
        """
        self._add(table, digests)
        settled: dict[int, str] = {}
        for pair in pairs:
            if pair.part != WEIGHTS:
                continue
            self._outstanding[pair.layer] -= 1
            if not self._outstanding[pair.layer] and pair.layer in self._open:
                settled[pair.index] = pair.layer
        finished = _finish([(name, self._open.pop(name)) for name in settled.values()], options, table.run)
        return dict(zip(settled, finished, strict=True))

    def _add(self, table: Table, digests: Sequence[Digest]) -> None:
        numbers: dict[str, int] = {}
        of_place = np.full(len(digests), -1)
        for place, (evidence, digest) in enumerate(zip(table.evidence, digests, strict=True)):
            if evidence.pair.part != WEIGHTS:
                continue
            of_place[place] = numbers.setdefault(digest.layer, len(numbers))
            builder = self._open.get(digest.layer)
            if builder is None:
                builder = self._open[digest.layer] = LayerBuilder()
            builder.digests.append(digest)
            if evidence.extras:
                builder.extras[digest.name] = evidence.extras
            if evidence.is_read:
                builder.rows.append((digest.name, evidence.row))
            else:
                builder.unread_count += 1
        for name, counts in zip(numbers, _merged_counts(table, of_place, len(numbers)), strict=True):
            builder = self._open[name]
            builder.counts = counts if builder.counts is None else builder.counts + counts


def _merged_counts(table: Table, numbers: NDArray[np.int64], count: int) -> Counts:
    """int64[count, 3, COARSE_KEYS]: coarse histograms summed over the tensors of a layer; `numbers` tell it, -1 for none."""
    merged = np.zeros((count + 1, 3, COARSE_KEYS), np.int64)
    for coarse in table.coarse:
        starts = ((numbers[coarse.places] + 1) * 3 + coarse.view) * COARSE_KEYS
        places = np.repeat(starts, coarse.sizes) + coarse.runs.keys
        # sums of integers below 2^53 are exact, and three times as fast as np.add.at
        merged += np.bincount(places, coarse.runs.counts, merged.size).astype(np.int64).reshape(merged.shape)
    return merged[1:]


def _finish(layers: Sequence[tuple[str, LayerBuilder]], options: Options, run: RunContext) -> list[LayerEvidence]:
    """The merged evidence of complete layers."""
    if not layers:
        return []
    rows = _merged_rows([builder for _, builder in layers])
    counts = np.stack([builder.counts for _, builder in layers if builder.counts is not None])
    stats = [_figures(rows, counts[:, view], view, options) for view in SIDES.values()]
    return [
        LayerEvidence(name, dict(zip(SIDES, sides, strict=True)), tuple(built.digests), built.unread_count, built.extras, run)
        for (name, built), *sides in zip(layers, *stats, strict=True)
    ]


def _merged_rows(builders: Sequence[LayerBuilder]) -> NDArray[np.float64]:
    """One row a layer: those of its tensors merged in the order of their names."""
    in_order = [sorted(builder.rows, key=lambda item: item[0]) for builder in builders]
    ends = np.cumsum([len(rows) for rows in in_order])
    merged = np.empty((len(builders), ROW_WIDTH))
    rows = [row for layer in in_order for _, row in layer]
    fold_rows(np.stack(rows) if rows else np.empty((0, ROW_WIDTH)), ends, merged)
    return merged


def _figures(rows: NDArray[np.float64], counts: Counts, view: View, options: Options) -> list[dict[str, Any] | None]:
    """The figures of a view of layers; None where nothing was measured."""
    stats = side_stats(rows, view)
    if options.stats:
        for told, shape in zip(stats, shape_stats(rows, view), strict=True):
            told.update(shape)
    if not options.fast:
        quantiles = coarse_quantiles(counts, field(rows, view, "min"), field(rows, view, "max"))
        for told, values in zip(stats, quantiles, strict=True):
            told["quantiles"] = values
    measured = (field(rows, view, "n") + nonfinite_count(rows, view) > 0).tolist()
    return [told if is_measured else None for told, is_measured in zip(stats, measured, strict=True)]


def coarse_quantiles(counts: Counts, low: NDArray[np.float64], high: NDArray[np.float64]) -> list[dict[str, float | None]]:
    """Quantiles from counts[S, 1024] of coarse keys: linear within a key's range, which lies within [low, high]."""
    order, edges = coarse_edges()
    order, edges = _used(order, edges, counts)
    cumulative = np.cumsum(counts[:, order], axis=1)
    targets = PROBABILITIES * cumulative[:, -1:]
    places = (cumulative[:, None, :] >= targets[:, :, None]).argmax(axis=2)
    segments = np.arange(len(counts))[:, None]
    inside = counts[:, order][segments, places]
    low, high = low[:, None], high[:, None]
    first, last = np.maximum(edges[places, 0], low), np.minimum(edges[places, 1], high)
    with np.errstate(invalid="ignore"):  # layers without a finite element
        share = (targets - (cumulative[segments, places] - inside)) / inside
        values = np.clip(first + share * (last - first), low, high) + 0.0
    known = (cumulative[:, -1] > 0).tolist()
    return [
        dict(zip(QUANTILES, told, strict=True)) if is_known else dict.fromkeys(QUANTILES)
        for told, is_known in zip(values.tolist(), known, strict=True)
    ]


def _used(
    order: NDArray[np.int64], edges: NDArray[np.float64], counts: Counts
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The keys that occur at all, usually a tenth of them: the others change no quantile."""
    used: NDArray[np.bool_] = counts.any(axis=0)[order]  # type: ignore[index]  # an array of an array
    return (order[used], edges[used]) if used.any() else (order, edges)


@lru_cache(maxsize=1)
def coarse_edges() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Coarse keys by ascending value, and the range (from, to) of each; zero and what lies below 2^-127 count as 0."""
    values = np.append(key_domain().values[:: 1 << COARSE_SHIFT], np.inf)
    order = np.concatenate([np.arange(COARSE_KEYS - 1, COARSE_KEYS // 2 - 1, -1), np.arange(COARSE_KEYS // 2)])
    near, far = values[order], values[np.where((order + 1) % (COARSE_KEYS // 2) == 0, COARSE_KEYS, order + 1)]
    largest = float(np.finfo(np.float32).max)
    far = np.where(np.isfinite(far), far, np.copysign(largest, near))
    edges = np.stack([np.minimum(near, far), np.maximum(near, far)], axis=1)
    edges[order % (COARSE_KEYS // 2) == 0] = 0.0
    return order, edges
