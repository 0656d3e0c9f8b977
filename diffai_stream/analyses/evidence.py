"""Outcomes of the engine to evidence: the status of a pair, its figures, and what is kept of it until the end."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

from diffai_stream.analyses.base import Digest, Evidence
from diffai_stream.engine.results import TensorStates
from diffai_stream.options import Options
from diffai_stream.plan.chunks import real_shape
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.statistics.describe import agreement, change_stats, finite, shape_stats, side_stats, sum_of_squares
from diffai_stream.statistics.finishing import QUANTILES
from diffai_stream.statistics.layout import View

SMALLEST_KEY, LARGEST_KEY = 2.0**-133, 2.0**128  # magnitudes that the top 16 bits of a float32 tell from 0 and Inf
PADDED = "padded"  # tables of different lengths, compared over the rows that both have
SIDES = {"old": View.OLD, "new": View.NEW, "delta": View.DELTA}
States = dict[str, TensorStates]


def evidence_of(pair: TensorPair, states: States, options: Options) -> Evidence:
    """The evidence of a pair: `states` by side, "both" when the sides were scanned together, empty when not read."""
    both = states.get("both")
    stats: dict[str, Any] = {"old": None, "new": None, "delta": None}
    change: dict[str, Any] | None = None
    columns: dict[str, Any] = {}
    extras: dict[Any, dict[str, Any]] = {}
    row: Any = None
    if both is not None:
        stats = {name: figures(both, view, options) for name, view in SIDES.items()}
        change = _change(both, pair, options)
        columns, extras, row = both.columns, both.extras, both.row
    elif states:
        for side, side_states in states.items():
            stats[side] = figures(side_states, View.OLD, options)
        columns = _side_columns(states)
        row = {side: side_states.row for side, side_states in states.items()}
        extras = next(iter(states.values())).extras if len(states) == 1 else {}
    return Evidence(pair, status_of(pair, both), stats, change, row, columns, extras, bool(states))


def _side_columns(states: States) -> dict[str, Any]:
    """Columns of sides scanned apart, put together as if scanned together; only those that are per side."""
    columns: dict[str, Any] = {}
    for name in ("laws", "codes"):
        found = [states[side].columns.get(name) if side in states else None for side in ("old", "new")]
        if any(value is not None for value in found):
            nothing: Any = (None, None) if name == "codes" else None
            columns[name] = [value[0] if value is not None else nothing for value in found]
    return columns


def status_of(pair: TensorPair, both: TensorStates | None) -> str:
    """What happened to a tensor."""
    if pair.status != "paired" or PADDED in pair.match:
        return "reshaped" if pair.status == "paired" else pair.status
    if both is not None and pair_columns(both)["changed"] > 0:
        return "changed"
    assert pair.old is not None
    assert pair.new is not None
    return "unchanged" if pair.old.encoding == pair.new.encoding else "retyped"


def pair_columns(states: TensorStates) -> dict[str, float]:
    """The agreement columns of a pair by name."""
    return agreement(states.row)


def figures(states: TensorStates, view: View, options: Options) -> dict[str, Any]:
    """The figures of one view, with what `--stats` and `--histograms` add."""
    stats = side_stats(states.row, view)
    if options.stats:
        stats |= shape_stats(states.row, view)
        quantiles = states.columns.get("quantiles")
        if quantiles is not None:
            told = stats["mean"] is not None and has_keys(stats)
            values = [value + 0.0 for value in quantiles[view].tolist()] if told else [None] * len(QUANTILES)
            stats["quantiles"] = dict(zip(QUANTILES, values, strict=True))
    bins = states.columns.get("bins")
    if bins is not None and bins[view] is not None:
        edges, counts = bins[view]
        stats["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return stats


def has_keys(stats: dict[str, Any]) -> bool:
    """Whether the values have float32 keys, from which quantiles and distances follow: doubles can lie beyond them."""
    top = stats["abs_max"]
    return not top or SMALLEST_KEY <= top <= LARGEST_KEY


def _change(states: TensorStates, pair: TensorPair, options: Options) -> dict[str, Any]:
    assert pair.old is not None
    change = change_stats(states.row, real_shape(pair.old))
    if options.stats:
        distances = states.columns.get("distances")
        values: list[float | None] = [None] * 3
        if distances is not None and all(has_keys(side_stats(states.row, view)) for view in (View.OLD, View.NEW)):
            values = [finite(value) for value in distances.tolist()]
        change |= dict(zip(("ks", "js_distance", "wasserstein"), values, strict=True))
        ulp = next((columns for statistic, columns in states.extras.items() if type(statistic).__name__ == "UlpDistance"), {})
        change |= {name: ulp.get(name) for name in ("ulp_p50", "ulp_p99", "ulp_max")}
    return change


def digest_of(evidence: Evidence) -> Digest:
    """The scalars that are kept of a tensor until the end."""
    pair, change = evidence.pair, evidence.change
    old2 = delta2 = 0.0
    if change is not None and not isinstance(evidence.row, dict):
        old2, delta2 = agreement(evidence.row)["old_squares"], sum_of_squares(evidence.row, View.DELTA)
    hashes = (_hash(evidence, "old"), _hash(evidence, "new"))
    old_rms, new_rms = _rms(evidence, "old"), _rms(evidence, "new")
    shape = tuple((pair.old or pair.new).shape)
    compared = prod(real_shape(pair.old)) if pair.status == "paired" else 0
    changed = change["changed_count"] if change is not None else 0
    place = (pair.name, pair.layer, pair.role, evidence.status, shape)
    return Digest(*place, pair.numel, compared, old_rms, new_rms, old2, delta2, changed, *hashes)


def _rms(evidence: Evidence, side: str) -> float | None:
    """Root mean square of the finite elements of a side; None when there are none."""
    stats, entry = evidence.stats[side], getattr(evidence.pair, side)
    if stats is None or entry is None:
        return None
    finite_count = prod(real_shape(entry)) - stats["nan_count"] - stats["posinf_count"] - stats["neginf_count"]
    return stats["l2_norm"] / sqrt(finite_count) if finite_count and stats["l2_norm"] is not None else None


def _hash(evidence: Evidence, side: str) -> str | None:
    """The content hash of a side, unless it is constant (equal constants say nothing) or tied to another tensor's bytes."""
    stats = evidence.stats[side]
    if stats is None or stats["std"] == 0 or stats["std"] is None or evidence.pair.match == "tied":
        return None
    for statistic, columns in evidence.extras.items():
        if type(statistic).__name__ == "ContentHash" and statistic.view == SIDES[side]:
            return str(columns["content_hash"])
    return None
