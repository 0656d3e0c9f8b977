"""attention_analysis: how far the projections of a layer moved, head by head, and how far their focus shifted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.attention.evidence import (
    Needs,
    head_fields,
    inner,
    known,
    needs_for,
    of_layer,
    products,
    ratio,
    reasons,
    shared,
    top,
)
from diffai_stream.analyses.attention.heads import LETTERS, LayerHeads, Place
from diffai_stream.analyses.base import Finding, LayerEvidence, ModelEvidence, RunContext, Skipped
from diffai_stream.options import Options
from diffai_stream.statistics.column_sums import ColumnField, ColumnSums
from diffai_stream.statistics.row_sums import RowField, RowSums

RIDGE = 1e-7  # of the trace: the rounding of float32 products may leave an eigenvalue just below 0
Column = NDArray[np.float64]


def _sums(place: Place) -> Any:
    return RowSums() if place.axis == 0 else ColumnSums()


def needs_in(run: RunContext, options: Options) -> Needs:
    """Sums of rows or columns of all projections, products of q and k."""
    return needs_for("attention_analysis", "qk", run, options, _sums)


def layer(evidence: LayerEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """One record an attention."""
    for heads in of_layer(evidence):
        squares = {letter: found for letter in LETTERS if (found := _squares(evidence, heads, letter)) is not None}
        if not squares:
            yield Skipped(evidence.name, "its projections were not read, being the same on both sides")
            continue
        yield Finding("layer", evidence.name, "measured", _fields(evidence, heads, squares, options))


def model(evidence: ModelEvidence, options: Options) -> Iterator[Skipped]:
    """What could not be looked at."""
    yield from reasons(evidence.run)


def _squares(evidence: LayerEvidence, heads: LayerHeads, letter: str) -> Column | None:
    """Σold², Σnew², Σdelta² and Σold·new of each head of a projection, float64[4, heads]."""
    place = heads.places.get(letter)
    columns = evidence.extras.get(place.tensor, {}).get(_sums(place)) if place else None
    if place is None or columns is None:
        return None
    if place.axis == 0:
        rows = columns["rows"]
        fields = (RowField.OLD_SQUARES, RowField.NEW_SQUARES, RowField.DELTA_SQUARES, RowField.DOT)
        lines = np.stack([rows[:, field] for field in fields])
    else:
        old, new, dot = (
            columns["columns"][field] for field in (ColumnField.OLD_SQUARES, ColumnField.NEW_SQUARES, ColumnField.DOT)
        )
        lines = np.stack([old, new, np.maximum(old + new - 2 * dot, 0.0), dot])
    return np.asarray(lines.reshape(4, -1, heads.size).sum(2)[:, list(place.numbers)])


def _moves(squares: Column) -> tuple[Column, Column]:
    """(relative l2, cosine) of each column of Σold², Σnew², Σdelta², Σold·new."""
    old, new, delta, dot = squares
    return np.sqrt(ratio(delta, old)), np.clip(ratio(dot, np.sqrt(old * new)), -1.0, 1.0)


def _moved(squares: dict[str, Column]) -> list[dict[str, Any]]:
    """The heads that changed, those that moved furthest first."""
    rows: list[tuple[float, dict[str, Any]]] = []
    for letter, found in squares.items():
        for head, (relative, cosine, delta) in enumerate(zip(*_moves(found), found[2], strict=True)):
            row = {"projection": letter, "head": head, "relative_l2": known(relative), "cosine_similarity": known(cosine)}
            rows += [(-float(np.nan_to_num(relative, nan=np.inf)), row)] if delta > 0 else []
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def _fields(evidence: LayerEvidence, heads: LayerHeads, squares: dict[str, Column], options: Options) -> dict[str, Any]:
    whole = {letter: _moves(found.sum(1, keepdims=True)) for letter, found in squares.items()}
    moved = _moved(squares)
    shifts = _focus(evidence, heads)
    sizes = [abs(row["shift"]) for row in shifts if row["shift"] is not None]
    return {
        **head_fields(heads),
        "head_dim": heads.size,
        "projections": [
            {"projection": letter, "relative_l2": known(relative[0]), "cosine_similarity": known(cosine[0])}
            for letter, (relative, cosine) in whole.items()
        ],
        "moved_heads": top(moved, options),
        "unchanged_head_count": sum(found.shape[1] for found in squares.values()) - len(moved),
        "mean_focus_shift": float(np.mean(sizes)) if sizes else None,
        "focus_shifts": top(shifts, options),
    }


def _focus(evidence: LayerEvidence, heads: LayerHeads) -> list[dict[str, Any]]:
    """The share of the strongest direction of each head's form, largest change first; empty unless q and k were read."""
    found = products(evidence, heads, "qk")
    if isinstance(found, Skipped):
        return []
    old = focus_shares(found["q"].old, shared(found["k"].old, heads))
    unchanged = all(np.array_equal(side.old, side.new) for side in found.values())
    new = old if unchanged else focus_shares(found["q"].new, shared(found["k"].new, heads))
    order = np.lexsort((np.arange(len(old)), -np.nan_to_num(abs(new - old))))
    return [
        {"head": int(head), "old_share": known(old[head]), "new_share": known(new[head]), "shift": known(new[head] - old[head])}
        for head in order
    ]


def focus_shares(queries: Column, keys: Column) -> Column:
    """λ_max(G_Q G_K) / ⟨G_Q, G_K⟩ of each head, from float64[heads, d, d]: of W_Qᵀ W_K the share of its first squared
    singular value. NaN where the form is 0.

    With G_Q = L Lᵀ the product has the eigenvalues of Lᵀ G_K L.
    """
    total = inner(queries, keys)
    alive = total > 0
    shares = np.full(len(total), np.nan)
    if alive.any():
        traces = np.trace(queries[alive], axis1=1, axis2=2)
        scaled = queries[alive] / traces[:, None, None]
        factor = np.linalg.cholesky(scaled + RIDGE * np.eye(queries.shape[1]))
        largest = np.linalg.eigvalsh(factor.transpose(0, 2, 1) @ keys[alive] @ factor)[:, -1]
        shares[alive] = np.clip(largest * traces / total[alive], 0.0, 1.0)
    return shares
