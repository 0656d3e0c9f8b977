"""anomaly: weights that look broken, judged by rules with stated thresholds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from math import log, prod
from statistics import median
from typing import Any

from diffai_stream.analyses.base import Digest, Evidence, Finding, Findings, ModelEvidence
from diffai_stream.analyses.quantization import extra
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.options import Options
from diffai_stream.plan.chunks import real_shape
from diffai_stream.plan.naming import natural_key
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.describe import excess_kurtosis
from diffai_stream.statistics.layout import View

SEVERITY = {
    "nonfinite": "critical",
    "exploding": "critical",
    "vanishing": "warning",
    "dead_rows": "warning",
    "constant": "warning",
    "all_zero": "warning",
    "untrained": "warning",
    "heavy_tail": "info",
    "saturated": "warning",
    "duplicate_layer": "warning",
    "constant_offset": "warning",
    "update_spike": "warning",
}
HEAVY_TAIL, HEAVY_TAIL_MIN_NUMEL = 20.0, 1024
SATURATED_RATIO = 0.01
UNTRAINED_KS = 0.005
OFFSET_RATIO = 0.01
ROBUST_Z, MEDIAN_RATIO, NEIGHBOUR_RATIO, MIN_DEPTH = 5.0, 2.0, 10.0, 4
MAD_TO_SIGMA = 1.4826  # of a normal law
DUPLICATE_MIN_NUMEL = 1 << 12
_BLOCK = re.compile(r"\.\d+$")

Judged = tuple[float | None, float | None, int | None, str | None]  # value, threshold, count, detail


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """Row sums and content hashes of matrices, only when the flag asks: they cost as much as the rest."""
    if "anomaly" not in options.analyses or pair.part != WEIGHTS:
        return ()
    from diffai_stream.statistics.content_hash import ContentHash
    from diffai_stream.statistics.row_sums import RowSums

    hashes = (ContentHash(View.OLD), ContentHash(View.NEW)) if pair.numel >= DUPLICATE_MIN_NUMEL else ()
    return (RowSums(), *hashes)


def tensor(evidence: Evidence, options: Options) -> Findings:
    """The kinds that one tensor alone shows."""
    sides = {side: stats for side in ("old", "new") if (stats := evidence.stats[side]) is not None}
    is_weight = evidence.pair.part == WEIGHTS
    for kind, judge in SIDE_RULES.items() if is_weight else STATE_RULES.items():
        judged = {side: found for side, stats in sides.items() if (found := judge(evidence, side, stats)) is not None}
        if judged:
            side = "both" if len(judged) == 2 else next(iter(judged))
            entry = evidence.pair.old or evidence.pair.new
            yield _finding(kind, evidence.pair.name, side, judged.get("new") or judged["old"], entry)
    offset = _constant_offset(evidence) if is_weight else None
    if offset is not None:
        yield _finding("constant_offset", evidence.pair.name, None, offset)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """The kinds that show in comparison with other tensors: over depth, and duplicates."""
    yield from _over_depth(evidence.tensors)
    yield from _update_spikes(evidence.tensors)
    yield from _duplicates(evidence.tensors)


def _finding(kind: str, subject: str, side: str | None, judged: Judged, entry: Any = None, scope: str = "tensor") -> Finding:
    value, threshold, count, detail = judged
    severity = SEVERITY[kind]
    if kind in ("constant", "all_zero") and entry is not None and len(entry.shape) < 2:
        severity = "info"  # fresh biases are zero and fresh norms are one
    fields = {"kind": kind, "side": side, "value": value, "threshold": threshold, "count": count, "detail": detail}
    return Finding(scope, subject, "measured", fields, severity)


# --- one tensor, one side ---------------------------------------------------------------------------------------------


def _real_numel(evidence: Evidence, side: str) -> int:
    """Real numbers of a side: a complex element counts twice, as in the figures."""
    return prod(real_shape(getattr(evidence.pair, side)))


def _nonfinite(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    count = stats["nan_count"] + stats["posinf_count"] + stats["neginf_count"]
    detail = f"{stats['nan_count']} NaN, {stats['posinf_count']} +Inf, {stats['neginf_count']} -Inf"
    return (None, 0.0, count, detail) if count else None


def _constant(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    numel = _real_numel(evidence, side)
    same = numel > 1 and stats["min"] is not None and stats["min"] == stats["max"] != 0
    finite = not (stats["nan_count"] or stats["posinf_count"] or stats["neginf_count"])
    return (stats["min"], None, numel, "every element is this value") if same and finite else None


def _all_zero(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    numel = _real_numel(evidence, side)
    return (0.0, None, numel, None) if numel > 1 and stats["zero_count"] >= numel else None


def _heavy_tail(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    entry = getattr(evidence.pair, side)
    row = evidence.row[side] if isinstance(evidence.row, dict) else evidence.row
    if row is None or entry.numel < HEAVY_TAIL_MIN_NUMEL or ENCODINGS[entry.encoding].family != "float":
        return None
    kurtosis = excess_kurtosis(row, View[side.upper()])
    return (kurtosis, HEAVY_TAIL, None, "excess kurtosis") if kurtosis is not None and kurtosis > HEAVY_TAIL else None


def _saturated(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    codes, entry = evidence.columns.get("codes"), getattr(evidence.pair, side)
    ratio = codes[int(side == "new")][1] if codes is not None else None
    if ratio is None or ENCODINGS[entry.encoding].family == "bool":
        return None
    count, numel = round(ratio * _real_numel(evidence, side)), _real_numel(evidence, side)
    rows = prod(entry.shape[:-1])  # a scale by the row's largest value puts one code of each row at the limit
    if count - rows <= SATURATED_RATIO * numel:
        return None
    return ratio, SATURATED_RATIO, count, f"codes at the limits of {entry.encoding}"


def _untrained(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    laws = evidence.columns.get("laws")
    law = laws[int(side == "new")] if laws is not None else None
    if law is None or law[1] >= UNTRAINED_KS:
        return None
    return law[1], UNTRAINED_KS, None, f"Kolmogorov-Smirnov distance to {law[0]}, an initial law"


def _dead_rows(evidence: Evidence, side: str, stats: dict[str, Any]) -> Judged | None:
    rows = extra(evidence, "RowSums")
    if rows is None:
        return None
    from diffai_stream.statistics.row_sums import DEAD_RATIO, dead_rows

    dead = dead_rows(rows["rows"], View[side.upper()])
    count = len(dead)
    shown = ", ".join(map(str, dead[:8])) + (", ..." if count > 8 else "")
    return (None, DEAD_RATIO, count, f"rows with a norm below {DEAD_RATIO:g} of the median: {shown}") if count else None


SIDE_RULES: dict[str, Callable[[Evidence, str, dict[str, Any]], Judged | None]] = {
    "nonfinite": _nonfinite,
    "constant": _constant,
    "all_zero": _all_zero,
    "heavy_tail": _heavy_tail,
    "saturated": _saturated,
    "untrained": _untrained,
    "dead_rows": _dead_rows,
}
STATE_RULES = {"nonfinite": _nonfinite}
"""Of optimizer state, averages and gradients only what is broken for certain."""


def _constant_offset(evidence: Evidence) -> Judged | None:
    delta = evidence.stats["delta"]
    if delta is None or delta["mean"] is None or delta["mean"] == 0 or prod(evidence.pair.old.shape) < 2:
        return None
    ratio = delta["std"] / abs(delta["mean"]) if delta["std"] is not None else None
    if ratio is None or ratio >= OFFSET_RATIO:
        return None
    return ratio, OFFSET_RATIO, None, f"every element moved by about {delta['mean']:.6g} (std over |mean| of the delta)"


# --- over depth -------------------------------------------------------------------------------------------------------


def robust_scores(values: list[float]) -> list[float]:
    """(x - median) / (1.4826·MAD) of each value; infinite where the MAD is 0 and the value differs."""
    middle = median(values)
    spread = MAD_TO_SIGMA * median(abs(v - middle) for v in values)
    return [(v - middle) / spread if spread > 0 else (0.0 if v == middle else float("inf") * (v - middle)) for v in values]


def _over_depth(tensors: Iterable[Digest]) -> Iterator[Finding]:
    """exploding and vanishing: the RMS of a tensor against those of its role over depth."""
    roles: dict[tuple[str, str], list[tuple[Digest, float]]] = {}
    for digest in tensors:
        for side, rms in (("old", digest.old_rms), ("new", digest.new_rms)):
            if rms and _BLOCK.search(digest.layer):
                roles.setdefault((digest.role, side), []).append((digest, rms))
    found: dict[tuple[str, str], dict[str, Judged]] = {}
    order: dict[tuple[str, str], Digest] = {}
    for (_, side), members in roles.items():
        members.sort(key=lambda member: natural_key(member[0].name))
        for kind, digest, judged in _outliers(members):
            found.setdefault((digest.name, kind), {})[side] = judged
            order[digest.name, kind] = digest
    for name, kind in sorted(found, key=lambda key: natural_key(key[0])):
        judged_sides = found[name, kind]
        side = "both" if len(judged_sides) == 2 else next(iter(judged_sides))
        yield _finding(kind, name, side, judged_sides.get("new") or judged_sides["old"])


def _outliers(members: list[tuple[Digest, float]]) -> Iterator[tuple[str, Digest, Judged]]:
    rms = [value for _, value in members]
    scores = robust_scores([log(value) for value in rms]) if len(rms) >= MIN_DEPTH else [0.0] * len(rms)
    middle = median(rms)
    for index, (digest, value) in enumerate(members):
        ratio = value / middle
        if abs(scores[index]) > ROBUST_Z and max(ratio, 1 / ratio) > MEDIAN_RATIO:
            kind = "exploding" if ratio > 1 else "vanishing"
            yield kind, digest, (ratio, MEDIAN_RATIO, None, f"RMS over the median of {len(rms)} tensors of role {digest.role}")
            continue
        nearby = _neighbour_ratio(rms, index)
        if nearby > NEIGHBOUR_RATIO or nearby < 1 / NEIGHBOUR_RATIO:
            kind = "exploding" if nearby > 1 else "vanishing"
            yield kind, digest, (nearby, NEIGHBOUR_RATIO, None, f"RMS over that of its neighbours of role {digest.role}")


def _neighbour_ratio(rms: list[float], index: int) -> float:
    """RMS over that of the neighbours, where it is an outlier against each of them; 1 without neighbours."""
    around = [rms[i] for i in (index - 1, index + 1) if 0 <= i < len(rms)]
    if not around or (len(rms) == 2 and rms[index] == min(rms)):
        return 1.0
    ratios = [rms[index] / value for value in around]
    return min(ratios) if min(ratios) > 1 else max(ratios) if max(ratios) < 1 else 1.0


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
    middle, scores = median(changes.values()), robust_scores(list(changes.values()))
    for (name, value), score in zip(changes.items(), scores, strict=True):
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
