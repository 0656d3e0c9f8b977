"""head_importance: how strongly each head can choose and how much it can write, and which heads do neither."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.attention.evidence import (
    Needs,
    Products,
    head_fields,
    inner,
    known,
    kv_head,
    needs_for,
    of_layer,
    products,
    ratio,
    reasons,
    shared,
)
from diffai_stream.analyses.attention.heads import LETTERS, LayerHeads
from diffai_stream.analyses.base import Finding, LayerEvidence, ModelEvidence, RunContext, Skipped
from diffai_stream.options import Options

PRUNABLE_BELOW = 0.1
Column = NDArray[np.float64]


def needs_in(run: RunContext, options: Options) -> Needs:
    """Products of all four projections."""
    return needs_for("head_importance", LETTERS, run, options)


def layer(evidence: LayerEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """One record an attention."""
    for heads in of_layer(evidence):
        found = products(evidence, heads, LETTERS)
        if isinstance(found, Skipped):
            yield found
        else:
            yield Finding("layer", evidence.name, "measured", _fields(heads, found, options))


def model(evidence: ModelEvidence, options: Options) -> Iterator[Skipped]:
    """What could not be looked at."""
    yield from reasons(evidence.run)


def norms(heads: LayerHeads, found: dict[str, Products], side: int) -> tuple[Column, Column]:
    """(‖W_Qᵀ W_K‖_F, ‖W_O W_V‖_F) of each head of old (0) or new (1)."""
    forms = (found["q"][side], found["k"][side]), (found["o"][side], found["v"][side])
    first, second = (np.sqrt(np.maximum(inner(own, shared(common, heads)), 0.0)) for own, common in forms)
    return first, second


def _ranks(importance: Column) -> NDArray[np.int64]:
    """1 for the largest; of equal ones the first counts as larger."""
    order = np.lexsort((np.arange(len(importance)), -importance))
    ranks = np.empty(len(importance), np.int64)
    ranks[order] = np.arange(1, len(importance) + 1)
    return ranks


def _fields(heads: LayerHeads, found: dict[str, Products], options: Options) -> dict[str, Any]:
    sides = [norms(heads, found, side) for side in (0, 1)]
    importance = [np.sqrt(qk * ov) for qk, ov in sides]
    shares = [ratio(values, np.full(len(values), values.sum())) for values in importance]
    ranks = [_ranks(values) for values in importance]
    prunable = [values < PRUNABLE_BELOW * np.median(values) for values in importance]
    rows = [
        {
            "head": head,
            "kv_head": kv_head(head, heads),
            "old_qk_norm": float(sides[0][0][head]),
            "new_qk_norm": float(sides[1][0][head]),
            "old_ov_norm": float(sides[0][1][head]),
            "new_ov_norm": float(sides[1][1][head]),
            "old_share": known(shares[0][head]),
            "new_share": known(shares[1][head]),
            "share_change": known(shares[1][head] - shares[0][head]),
            "old_rank": int(ranks[0][head]),
            "new_rank": int(ranks[1][head]),
            "prunable": bool(prunable[1][head]),
        }
        for head in np.argsort(ranks[1]).tolist()
    ]
    return {
        **head_fields(heads),
        "heads": _ends(rows, options),
        "prunable_heads": np.flatnonzero(prunable[1]).tolist(),
        "old_prunable_count": int(prunable[0].sum()),
        "prunable_below": PRUNABLE_BELOW,
        "rank_correlation": _spearman(*importance),
    }


def _ends(rows: list[dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    """As many rows as asked for, half of them from the end: the heads that matter most and least."""
    if options.histograms or not options.top or len(rows) <= options.top:
        return rows
    last = options.top // 2
    return rows[: options.top - last] + (rows[-last:] if last else [])


def _spearman(old: Column, new: Column) -> float | None:
    """Correlation of the ranks, equal values sharing the mean of theirs."""
    ranks = [np.searchsorted(np.sort(v), v, "left") + np.searchsorted(np.sort(v), v, "right") for v in (old, new)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.clip(np.corrcoef(ranks[0], ranks[1])[0, 1], -1.0, 1.0))
