"""anomaly: weights that look broken, judged by rules with stated thresholds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Digest, Evidence, Finding, ModelEvidence, PlacedFindings, Table
from diffai_stream.analyses.quantization import by_kind, extra, stored_codes
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import TensorEntry
from diffai_stream.options import Options
from diffai_stream.plan.naming import natural_key
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.describe import Column, excess_kurtosis, field, nonfinite_count, numels
from diffai_stream.statistics.finishing import LAWS
from diffai_stream.statistics.layout import View

SEVERITY = {
    "nonfinite": "critical",
    "nonfinite_scale": "critical",
    "exploding": "critical",
    "vanishing": "warning",
    "dead_rows": "warning",
    "dead_columns": "warning",
    "constant": "warning",
    "all_zero": "warning",
    "untrained": "warning",
    "heavy_tail": "info",
    "saturated": "warning",
    "duplicate_layer": "warning",
    "constant_offset": "warning",
    "update_spike": "warning",
    "unsafe_pickle": "critical",  # a warning where no name can run what it is given
}
HEAVY_TAIL, HEAVY_TAIL_MIN_NUMEL = 20.0, 1024
SATURATED_RATIO = 0.01
SATURATED_MIN_BITS = 8  # of fewer every code is often at a limit
SATURATED_MIN_ENTROPY = 2.0  # bits: integers of fewer are flags, masks and classes, not a range that was cut
UNTRAINED_KS = 0.005
OFFSET_RATIO = 0.01
ROBUST_Z, MEDIAN_RATIO, NEIGHBOUR_RATIO, MIN_DEPTH = 5.0, 2.0, 10.0, 4
MAD_TO_SIGMA = 1.4826  # of a normal law
DUPLICATE_MIN_NUMEL = 1 << 12
STATE_KINDS = ("nonfinite",)  # of optimizer state, averages and gradients only what is broken for certain
_BLOCK = re.compile(r"\.\d+$")

SIDES = (View.OLD, View.NEW)

Judged = tuple[float | None, float | None, int | None, str | None]  # value, threshold, count, detail
Verdicts = Iterator[tuple[int, Judged]]  # with the place of their tensor in the table


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """Sums of rows and columns and hashes of matrices, only when the flag asks: they cost as much as the rest."""
    if "anomaly" not in options.analyses or pair.part != WEIGHTS:
        return ()
    from diffai_stream.statistics.column_sums import ColumnSums
    from diffai_stream.statistics.content_hash import ContentHash
    from diffai_stream.statistics.row_sums import RowSums

    hashes = (ContentHash(View.OLD), ContentHash(View.NEW)) if pair.numel >= DUPLICATE_MIN_NUMEL else ()
    columns = (ColumnSums(),) if len(pair.entries[0].shape) == 2 else ()
    return (RowSums(), *columns, *hashes, *stored_codes(pair))


def tensor(table: Table, options: Options) -> PlacedFindings:
    """The kinds that one tensor alone shows, by the columns of many: only tensors that trip a rule cost anything."""
    weights = np.array([evidence.pair.part == WEIGHTS for evidence in table.evidence], np.bool_)
    for kind, rule in SIDE_RULES.items():
        judged = table.measured & (weights | (kind in STATE_KINDS))[:, None]
        old, new = ({place: found for place, found in rule(table, view) if judged[place, view]} for view in SIDES)
        for place in sorted(old.keys() | new.keys()):
            side = "both" if place in old and place in new else "new" if place in new else "old"
            pair = table.evidence[place].pair
            yield place, _finding(kind, pair.name, side, new.get(place) or old[place], pair.old or pair.new)
    for place, view, judged_scales in _nonfinite_scales(table):
        side = "new" if view == View.NEW else "old"
        yield place, _finding("nonfinite_scale", table.evidence[place].pair.name, side, judged_scales)
    for place, offset in _constant_offset(table):
        if weights[place]:
            yield place, _finding("constant_offset", table.evidence[place].pair.name, None, offset)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """The kinds that show in comparison with other tensors: over depth, and duplicates."""
    yield from _over_depth(evidence.tensors)
    yield from _update_spikes(evidence.tensors)
    yield from _duplicates(evidence.tensors)
    if "similarity_matrix" in options.analyses:
        yield from _near_duplicates(evidence)


def _finding(kind: str, subject: str, side: str | None, judged: Judged, entry: Any = None, scope: str = "tensor") -> Finding:
    value, threshold, count, detail = judged
    severity = SEVERITY[kind]
    if kind in ("constant", "all_zero") and entry is not None and len(entry.shape) < 2:
        severity = "info"  # fresh biases are zero and fresh norms are one
    fields = {"kind": kind, "side": side, "value": value, "threshold": threshold, "count": count, "detail": detail}
    return Finding(scope, subject, "measured", fields, severity)


# --- one tensor, one side ---------------------------------------------------------------------------------------------


def _tripped(condition: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(condition).tolist()


def _with_extras(table: Table) -> list[tuple[int, Evidence]]:
    """The tensors with other statistics, and their places: by default there are none."""
    return [(place, evidence) for place, evidence in enumerate(table.evidence) if evidence.extras or evidence.apart]


def _entry(table: Table, place: int, view: View) -> TensorEntry:
    pair = table.evidence[place].pair
    entry: TensorEntry = pair.new if view == View.NEW and pair.new is not None else pair.old
    return entry


def _nonfinite(table: Table, view: View) -> Verdicts:
    counts = nonfinite_count(table.rows, view)
    for place in _tripped(counts > 0):
        nan, posinf, neginf = (int(field(table.rows, view, name)[place]) for name in ("nan", "posinf", "neginf"))
        yield place, (None, 0.0, int(counts[place]), f"{nan} NaN, {posinf} +Inf, {neginf} -Inf")


def _nonfinite_scales(table: Table) -> Iterator[tuple[int, View, Judged]]:
    """Scales of quantized codes that are NaN or infinite: each makes all the weights under it so."""
    for place, evidence in _with_extras(table):
        for statistic, columns in evidence.extras.items():
            if type(statistic).__name__ == "StoredCodes" and columns["nonfinite_scales"]:
                count = columns["nonfinite_scales"]
                yield place, statistic.view, (None, 0.0, count, f"of {columns['scale_count']:,} recorded scales")


def _constant(table: Table, view: View) -> Verdicts:
    low, n = field(table.rows, view, "min"), field(table.rows, view, "n")
    same = (low == field(table.rows, view, "max")) & (low != 0)
    for place in _tripped(same & (n > 1) & (nonfinite_count(table.rows, view) == 0)):
        yield place, (float(low[place]), None, int(n[place]), "every element is this value")


def _all_zero(table: Table, view: View) -> Verdicts:
    numel = numels(table.rows, view)
    for place in _tripped((numel > 1) & (field(table.rows, view, "zero") >= numel)):
        yield place, (0.0, None, int(numel[place]), None)


def _heavy_tail(table: Table, view: View) -> Verdicts:
    kurtosis = excess_kurtosis(table.rows, view)
    for place in _tripped((kurtosis > HEAVY_TAIL) & np.isfinite(kurtosis)):
        entry = _entry(table, place, view)
        if entry.numel >= HEAVY_TAIL_MIN_NUMEL and ENCODINGS[entry.encoding].family == "float":
            yield place, (float(kurtosis[place]), HEAVY_TAIL, None, "excess kurtosis")


def _saturated(table: Table, view: View) -> Verdicts:
    if "codes" not in table.columns:
        return
    ratios, numel = table.columns["codes"][:, view, 1], numels(table.rows, view)
    for place in _tripped(ratios > SATURATED_RATIO):
        entry = _entry(table, place, view)
        count, rows = round(float(ratios[place]) * int(numel[place])), prod(entry.shape[:-1])
        if _is_class(table, place, view):
            continue
        if entry.encoding.startswith("U"):  # zeros are at a limit without having been cut
            count -= int(field(table.rows, view, "zero")[place])
        # a scale by the row's largest value puts one code of each row at the limit
        if count - rows > SATURATED_RATIO * int(numel[place]):
            ratio = count / int(numel[place])
            yield place, (ratio, SATURATED_RATIO, count, f"codes at the limits of {entry.encoding}")


def _is_class(table: Table, place: int, view: View) -> bool:
    """Whether numbers are flags or classes rather than a range: booleans, narrow integers, and those of a few values."""
    encoding = ENCODINGS[_entry(table, place, view).encoding]
    if encoding.family == "float":
        return False
    entropy = float(table.columns["codes"][place, view, 0])
    return encoding.family == "bool" or encoding.bits < SATURATED_MIN_BITS or not entropy >= SATURATED_MIN_ENTROPY


def _untrained(table: Table, view: View) -> Verdicts:
    if "laws" not in table.columns:
        return
    laws = table.columns["laws"][:, view]
    for place in _tripped(laws[:, 1] < UNTRAINED_KS):
        number, distance = laws[place].tolist()
        detail = f"Kolmogorov-Smirnov distance to {LAWS[int(number)]}, an initial law"
        yield place, (distance, UNTRAINED_KS, None, detail)


def _dead_rows(table: Table, view: View) -> Verdicts:
    for place, evidence in _with_extras(table):
        norms = _norms_of_rows(evidence, view)
        if norms is None:
            continue
        from diffai_stream.statistics.row_sums import DEAD_RATIO, dead_rows

        dead = dead_rows(norms)
        if len(dead):
            shown = ", ".join(map(str, dead[:8])) + (", ..." if len(dead) > 8 else "")
            detail = f"rows with a norm below {DEAD_RATIO:g} of the median: {shown}"
            yield place, (None, DEAD_RATIO, len(dead), detail)


def _norms_of_rows(evidence: Evidence, view: View) -> Any:
    """The norms of the rows of a side, if they are there for both sides."""
    from diffai_stream.statistics.row_sums import row_norms

    if (sums := extra(evidence, "RowSums")) is not None:
        return row_norms(sums["rows"], view)
    if not all(by_kind(side, "RowSums") or by_kind(side, "RowNorms") for side in evidence.apart.values()):
        return None
    side = evidence.apart.get("new" if view == View.NEW else "old", {})
    sums, norms = by_kind(side, "RowSums"), by_kind(side, "RowNorms")
    return row_norms(sums["rows"], View.OLD) if sums is not None else norms["row_norms"] if norms is not None else None


def _dead_columns(table: Table, view: View) -> Verdicts:
    broken = nonfinite_count(table.rows, View.OLD) + nonfinite_count(table.rows, View.NEW)
    for place, evidence in _with_extras(table):
        columns = extra(evidence, "ColumnSums")
        if columns is None or not columns["columns"].size:
            continue
        from diffai_stream.statistics.column_sums import ColumnField
        from diffai_stream.statistics.row_sums import DEAD_RATIO

        squares = columns["columns"][[ColumnField.OLD_SQUARES, ColumnField.NEW_SQUARES]]
        norms = np.sqrt(squares[view])
        judged = squares.any(axis=0) | (broken[place] == 0)  # one without a finite element is no dead one
        dead = np.flatnonzero(judged & (norms < DEAD_RATIO * np.median(norms[judged]))) if judged.any() else ()
        if len(dead):
            shown = ", ".join(map(str, dead[:8])) + (", ..." if len(dead) > 8 else "")
            detail = f"columns with a norm below {DEAD_RATIO:g} of the median: {shown}"
            yield place, (None, DEAD_RATIO, len(dead), detail)


SIDE_RULES: dict[str, Callable[[Table, View], Verdicts]] = {
    "nonfinite": _nonfinite,
    "constant": _constant,
    "all_zero": _all_zero,
    "heavy_tail": _heavy_tail,
    "saturated": _saturated,
    "untrained": _untrained,
    "dead_rows": _dead_rows,
    "dead_columns": _dead_columns,
}


def _constant_offset(table: Table) -> Verdicts:
    n, mean, m2 = (field(table.rows, View.DELTA, name) for name in ("n", "mean", "m2"))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        ratio = np.sqrt(m2 / n) / np.abs(mean)
    for place in _tripped((ratio < OFFSET_RATIO) & np.isfinite(mean)):
        if table.evidence[place].pair.old.numel > 1:
            detail = f"every element moved by about {float(mean[place]):.6g} (std over |mean| of the delta)"
            yield place, (float(ratio[place]), OFFSET_RATIO, None, detail)


# --- over depth -------------------------------------------------------------------------------------------------------


def robust_scores(values: Column) -> Column:
    """(x - median) / (1.4826·MAD) of each value; where the MAD is 0 infinite, or NaN for the median itself."""
    middle = _median(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values - middle) / (MAD_TO_SIGMA * _median(np.abs(values - middle)))


def _median(values: Column) -> float:
    in_order = np.sort(values)
    return float(in_order[(values.size - 1) // 2] + in_order[values.size // 2]) / 2


def _over_depth(tensors: Iterable[Digest]) -> Iterator[Finding]:
    """exploding and vanishing: the RMS of a tensor against those of its role over depth."""
    roles: dict[tuple[str, str], list[tuple[Digest, float]]] = {}
    for digest in sorted([d for d in tensors if _BLOCK.search(d.layer)], key=lambda d: natural_key(d.name)):
        for side, rms in (("old", digest.old_rms), ("new", digest.new_rms)):
            if rms:
                roles.setdefault((digest.role, side), []).append((digest, rms))
    found: dict[tuple[str, str], dict[str, Judged]] = {}
    for (_, side), members in roles.items():
        for kind, digest, judged in _outliers(members):
            found.setdefault((digest.name, kind), {})[side] = judged
    for name, kind in sorted(found, key=lambda key: natural_key(key[0])):
        judged_sides = found[name, kind]
        side = "both" if len(judged_sides) == 2 else next(iter(judged_sides))
        yield _finding(kind, name, side, judged_sides.get("new") or judged_sides["old"])


def _outliers(members: list[tuple[Digest, float]]) -> Iterator[tuple[str, Digest, Judged]]:
    """The tensors of a role, in order of depth, that stand out from all of them, or else from their neighbours."""
    if len(members) < 2:
        return
    rms = np.array([value for _, value in members])
    with np.errstate(over="ignore"):
        ratios, nearby = rms / _median(rms), neighbour_ratios(rms)
    scores = robust_scores(np.log(rms)) if rms.size >= MIN_DEPTH else np.zeros(rms.size)
    apart = (np.abs(scores) > ROBUST_Z) & (np.maximum(ratios, 1 / ratios) > MEDIAN_RATIO)
    for index in _tripped(apart | (nearby > NEIGHBOUR_RATIO) | (nearby < 1 / NEIGHBOUR_RATIO)):
        digest = members[index][0]
        if apart[index]:
            told = f"the median of {len(members)} tensors of role {digest.role}"
            ratio, threshold = float(ratios[index]), MEDIAN_RATIO
        else:
            told = f"that of its neighbours of role {digest.role}"
            ratio, threshold = float(nearby[index]), NEIGHBOUR_RATIO
        yield "exploding" if ratio > 1 else "vanishing", digest, (ratio, threshold, None, f"RMS over {told}")


def neighbour_ratios(rms: Column) -> Column:
    """RMS over that of the neighbours, where it is an outlier against each of them, else 1; of two only the larger counts."""
    before, after = np.full(rms.size, np.nan), np.full(rms.size, np.nan)
    before[1:], after[:-1] = rms[1:] / rms[:-1], rms[:-1] / rms[1:]
    least, most = np.fmin(before, after), np.fmax(before, after)
    ratios = np.where(least > 1, least, np.where(most < 1, most, 1.0))
    return np.maximum(ratios, 1.0) if rms.size == 2 else ratios


def _update_spikes(tensors: Iterable[Digest]) -> Iterator[Finding]:
    """update_spike: a block whose relative change stands out over the blocks."""
    from diffai_stream.analyses.layer_impact import relative

    layers: dict[str, list[Digest]] = {}
    for digest in tensors:
        if _BLOCK.search(digest.layer) and digest.status in ("changed", "unchanged", "retyped"):
            layers.setdefault(digest.layer, []).append(digest)
    changes = {name: value for name, members in layers.items() if (value := relative(members)) is not None}
    if len(changes) < MIN_DEPTH:
        return
    values = np.array(list(changes.values()))
    middle, scores = _median(values), robust_scores(values)
    for (name, value), score in zip(changes.items(), scores.tolist(), strict=True):
        if score > ROBUST_Z and value > MEDIAN_RATIO * middle > 0:
            detail = f"relative_l2 {value:.4g} over the median {middle:.4g} of {len(changes)} layers"
            yield _finding("update_spike", name, None, (value / middle, MEDIAN_RATIO, None, detail), scope="layer")


def _duplicates(tensors: Iterable[Digest]) -> Iterator[Finding]:
    """duplicate_layer: different tensors of one side with the same bytes (only with --anomaly-detection, which hashes)."""
    seen: dict[tuple[str, str], list[str]] = {}
    for digest in tensors:
        for side, value in (("old", digest.old_hash), ("new", digest.new_hash)):
            if value is not None and len(digest.shape) >= 2:
                seen.setdefault((side, value), []).append(digest.name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for (side, _), names in seen.items():
        if len(names) > 1:
            groups.setdefault(tuple(names), []).append(side)
    for alike, sides in groups.items():
        side = "both" if len(sides) == 2 else sides[0]
        shown = ", ".join(alike[1:9]) + (", ..." if len(alike) > 9 else "")
        yield _finding("duplicate_layer", alike[0], side, (None, None, len(alike), f"same content as {shown}"))


def _near_duplicates(evidence: ModelEvidence) -> Iterator[Finding]:
    """duplicate_layer: tensors of one role and side that are alike without being equal, by their sketches."""
    from diffai_stream.analyses.representation.similarity import DUPLICATE_BELOW, duplicates

    constant = {f.subject for f in evidence.findings.get("anomaly", ()) if f.fields["kind"] in ("constant", "all_zero")}
    hashes = {d.name: d.old_hash for d in evidence.tensors}, {d.name: d.new_hash for d in evidence.tensors}
    for side, first, second, distance in duplicates(evidence, constant):
        if hashes[side][first] is None or hashes[side][first] != hashes[side][second]:
            judged = (distance, DUPLICATE_BELOW, 2, f"1 - cosine with {second}, from sketches")
            yield _finding("duplicate_layer", first, ("old", "new")[side], judged)
