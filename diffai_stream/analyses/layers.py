"""Tensors to layers: figures merged over the tensors of a layer, complete when its last tensor is out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Digest, Evidence, LayerEvidence
from diffai_stream.analyses.evidence import SIDES, States
from diffai_stream.options import Options
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.statistics.describe import shape_stats, side_stats
from diffai_stream.statistics.entries import fold_rows
from diffai_stream.statistics.finishing import PROBABILITIES, QUANTILES
from diffai_stream.statistics.layout import COARSE_KEYS, COARSE_SHIFT, VIEW_WIDTH, View
from diffai_stream.statistics.scanner import key_domain

VIEWS = (View.OLD, View.NEW, View.DELTA)


class LayerBuilder:
    """Collects one layer: its rows are merged in name order at the end, so the order of the files does not show."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, NDArray[np.float64]]] = []
        self.counts = np.zeros((3, COARSE_KEYS), np.int64)
        self.digests: list[Digest] = []
        self.unread_count = 0

    def add(self, evidence: Evidence, digest: Digest, states: States) -> None:
        """Take in a finished tensor."""
        self.digests.append(digest)
        self.unread_count += not evidence.is_read
        for side, of_side in states.items():
            row = np.array(of_side.row)
            for view in VIEWS:
                at = _target(side, view)
                if at is None:
                    row[view * VIEW_WIDTH : (view + 1) * VIEW_WIDTH] = _EMPTY_VIEW
                    continue
                self.counts[at][of_side.coarse[view].keys] += of_side.coarse[view].counts  # a run holds a key once
            if side == "new":
                row[VIEW_WIDTH : 2 * VIEW_WIDTH] = np.array(of_side.row[:VIEW_WIDTH])
                row[:VIEW_WIDTH] = _EMPTY_VIEW
            self.rows.append((evidence.pair.name, row))

    def finish(self, name: str, options: Options) -> LayerEvidence:
        """The merged evidence of the layer."""
        stats: dict[str, Any] = {"old": None, "new": None, "delta": None}
        if self.rows:
            merged = _merged(row for _, row in sorted(self.rows, key=lambda item: item[0]))
            stats = {side: self._figures(merged, view, options) for side, view in SIDES.items()}
        return LayerEvidence(name, stats, tuple(self.digests), self.unread_count)

    def _figures(self, row: list[float], view: View, options: Options) -> dict[str, Any] | None:
        if row[view * VIEW_WIDTH] == 0 and not any(row[view * VIEW_WIDTH + 8 : (view + 1) * VIEW_WIDTH]):
            return None
        stats = side_stats(row, view)
        if options.stats:
            stats |= shape_stats(row, view)
        if not options.fast:
            stats["quantiles"] = coarse_quantiles(self.counts[view], stats["min"], stats["max"])
        return stats


_EMPTY_VIEW = np.array([0.0] * 5 + [np.inf, -np.inf] + [0.0] * 4)


def _target(side: str, view: View) -> View | None:
    """Which view of the layer a view of a scan counts for: a side scanned alone has its figures in OLD."""
    if side == "both":
        return view
    return View[side.upper()] if view == View.OLD else None


def _merged(rows: Iterable[NDArray[np.float64]]) -> list[float]:
    """The rows merged, first to last."""
    matrix = np.stack(list(rows))
    merged = matrix[0].copy()
    fold_rows(merged, matrix[1:])
    return list(map(float, merged))


def coarse_quantiles(counts: NDArray[np.int64], low: float | None, high: float | None) -> dict[str, float | None]:
    """Quantiles from 1,024 keys: linear within a key's range, which lies within [low, high]."""
    order, edges = _coarse_edges()
    in_order = counts[order]
    total = int(in_order.sum())
    if total == 0 or low is None or high is None:
        return dict.fromkeys(QUANTILES)
    cumulative, targets = np.cumsum(in_order), PROBABILITIES * total
    places = np.searchsorted(cumulative, targets)
    inside = in_order[places]
    share = (targets - (cumulative[places] - inside)) / inside
    first, last = np.maximum(edges[places, 0], low), np.minimum(edges[places, 1], high)
    values = np.clip(first + share * (last - first), low, high) + 0.0
    return dict(zip(QUANTILES, values.tolist(), strict=True))


@lru_cache(maxsize=1)
def _coarse_edges() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Coarse keys by ascending value, and the range (from, to) of each; zero and what lies below 2^-127 count as 0."""
    values = np.append(key_domain().values[:: 1 << COARSE_SHIFT], np.inf)
    order = np.concatenate([np.arange(COARSE_KEYS - 1, COARSE_KEYS // 2 - 1, -1), np.arange(COARSE_KEYS // 2)])
    near, far = values[order], values[np.where((order + 1) % (COARSE_KEYS // 2) == 0, COARSE_KEYS, order + 1)]
    largest = float(np.finfo(np.float32).max)
    far = np.where(np.isfinite(far), far, np.copysign(largest, near))
    edges = np.stack([np.minimum(near, far), np.maximum(near, far)], axis=1)
    edges[order % (COARSE_KEYS // 2) == 0] = 0.0
    return order, edges


class Layers:
    """All open layers of a run."""

    def __init__(self, pairs: Iterable[TensorPair]) -> None:
        self._outstanding = Counter(pair.layer for pair in pairs)
        self._open: dict[str, LayerBuilder] = {}

    def add(self, evidence: Evidence, digest: Digest, states: States) -> None:
        """Take in a finished tensor."""
        self._open.setdefault(evidence.pair.layer, LayerBuilder()).add(evidence, digest, states)

    def settle(self, pair: TensorPair, options: Options) -> LayerEvidence | None:
        """Count a tensor as done (also a failed one); the evidence of its layer when it was the last."""
        self._outstanding[pair.layer] -= 1
        if self._outstanding[pair.layer]:
            return None
        builder = self._open.pop(pair.layer, None)
        return builder.finish(pair.layer, options) if builder is not None else None
