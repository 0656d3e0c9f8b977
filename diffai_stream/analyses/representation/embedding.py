"""embedding_analysis: rows of an embedding compared one by one, from sums that the scan keeps of every row."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Evidence, Finding, PlacedFindings, Skipped, Table
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.plan import naming
from diffai_stream.statistics.describe import finite

ROLES = ("embedding", "lm_head", "position_embedding", "token_type_embedding")
TOKENS = ("embedding", "lm_head")
THRESHOLD = 0.01
Column = NDArray[np.float64]


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """Row sums of embeddings and output heads."""
    if "embedding_analysis" not in options.analyses or not is_table(pair):
        return ()
    from diffai_stream.statistics.row_sums import RowSums

    return (RowSums(),)


def needs_in(run: Any, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """Nothing more; raises UsageError where a tokenizer cannot belong to the embedding that lies beside it."""
    if "embedding_analysis" in options.analyses and not options.all_analyses:
        for checkpoint, context, side in zip((run.old, run.new), run.contexts, ("old", "new"), strict=True):
            table = next(
                (e for e in checkpoint.tensors if naming.place(e.name).role == "embedding" and len(e.shape) == 2), None
            )
            if table is not None and context.tokenizer is not None:
                _check_tokens(table, context.tokenizer, f"{side} checkpoint {checkpoint.path}")
    return lambda pair: ()


def _check_tokens(table: Any, tokenizer: Any, whose: str) -> None:
    """More tokens than rows, or fewer than half: padding and room for more explain no such difference."""
    rows, tokens = table.shape[0], len(tokenizer.tokens)
    if tokens > rows or 2 * tokens < rows:
        raise UsageError(
            f"{tokenizer.source} of the {whose} has {tokens:,} tokens and {table.name} {rows:,} rows: it is the tokenizer of "
            "another model; put the right one there, or none"
        )


def is_table(pair: Any) -> bool:
    """Whether both sides of a pair are a table of embeddings that is compared."""
    return bool(pair.role in ROLES and pair.status == "paired" and len(pair.old.shape) == 2 and not pair.identical)


def tensor(table: Table, options: Options) -> PlacedFindings:
    """One record for each embedding."""
    for place, evidence in enumerate(table.evidence):
        rows = _row_sums(evidence)
        if rows is not None and is_table(evidence.pair):
            yield place, _finding(evidence, rows, table.run, options)


def model(evidence: Any, options: Options) -> Any:
    """That there is no embedding, when there is none."""
    if not any(pair.role in ROLES for pair in evidence.run.pairs):
        yield Skipped("model", "no tensor has the role of an embedding")


def _row_sums(evidence: Evidence) -> NDArray[np.float64] | None:
    found = [columns["rows"] for statistic, columns in evidence.extras.items() if type(statistic).__name__ == "RowSums"]
    return found[0] if found else None


def distances(rows: NDArray[np.float64]) -> tuple[Column, Column]:
    """(1 - cosine, ‖delta‖ / ‖old‖) of each row; NaN where a norm that it needs is 0.

    1 - cos = (Σd² - (‖n‖ - ‖o‖)²) / (2‖o‖‖n‖), which loses no digits where old and new are close.
    """
    from diffai_stream.statistics.row_sums import RowField

    old2, new2, delta2 = (rows[:, f] for f in (RowField.OLD_SQUARES, RowField.NEW_SQUARES, RowField.DELTA_SQUARES))
    old, new = np.sqrt(old2), np.sqrt(new2)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.clip((delta2 - (new - old) ** 2) / (2 * old * new), 0.0, 2.0)
        relative = np.sqrt(delta2) / old
    return np.where((old > 0) & (new > 0), cosine, np.nan), np.where(old > 0, relative, np.nan)


def _finding(evidence: Evidence, rows: NDArray[np.float64], run: Any, options: Options) -> Finding:
    from diffai_stream.statistics.row_sums import RowField

    pair = evidence.pair
    cosine, relative = distances(rows)
    known = cosine[np.isfinite(cosine)]
    delta2, old2 = float(rows[:, RowField.DELTA_SQUARES].sum()), float(rows[:, RowField.OLD_SQUARES].sum())
    lengths = [entry.stored_shape[0] for entry in (pair.old, pair.new)]
    fields = {
        "role": pair.role,
        "row_count": len(rows),
        "semantic_drift": float(known.mean()) if known.size else None,
        "relative_l2": finite(sqrt(delta2 / old2)) if old2 > 0 else None,
        "affected_rows": int((known > THRESHOLD).sum()),
        "threshold": THRESHOLD,
        "identical_rows": int((rows[:, RowField.DELTA_SQUARES] == 0).sum()),
        "zero_rows": int((rows[:, RowField.NEW_SQUARES] == 0).sum()),
        "added_rows": max(0, lengths[1] - len(rows)),
        "removed_rows": max(0, lengths[0] - len(rows)),
        "top_rows": _top(cosine, relative, rows[:, RowField.DELTA_SQUARES], pair.role, run, options.top),
    }
    return Finding("tensor", pair.name, "measured", fields)


def _top(cosine: Column, relative: Column, delta2: Column, role: str, run: Any, top: int) -> list[dict[str, Any]]:
    """The rows that moved most, with the texts of their tokens where a tokenizer is beside either checkpoint."""
    order = np.lexsort((np.arange(len(cosine)), -np.nan_to_num(relative), -np.nan_to_num(cosine)))
    order = order[delta2[order] > 0]
    tokenizer = None
    if role in TOKENS and order.size:
        old, new = run.contexts
        tokenizer = new.tokenizer or old.tokenizer
    return [
        {
            "row": int(row),
            "token": tokenizer.text(int(row)) if tokenizer is not None else None,
            "cosine_distance": finite(float(cosine[row])),
            "relative_l2": finite(float(relative[row])),
        }
        for row in (order[:top] if top else order).tolist()
    ]
