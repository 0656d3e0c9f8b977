"""Finished tensors: state rows and histograms turned into the columns that analyses and records read.

Vectorized over the tensors of a batch, because one at a time would cost more than the scan of a small tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.entries import bin_run, coarsen, codes_of_runs, distances_of_runs, law_distance, quantiles_of_runs
from diffai_stream.statistics.joint import completed
from diffai_stream.statistics.layout import View, column
from diffai_stream.statistics.scanner import Ask, Domain, Part, Run, Runs, complete_rows, key_domain

QUANTILES = {
    "p001": 0.001,
    "p01": 0.01,
    "p05": 0.05,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
}
PROBABILITIES = np.array(list(QUANTILES.values()))
BINS = 128
LAW_MIN_NUMEL = 4096  # below this a Kolmogorov-Smirnov distance of 0.005 says nothing
LAW_TOLERANCE = 0.02
SMALL_COUNTS = 64  # of codes, told by their entropy once a tensor
LAW_KINDS, DEVIATIONS = ("normal", "uniform"), ("0.02", "1/sqrt(fan_in)", "sqrt(2/(fan_in+fan_out))")
LAWS = tuple(sorted(f"{kind}(0, {name})" for kind in LAW_KINDS for name in DEVIATIONS))
SIDES = (View.OLD, View.NEW, View.DELTA)


class Wants(NamedTuple):
    """Which columns beyond the state rows are made: quantiles, distances between the sides, 128 bins, initial laws, codes."""

    quantiles: bool = False
    distances: bool = False
    bins: bool = False
    laws: bool = False
    codes: bool = False


class Finished(NamedTuple):
    """S finished tensors: rows[S, ROW_WIDTH], coarse runs of the three views with their ends, named columns of length S.

    Columns: quantiles[S, 3 views, 9], distances[S, 3], bin_edges[S, 3 views, 129], bin_counts[S, 3 views, 128],
    laws[S, 2 sides, 2] (number in LAWS, KS distance), codes[S, 2 sides, 2] (entropy in bits, saturated ratio). NaN stands
    for what does not apply.
    """

    rows: NDArray[np.float64]
    coarse: tuple[Runs, Runs, Runs]
    coarse_ends: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    def part(self, first: int, last: int) -> Finished:
        """Tensors [first, last) of these."""
        starts, ends = self.coarse_ends[first - 1] if first else np.zeros(3, np.int64), self.coarse_ends[first:last]
        cuts = [slice(start, end) for start, end in zip(starts, ends[-1], strict=True)]
        runs = [Runs(run.keys[cut], run.counts[cut]) for run, cut in zip(self.coarse, cuts, strict=True)]
        columns = {name: values[first:last] for name, values in self.columns.items()}
        return Finished(self.rows[first:last], (runs[0], runs[1], runs[2]), ends - starts, columns)


def joined(parts: Sequence[Finished]) -> Finished:
    """Finished tensors of several batches as one, in order; there is at least one part."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([np.zeros(3, np.int64), *(part.coarse_ends[-1] for part in parts[:-1])], axis=0)
    runs = [Runs(*map(np.concatenate, zip(*(part.coarse[view] for part in parts), strict=True))) for view in range(3)]
    ends = np.concatenate([part.coarse_ends + offset for part, offset in zip(parts, offsets, strict=True)])
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    return Finished(np.concatenate([part.rows for part in parts]), (runs[0], runs[1], runs[2]), ends, columns)


def finish(part: Part, domains: tuple[Domain, Domain], shapes: list[tuple[int, ...]], ask: Ask, wants: Wants) -> Finished:
    """Complete the rows of whole tensors and make the columns asked for."""
    part = completed(part, domains, ask)
    complete_rows(part, domains, ask)
    coarse, ends = _coarse(part, domains)
    columns: dict[str, NDArray[Any]] = {}
    if ask.histograms:
        all_domains = (*domains, key_domain())
        if wants.quantiles:
            columns["quantiles"] = np.stack([_quantiles(part, view, all_domains[view]) for view in SIDES], axis=1)
        if wants.distances:
            columns["distances"] = _distances(part, domains)
        if wants.bins:
            columns["bin_edges"], columns["bin_counts"] = _bins(part, all_domains)
        if wants.laws:
            columns["laws"] = np.stack([_laws(part, view, domains[view], shapes) for view in (0, 1)], axis=1)
        if wants.codes:
            columns["codes"] = np.stack([_codes(part, view, domains[view]) for view in (0, 1)], axis=1)
    return Finished(part.rows, coarse, ends, columns)


def _coarse(part: Part, domains: tuple[Domain, Domain]) -> tuple[tuple[Runs, Runs, Runs], NDArray[np.int64]]:
    runs, ends = [], np.zeros((len(part.rows), 3), np.int64)
    for view, domain in enumerate((*domains, key_domain())):
        source = part.runs[view]
        keys, counts = np.empty(source.keys.size, np.uint16), np.empty(source.keys.size, np.int64)
        column_ends = np.zeros(len(part.rows), np.int64)
        coarsen(part.ends, view, source.keys, source.counts, domain.values, domain.exact, keys, counts, column_ends)
        used = int(column_ends[-1]) if column_ends.size else 0
        runs.append(Runs(keys[:used].copy(), counts[:used].copy()))
        ends[:, view] = column_ends
    return (runs[0], runs[1], runs[2]), ends


def _quantiles(part: Part, view: int, domain: Domain) -> NDArray[np.float64]:
    out = np.empty((len(part.rows), PROBABILITIES.size))
    runs = part.runs[view]
    quantiles_of_runs(part.ends, int(view), runs.keys, runs.counts, domain.values, domain.exact, part.rows, PROBABILITIES, out)
    return out


def _distances(part: Part, domains: tuple[Domain, Domain]) -> NDArray[np.float64]:
    """float64[S, 3]: KS, JS, W1. Sides of different encodings are compared by their float32 keys."""
    out = np.empty((len(part.rows), 3))
    (old, new), same = domains, domains[0].name == domains[1].name
    a, b = part.runs[0], part.runs[1]
    distances_of_runs(part.ends, a.keys, a.counts, old.values, b.keys, b.counts, new.values, same, out)
    return out


def _bins(part: Part, domains: Sequence[Domain]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(edges[S, 3, 129], counts[S, 3, 128]) of equal width from min to max, symmetric for the delta; NaN if none is finite."""
    edges, counts = np.full((len(part.rows), 3, BINS + 1), nan), np.zeros((len(part.rows), 3, BINS), np.int64)
    share = np.arange(BINS + 1) / BINS
    for segment, row in enumerate(part.rows):
        for view, domain in zip(SIDES, domains, strict=True):
            low, high = row[column(view, "min")], row[column(view, "max")]
            if not low <= high:
                continue
            if view == View.DELTA:
                low, high = -max(-low, high), max(-low, high)
            run = part.run(segment, int(view))
            bin_run(run.keys, run.counts, domain.values, domain.exact, float(low), float(high), counts[segment, view])
            edges[segment, view] = low * (1 - share) + high * share + 0.0  # not high - low, which can overflow
    return edges, counts


def initial_deviations(shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Standard deviations of the usual initial laws of a weight of this shape (out, in, ...): those of DEVIATIONS."""
    receptive = prod(shape[2:])
    fan_in, fan_out = shape[1] * receptive, shape[0] * receptive
    return 0.02, 1 / sqrt(fan_in), sqrt(2 / (fan_in + fan_out))


def _laws(part: Part, view: int, domain: Domain, shapes: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """(number, KS distance)[S, 2] of the nearest initial law whose deviation fits the RMS within 2 %; NaN for none."""
    n, mean, m2 = (part.rows[:, column(View(view), field)] for field in ("n", "mean", "m2"))
    with np.errstate(over="ignore"):  # float64 beyond 1e154
        rms = np.sqrt(mean * mean + m2 / np.maximum(n, 1))
    out = np.full((len(part.rows), 2), nan)
    for s in np.flatnonzero(n >= LAW_MIN_NUMEL).tolist():
        if len(shapes[s]) > 1:
            out[s] = _nearest_law(part.run(s, view), domain, float(rms[s]), shapes[s])
    return out


def _nearest_law(run: Run, domain: Domain, rms: float, shape: tuple[int, ...]) -> tuple[float, float]:
    found = [
        (_distance_to_law(run, domain, sigma, kind == "uniform"), LAWS.index(f"{kind}(0, {name})"))
        for name, sigma in zip(DEVIATIONS, initial_deviations(shape), strict=True)
        if abs(rms / sigma - 1) <= LAW_TOLERANCE
        for kind in LAW_KINDS
    ]
    distance, number = min(found, default=(nan, nan))
    return number, distance


def _distance_to_law(run: Run, domain: Domain, sigma: float, uniform: bool) -> float:
    out = np.empty(1)
    law_distance(run.keys, run.counts, domain.values, domain.exact, float(sigma), uniform, out)
    return float(out[0])


def _codes(part: Part, view: int, domain: Domain) -> NDArray[np.float64]:
    """(entropy in bits, saturated ratio)[S, 2] of the codes of a side; NaN where codes are not counted exactly."""
    out = np.full((len(part.rows), 2), nan)
    if domain.exact:
        runs = part.runs[view]
        limits = map(float, domain.limits)
        codes_of_runs(part.ends, view, runs.keys, runs.counts, domain.values, *limits, np.empty(SMALL_COUNTS), out)
    return out
