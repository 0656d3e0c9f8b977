"""attention_pattern_diff: whether old and new heads weigh pairs of tokens alike, side by side and at a distance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.attention import rope
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
    top,
)
from diffai_stream.analyses.attention.heads import LayerHeads
from diffai_stream.analyses.base import Finding, LayerEvidence, ModelEvidence, RunContext, Skipped
from diffai_stream.options import Options

Column = NDArray[np.float64]
Ropes = tuple[rope.Rope, rope.Rope]


def needs_in(run: RunContext, options: Options) -> Needs:
    """Products of q and k."""
    return needs_for("attention_pattern_diff", "qk", run, options)


def layer(evidence: LayerEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """One record an attention."""
    for heads in of_layer(evidence):
        found = products(evidence, heads, "qk")
        if isinstance(found, Skipped):
            yield found
        else:
            yield Finding("layer", evidence.name, "measured", _fields(evidence, heads, found, options))


def model(evidence: ModelEvidence, options: Options) -> Iterator[Skipped]:
    """What could not be looked at."""
    yield from reasons(evidence.run)


def _fields(evidence: LayerEvidence, heads: LayerHeads, found: dict[str, Products], options: Options) -> dict[str, Any]:
    ropes = _ropes(evidence.run, heads)
    queries, keys = found["q"], Products(*(shared(side, heads) for side in found["k"]))
    cosines = {0: _cosines(*(inner(q, k) for q, k in zip(queries, keys, strict=True)))}
    if not isinstance(ropes, str):
        cosines |= _rotated(queries, keys, ropes)
    at_once = cosines[0]
    far = [cosines[distance] for distance in cosines if distance]
    over = _mean(np.stack(far), 0) if far else np.full(heads.heads, np.nan)
    order = np.lexsort((np.arange(heads.heads), np.nan_to_num(over if far else at_once, nan=np.inf)))
    return {
        **head_fields(heads),
        "distance": 0,
        "cosine": known(_mean(at_once)),
        "mean_cosine": known(_mean(over)),
        "distances": [
            {"distance": distance, "mean_cosine": known(_mean(values)), "min_cosine": known(_least(values))}
            for distance, values in cosines.items()
        ],
        "heads": top(
            [
                {"head": h, "kv_head": kv_head(h, heads), "cosine": known(at_once[h]), "mean_cosine": known(over[h])}
                for h in order.tolist()
            ],
            options,
        ),
        "rotary": ropes if isinstance(ropes, str) else _told(ropes),
        "left_out": _left_out(evidence, heads),
    }


def _cosines(old: Column, new: Column, cross: Column) -> Column:
    """cross / √(old · new), within [-1, 1]; NaN where a form is 0."""
    return np.clip(ratio(cross, np.sqrt(np.maximum(old, 0.0) * np.maximum(new, 0.0))), -1.0, 1.0)


def _rotated(queries: Products, keys: Products, ropes: Ropes) -> dict[int, Column]:
    """The cosines at each distance."""
    old, new = ropes
    sides = ((old, old), (new, new), (old, new))
    found = [rope.forms(q, k, *turns) for q, k, turns in zip(queries, keys, sides, strict=True)]
    return {
        distance: _cosines(*(rope.inner(form, *turns, distance) for form, turns in zip(found, sides, strict=True)))
        for distance in rope.DISTANCES
    }


def _ropes(run: RunContext, heads: LayerHeads) -> Ropes | str:
    """The rotations of both sides, or why there are none. Rows are in the order of the old side, whose layout counts."""
    if heads.kind != "self":
        return "keys are of another sequence: nothing is rotated"
    key = f"ropes of {heads.size}"
    if key not in run.memo:
        name = heads.places["q"].tensor
        sides = [
            rope.rope_of(checkpoint, context, heads.size, name)
            for checkpoint, context in zip((run.old, run.new), run.configurations, strict=True)
        ]
        run.memo[key] = _both(sides[0], sides[1], any("permuted" in pair.match for pair in run.pairs))
    return run.memo[key]  # type: ignore[no-any-return]


def _both(old: rope.Rope | str, new: rope.Rope | str, is_permuted: bool) -> Ropes | str:
    """A side that tells nothing is like the other, unless the rows were put into an order that it alone knows."""
    if isinstance(old, str):
        return old if isinstance(new, str) or is_permuted else (new, new)
    if isinstance(new, str):
        return old, old
    if (old.angles > 0).sum() != (new.angles > 0).sum():
        return "old and new rotate different numbers of rows"
    return old, new._replace(first=old.first, second=old.second, layout=old.layout)


def _told(ropes: Ropes) -> str:
    old, new = ropes
    base = f"{old.base:g}" if old.base == new.base else f"{old.base:g} (old) and {new.base:g} (new)"
    rotated = 2 * int((old.angles > 0).sum())
    return f"base {base}, {rotated} of {2 * old.first.size} rows, {old.layout}"


def _left_out(evidence: LayerEvidence, heads: LayerHeads) -> list[str]:
    roles = {pair.role for pair in evidence.run.layers[evidence.name]}
    found = [f"bias of {name}" for name in ("q", "k", "qkv") if f"attention.{name}_proj.bias" in roles]
    return found + [f"norm of {name}" for name in ("q", "k") if f"norm.{name}" in roles]


def _mean(values: Column, axis: int | None = None) -> Any:
    alive = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(alive, values, 0.0).sum(axis) / alive.sum(axis)


def _least(values: Column) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")
