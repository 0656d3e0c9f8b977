"""quantization: what storing a tensor in another encoding cost, in the units of the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log10, sqrt
from typing import Any

from diffai_stream.analyses.base import Evidence, Finding, ModelEvidence, PlacedFindings, Skipped, Table
from diffai_stream.analyses.integer_baselines import integer_baseline
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.options import Options
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.describe import agreement, finite, total

# Signal to noise of round-to-nearest on normal weights with standard deviation 0.02, in dB, measured; what searches for better
# scales (llama.cpp, GPTQ) comes out above. Types that are trained for, not rounded to (TQ, 1 bit, grids), have no such figure.
BASELINE_SQNR_DB = {
    "F16": 73.7,
    "BF16": 55.6,
    "I8": 42.1,
    "F8_E4M3": 31.5,
    "F8_E4M3FNUZ": 31.5,
    "F8_E5M2": 25.6,
    "F8_E5M2FNUZ": 25.6,
    **{"Q8_0": 45.4, "Q5_1": 28.4, "Q5_0": 27.4, "Q4_1": 22.1, "Q4_0": 21.3, "IQ4_NL": 22.0, "IQ4_XS": 21.9},
    **{"Q6_K": 34.5, "Q5_K": 28.4, "Q4_K": 22.1, "Q3_K": 16.2, "Q2_K": 9.7, "GGML_MXFP4": 18.9, "GGML_NVFP4": 19.7},
    **{"F8_E4M3_SCALED": 31.5, "F8_E4M3FNUZ_SCALED": 31.5, "F8_E5M2_SCALED": 25.6, "F8_E5M2FNUZ_SCALED": 25.6},
    **{"MXFP8": 30.6, "MXFP4": 18.9, "NVFP4": 20.4, "BNB_NF4": 20.7, "BNB_FP4": 18.3, "BNB_I8": 41.3},
}
# Encodings of tools that move a scale of each column into the layer before (AWQ, SmoothQuant), or may do so.
RESCALED = ("AWQ_I4", "I8_SCALED", "I4_SCALED", *(f"I{bits}_PACKED" for bits in range(1, 9)))
DEFAULT_THRESHOLD = 0.01
MARGIN_DB = 3.0  # weights are not quite normal: heavier tails cost this much more
CAST_COUNTS = ("overflow_count", "saturated_count", "flushed_count", "subnormal_count")


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """Row sums, for pairs whose encodings differ, and what the encodings give occasion to: casts, codes, sums of columns."""
    if not differs(pair):
        return ()
    from diffai_stream.statistics.casts import CastCounts
    from diffai_stream.statistics.column_sums import ColumnSums
    from diffai_stream.statistics.row_sums import RowSums

    casts = () if ENCODINGS[pair.new.encoding].decoder else (CastCounts(),)
    columns = (ColumnSums(),) if may_be_rescaled(pair) else ()
    return (RowSums(), *casts, *columns, *stored_codes(pair))


def stored_codes(pair: Any) -> tuple[Any, ...]:
    """The statistic of codes and scales, for the sides that have some."""
    from diffai_stream.statistics.layout import View
    from diffai_stream.statistics.stored_codes import StoredCodes

    sides = ((View.OLD, pair.old), (View.NEW, pair.new))
    return tuple(StoredCodes(view) for view, entry in sides if entry is not None and ENCODINGS[entry.encoding].decoder)


def may_be_rescaled(pair: Any) -> bool:
    """Whether one side alone is of a kind whose columns are often rescaled beforehand, as AWQ and SmoothQuant do."""
    rescaled = [entry.encoding in RESCALED for entry in (pair.old, pair.new)]
    return any(rescaled) and not all(rescaled)


def differs(pair: Any) -> bool:
    """Whether the two sides of a pair are stored in different encodings."""
    return bool(pair.status == "paired" and pair.part == WEIGHTS and pair.old.encoding != pair.new.encoding)


def tensor(table: Table, options: Options) -> PlacedFindings:
    """One finding for each tensor whose encoding differs."""
    for place, evidence in enumerate(table.evidence):
        if evidence.change is not None and differs(evidence.pair):
            yield place, _cost(evidence, evidence.change, options)


def _cost(evidence: Evidence, change: dict[str, Any], options: Options) -> Finding:
    pair = evidence.pair
    rows = extra(evidence, "RowSums")
    fitted = _fitted(evidence, rows)
    relative = fitted if fitted is not None else change["relative_l2"]
    sqnr = _decibels(fitted) if fitted is not None else change["sqnr_db"]
    baseline = _baseline(pair)
    expected = expected_relative(pair)
    threshold = _threshold(expected, options)
    worst, worst_relative = _worst(rows, fitted is not None)
    return Finding(
        "tensor",
        pair.name,
        "measured",
        {
            **_sizes(pair),
            "sqnr_db": sqnr,
            "sqnr_scale_invariant_db": _scale_invariant(evidence),
            "sqnr_gap_db": sqnr - baseline if sqnr is not None and baseline is not None else None,
            "relative_l2": relative,
            "expected_relative_l2": expected,
            "max_abs": change["max_abs"],
            "cosine_similarity": change["cosine_similarity"],
            **_codes(evidence),
            **_scales(evidence),
            "range_ratio": _ratio(evidence.stats["new"]["abs_max"], evidence.stats["old"]["abs_max"]),
            "worst_row": worst,
            "worst_row_relative_l2": worst_relative,
            "cast": _cast(evidence),
            **_forensics(evidence),
            "exceeds_threshold": relative is not None and relative > threshold,
            "threshold": threshold,
            "scale_source": _scale_source(pair, fitted is not None),
        },
        severity="warning" if relative is not None and relative > threshold else "info",
    )


def expected_relative(pair: Any) -> float | None:
    """‖delta‖ / ‖old‖ that rounding to the coarser side costs, with MARGIN_DB of grace; None where that is not known."""
    baseline = _baseline(pair)
    return float(10 ** ((MARGIN_DB - baseline) / 20)) if baseline is not None else None


def _threshold(expected: float | None, options: Options) -> float:
    """The limit of relative_l2: that of the option, with `--quantization-aware` what must be lost, else the default."""
    if options.precision_loss_threshold is not None:
        return options.precision_loss_threshold
    return expected if options.quantization_aware and expected is not None else DEFAULT_THRESHOLD


def _baseline(pair: Any) -> float | None:
    """The figure of the coarser side, whose rounding is the loss whichever side it is; None when neither has one."""
    known = [baseline_of(entry) for entry in (pair.old, pair.new)]
    return min((figure for figure in known if figure is not None), default=None)


def baseline_of(entry: Any) -> float | None:
    """The figure of an encoding, of integers by their width and group; None where there is none."""
    if entry.encoding in BASELINE_SQNR_DB:
        return BASELINE_SQNR_DB[entry.encoding]
    if ENCODINGS[entry.encoding].decoder and "group_size" in entry.metadata:
        return integer_baseline(entry.metadata, entry.components)
    return None


def _forensics(evidence: Evidence) -> dict[str, bool | int | None]:
    """What a cast did to single elements; counts are None unless new is a narrower float."""
    counts = extra(evidence, "CastCounts") or {}
    narrows = counts.get("cast") is not None
    told = {name: counts.get(name) for name in ("old_is_bf16", "new_is_bf16")}
    return told | {name: counts[name] if narrows else None for name in CAST_COUNTS}


def _scale_source(pair: Any, is_fitted: bool) -> str:
    """Whether the scales of codes are stored with them, were fitted here, or there are none."""
    if is_fitted:
        return "fitted_row"
    return "recorded" if any(ENCODINGS[entry.encoding].decoder for entry in (pair.old, pair.new)) else "none"


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """Totals over the tensors whose encoding differs, and the worst of them."""
    found = [f for f in evidence.findings.get("quantization", []) if f.scope == "tensor"]
    if not found:
        if "quantization" in options.analyses or options.precision_loss_threshold is not None:
            yield Skipped("model", "every tensor is stored in the same encoding on both sides")
        return
    ranked = sorted(found, key=lambda f: (-(f.fields["relative_l2"] or 0.0), f.subject))
    worst = [{"name": f.subject, "sqnr_db": f.fields["sqnr_db"], "relative_l2": f.fields["relative_l2"]} for f in ranked]
    exceeding = sum(f.fields["exceeds_threshold"] for f in found)
    fields = {
        **_totals(evidence, found),
        "tensor_count": len(found),
        "exceeding_count": exceeding,
        "threshold": max(f.fields["threshold"] for f in found),
        "exceeds_threshold": exceeding > 0,
        "worst": worst[: options.top] if options.top else worst,
    }
    yield Finding("model", "model", "measured", fields, severity="warning" if exceeding else "info")


def _totals(evidence: ModelEvidence, found: Sequence[Finding]) -> dict[str, float | None]:
    """What all of these tensors together store, and lost."""
    pairs = {pair.name: pair for pair in evidence.run.pairs if pair.part == WEIGHTS}
    squares = {tensor.name: tensor.old_squares for tensor in evidence.tensors}
    numel = [sum(getattr(pairs[f.subject], side).numel for f in found) for side in ("old", "new")]
    nbytes = [sum(getattr(pairs[f.subject], side).stored_nbytes for f in found) for side in ("old", "new")]
    judged = [(f.fields["relative_l2"], squares[f.subject]) for f in found if f.fields["relative_l2"] is not None]
    whole, lost = total(of_old for _, of_old in judged), total(relative**2 * of_old for relative, of_old in judged)
    relative = finite(sqrt(lost / whole)) if whole > 0 else None
    return {
        "old_bits_per_weight": 8 * nbytes[0] / numel[0] if numel[0] else None,
        "new_bits_per_weight": 8 * nbytes[1] / numel[1] if numel[1] else None,
        "compression_ratio": _ratio(nbytes[0], nbytes[1]),
        "relative_l2": relative,
        "sqnr_db": _decibels(relative) if relative is not None else None,
    }


def extra(evidence: Evidence, kind: str) -> dict[str, Any] | None:
    """The finalized columns of one of the other statistics, by class name; None when it was not computed."""
    return by_kind(evidence.extras, kind)


def by_kind(extras: Mapping[Any, dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """The same among other statistics."""
    return next((columns for statistic, columns in extras.items() if type(statistic).__name__ == kind), None)


def _sizes(pair: Any) -> dict[str, float | None]:
    old, new = pair.old, pair.new
    return {
        "old_bits_per_weight": 8 * old.stored_nbytes / old.numel if old.numel else None,
        "new_bits_per_weight": 8 * new.stored_nbytes / new.numel if new.numel else None,
        "compression_ratio": _ratio(old.stored_nbytes, new.stored_nbytes),
    }


def _codes(evidence: Evidence) -> dict[str, float | None]:
    if (found := _stored(evidence)) is not None:
        return {name: found[name] for name in ("saturation_ratio", "code_entropy_bits")}
    codes = evidence.columns.get("codes")
    entropy, saturated = map(finite, codes[1].tolist()) if codes is not None else (None, None)
    return {"saturation_ratio": saturated, "code_entropy_bits": entropy}


def _scales(evidence: Evidence) -> dict[str, Any]:
    found = _stored(evidence) or {}
    return {name: found.get(name) for name in ("smallest_scale", "largest_scale", "nonfinite_scales", "zero_scales")}


def _stored(evidence: Evidence) -> dict[str, Any] | None:
    """What the codes and scales of the new side show, else those of the old one."""
    found = [columns for statistic, columns in evidence.extras.items() if type(statistic).__name__ == "StoredCodes"]
    return next((columns for columns in reversed(found) if columns["scale_count"] is not None), None)


def _scale_invariant(evidence: Evidence) -> float | None:
    """SQNR after the best factor for each column; null when there are no sums of columns, or nothing is lost."""
    columns = extra(evidence, "ColumnSums")
    if columns is None or not columns["columns"].size:
        return None
    from diffai_stream.statistics.column_sums import ColumnField, fitted_columns

    sums = columns["columns"]
    if evidence.pair.old.encoding in RESCALED:  # the original is the new side: the roles change
        sums = sums[[ColumnField.NEW_SQUARES, ColumnField.OLD_SQUARES, ColumnField.DOT]]
    total, left = float(sums[ColumnField.NEW_SQUARES].sum()), float(fitted_columns(sums).residuals.sum())
    return finite(10 * log10(total / left)) if total > 0 and left > 0 else None


def _ratio(new: float | None, old: float | None) -> float | None:
    return new / old if new is not None and old else None


def _decibels(relative: float) -> float | None:
    return -20 * log10(relative) if relative > 0 else None


def _worst(rows: dict[str, Any] | None, is_fitted: bool) -> tuple[int | None, float | None]:
    """(row, relative_l2) of the row that lost most, after its fitted scale where there is one."""
    if rows is None:
        return None, None
    from diffai_stream.statistics.row_sums import RowField, fitted_scale_residual, worst_row

    sums = rows["rows"].copy()
    if is_fitted:
        sums[:, RowField.DELTA_SQUARES] = fitted_scale_residual(sums).residuals
    found = worst_row(sums)
    return (found.row, finite(found.relative_l2)) if found is not None else (None, None)


def _fitted(evidence: Evidence, rows: dict[str, Any] | None) -> float | None:
    """‖residual‖ / ‖old‖ after the best scale per row, for integer codes that carry no scale; None when not applicable."""
    old, new = (ENCODINGS[entry.encoding].family for entry in (evidence.pair.old, evidence.pair.new))
    if rows is None or (old, new) != ("float", "integer"):
        return None
    from diffai_stream.statistics.row_sums import RowField, fitted_scale_residual

    squares = float(rows["rows"][:, RowField.OLD_SQUARES].sum())
    return finite(sqrt(float(fitted_scale_residual(rows["rows"]).residuals.sum()) / squares)) if squares > 0 else None


def _cast(evidence: Evidence) -> str | None:
    counts = extra(evidence, "CastCounts")
    if agreement(evidence.row)["unequal"] == 0:
        return "exact"
    return counts["cast"] if counts is not None else None
