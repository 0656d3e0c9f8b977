"""distribution_shift: how the distribution of each tensor moved, from figures of each side alone.

It needs no pairs of elements, so it is what a comparison with a profile can say of tensors that changed; it is blind to a
permutation. Distances come from the counts of all patterns; of tensors below 2^22 elements, whose patterns a profile does not
keep, from 1,024 coarse keys (sign, exponent, first bit): these are never above the true ones, and see nothing of what moves
within a key.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Finding, Findings, ModelEvidence, PlacedFindings, Skipped, Table
from diffai_stream.analyses.layers import coarse_edges
from diffai_stream.analyses.profiled import SHIFT
from diffai_stream.analyses.quantization import by_kind
from diffai_stream.options import Options
from diffai_stream.plan.sources import scanned_encoding
from diffai_stream.statistics.describe import finite
from diffai_stream.statistics.layout import COARSE_KEYS, View

Counts = NDArray[np.int64]
MOVED = ("changed", "reshaped", "retyped")


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """The patterns of sides that are scanned apart, whose distances the scan cannot tell."""
    if SHIFT not in options.analyses or pair.status != "reshaped":
        return ()
    from diffai_stream.statistics.pattern_counts import PatternCounts

    return (PatternCounts(View.OLD),)


def tensor(table: Table, options: Options) -> PlacedFindings:
    """A finding for every tensor that is on both sides with finite elements, and is not unchanged."""
    counts = _counts(table)
    for place, evidence in enumerate(table.evidence):
        old, new = evidence.stats["old"], evidence.stats["new"]
        if evidence.status not in MOVED or not old or not new or old["mean"] is None or new["mean"] is None:
            continue
        keys, (ks, js, w1) = None, (None, None, None)
        if counts[place].any(axis=1).all() and not options.fast:
            fine = _of_patterns(table, place)
            keys = "coarse" if fine is None else "patterns"
            ks, js, w1 = (*distances(*counts[place]), None) if fine is None else fine
        fields = {
            "mean_change": new["mean"] - old["mean"],
            "std_ratio": _ratio(new["std"], old["std"]),
            "norm_ratio": _ratio(new["l2_norm"], old["l2_norm"]),
            "ks": ks,
            "js_distance": js,
            "wasserstein": w1,
            "keys": keys,
        }
        yield place, Finding("tensor", evidence.pair.name, "measured", fields)


def model(evidence: ModelEvidence, options: Options) -> Findings:
    """Why there was nothing to say, where the flag asked."""
    if "distribution_shift" not in options.analyses or any(t.status in MOVED for t in evidence.tensors):
        return
    both = any(t.status not in ("added", "removed") for t in evidence.tensors)
    yield Skipped("model", "every tensor on both sides is as it was" if both else "no tensor is on both sides")


def _ratio(new: float, old: float) -> float | None:
    return finite(new / old) if old else None


def _of_patterns(table: Table, place: int) -> tuple[float, float, float] | None:
    """(KS, JS, W1) from all patterns of a large tensor; None for one whose patterns were not kept on both sides."""
    from diffai_stream.statistics.pattern_counts import MIN_NUMEL, pattern_distances

    evidence = table.evidence[place]
    if evidence.apart:
        counted = [found for side in ("old", "new") if (found := by_kind(evidence.apart[side], "PatternCounts"))]
        if len(counted) < 2 or not all(found["keys"].size for found in counted):
            return None
        encodings = [scanned_encoding(entry) for entry in (evidence.pair.old, evidence.pair.new)]
        return pattern_distances(counted, encodings)
    found = table.columns.get("distances")
    if found is None or evidence.pair.numel < MIN_NUMEL or np.isnan(found[place]).any():
        return None
    ks, js, w1 = found[place].tolist()
    return ks, js, w1


def _counts(table: Table) -> Counts:
    """int64[S, 2 sides, 1,024]: coarse histograms of both sides."""
    counts = np.zeros((len(table.evidence), 2, COARSE_KEYS), np.int64)
    for coarse in table.coarse:
        if coarse.view != View.DELTA:
            counts[np.repeat(coarse.places, coarse.sizes), int(coarse.view), coarse.runs.keys] += coarse.runs.counts
    return counts


def distances(old: Counts, new: Counts) -> tuple[float, float]:
    """(KS, JS) of two coarse histograms, neither of them empty."""
    order, _ = coarse_edges()
    shares = np.stack([old[order] / old.sum(), new[order] / new.sum()])
    ks = float(np.abs(np.cumsum(shares[0] - shares[1])).max())
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(shares > 0, shares * np.log2(shares / shares.mean(axis=0)), 0.0)
    return min(ks, 1.0), min(1.0, float(np.sqrt(max(0.0, 0.5 * float(parts.sum())))))
