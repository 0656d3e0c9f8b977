"""param_efficiency_analysis: how many parameters do something, in what patterns they are zero, how many bits they carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Digest, Evidence, Finding, ModelEvidence, PlacedFindings, Skipped, Table
from diffai_stream.analyses.quantization import stored_codes
from diffai_stream.options import Options
from diffai_stream.plan.chunks import real_shape
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.describe import field, finite, sum_of_squares
from diffai_stream.statistics.layout import COARSE_SHIFT, View
from diffai_stream.statistics.zero_patterns import ZeroPatterns

NAME = "param_efficiency_analysis"
SPARSE_ABOVE = 0.5
NEAR_ZERO = 2.0**-10  # of the root mean square
SIDES = (("old", View.OLD), ("new", View.NEW))
SHIFT = 16 + COARSE_SHIFT  # from a float32 to its coarse key
MAGNITUDES = 1 << (31 - SHIFT)
Near = NDArray[np.float64]  # [tensors, 2 sides, (limit, count)]


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """Patterns of zeros of weights that are more than vectors, codes of quantized ones."""
    if NAME not in options.analyses or pair.part != WEIGHTS or len(pair.entries[0].shape) < 2:
        return ()
    return (ZeroPatterns(), *stored_codes(pair))


def tensor(table: Table, options: Options) -> PlacedFindings:
    """One record a tensor of two or more axes."""
    near: Near | None = None
    for place, evidence in enumerate(table.evidence):
        columns = evidence.extras.get(ZeroPatterns())
        if columns is not None and NAME in options.analyses:
            near = _near(table) if near is None else near
            yield place, Finding("tensor", evidence.pair.name, "measured", _fields(evidence, columns, near[place], options))


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """Totals, and how many layers are sparse."""
    if not evidence.layers or not any(stats for layer in evidence.layers.values() for stats in layer.values()):
        yield Skipped("model", "no tensor was read")
        return
    yield Finding("model", "model", "measured", _totals(evidence))


def _near(table: Table) -> Near:
    """The limit below which an element of a side is near zero, and how many are; NaN where there is no histogram."""
    limits = np.full((len(table.rows), 2), np.nan)
    counts = np.full((len(table.rows), 2), np.nan)
    keys = np.zeros((len(table.rows), 2), np.int64)
    for side, (_, view) in enumerate(SIDES):
        with np.errstate(all="ignore"):
            rms = np.sqrt(sum_of_squares(table.rows, view) / field(table.rows, view, "n"))
            bits = (rms * NEAR_ZERO).astype(np.float32).view(np.uint32)
        known = np.isfinite(rms) & (rms > 0)
        keys[:, side] = np.where(known, bits >> SHIFT, 0)
        limits[:, side] = np.where(known, (keys[:, side].astype(np.uint32) << np.uint32(SHIFT)).view(np.float32), np.nan)
    for coarse in table.coarse:
        if coarse.view in (View.OLD, View.NEW):
            tensors = np.repeat(coarse.places, coarse.sizes)
            below = (coarse.runs.keys.astype(np.int64) % MAGNITUDES) < keys[tensors, coarse.view]
            found = np.bincount(tensors[below], coarse.runs.counts[below], len(table.rows))
            counts[coarse.places, coarse.view] = found[coarse.places]
    return np.stack([limits, counts], axis=2)


def _fields(evidence: Evidence, columns: Mapping[str, Any], near: Near, options: Options) -> dict[str, Any]:
    pair, fields = evidence.pair, dict[str, Any]()
    nonzero: dict[str, int] = {}
    for side, (name, _) in enumerate(SIDES):
        stats, entry = evidence.stats[name], getattr(pair, name)
        numel = prod(real_shape(entry)) if entry is not None and stats is not None else 0
        if numel:
            nonzero[name] = numel - stats["zero_count"]
        limit, count = near[side] if numel and not options.fast else (np.nan, np.nan)
        fields |= {
            f"{name}_nonzero_ratio": nonzero[name] / numel if numel else None,
            f"{name}_near_zero_ratio": finite(float(count) / numel) if numel and np.isfinite(limit) else None,
            f"{name}_near_zero_below": finite(float(limit)) if np.isfinite(count) else None,
            f"{name}_two_of_four_ratio": _ratio(columns["groups"][side], columns["group_count"] if numel else 0),
            f"{name}_zero_block_ratio": _ratio(columns["runs"][side], columns["run_count"] if numel else 0),
            f"{name}_effective_bits": _bits(evidence, side) if numel else None,
        }
    last = fields["new_nonzero_ratio"] if fields["new_nonzero_ratio"] is not None else fields["old_nonzero_ratio"]
    both = len(nonzero) == 2
    return {
        **fields,
        "efficiency_ratio": _ratio(nonzero["new"], nonzero["old"]) if both else None,
        "sparse_above": SPARSE_ABOVE,
        "is_sparse": last is not None and 1 - last > SPARSE_ABOVE,
    }


def _bits(evidence: Evidence, side: int) -> float | None:
    """Entropy of the codes as stored: of the quantized ones, else of those of at most 16 bits."""
    for statistic, columns in evidence.extras.items():
        if type(statistic).__name__ == "StoredCodes" and statistic.view == side and columns["code_entropy_bits"] is not None:
            return float(columns["code_entropy_bits"])
    codes = evidence.columns.get("codes")
    return finite(float(codes[side, 0])) if codes is not None else None


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below else None


def _zeros(layers: Mapping[str, Any], side: str) -> dict[str, int]:
    return {name: stats[side]["zero_count"] for name, stats in layers.items() if stats.get(side) is not None}


def _totals(evidence: ModelEvidence) -> dict[str, Any]:
    """Of all layers that were read: shares of zeros by side, and how many layers are sparse."""
    fields: dict[str, Any] = {}
    nonzero, sparse, seen = dict[str, int](), dict[str, int](), dict[str, int]()
    numels = {name: _numels(evidence.tensors, name) for name, _ in SIDES}
    for name, _ in SIDES:
        zeros = _zeros(evidence.layers, name)
        numel = sum(numels[name][layer] for layer in zeros)
        nonzero[name], seen[name] = numel - sum(zeros.values()), len(zeros)
        sparse[name] = sum(count > SPARSE_ABOVE * numels[name][layer] for layer, count in zeros.items())
        fields[f"{name}_nonzero_ratio"] = _ratio(nonzero[name], numel)
    for kind in ("two_of_four_ratio", "zero_block_ratio"):
        for name, _ in SIDES:
            fields[f"{name}_{kind}"] = _weighted(evidence, f"{name}_{kind}")
    found = [finding.fields["new_two_of_four_ratio"] for finding in evidence.findings.get(NAME, ())]
    return {
        **fields,
        "efficiency_ratio": _ratio(nonzero["new"], nonzero["old"]),
        "sparse_above": SPARSE_ABOVE,
        "old_sparse_layer_count": sparse["old"],
        "sparse_layer_count": sparse["new"],
        "dense_layer_count": seen["new"] - sparse["new"],
        "two_of_four_tensor_count": found.count(1.0),
    }


def _numels(tensors: Any, side: str) -> Counter[str]:
    """Elements by layer of the tensors that a side has."""
    absent = "added" if side == "old" else "removed"
    counts = Counter[str]()
    for digest in tensors:
        if isinstance(digest, Digest) and digest.status != absent:
            counts[digest.layer] += digest.numel
    return counts


def _weighted(evidence: ModelEvidence, key: str) -> float | None:
    """Mean of a ratio of tensors by their elements."""
    numels = {digest.name: digest.numel for digest in evidence.tensors}
    told = [(f.fields[key], numels.get(f.subject, 0)) for f in evidence.findings.get(NAME, ()) if f.fields[key] is not None]
    total = sum(numel for _, numel in told)
    return sum(value * numel for value, numel in told) / total if total else None
