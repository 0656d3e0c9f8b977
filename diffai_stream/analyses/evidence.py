"""Outcomes of the engine to evidence: the figures of tensors, side by side, and what is kept of them until the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Columns, Digest, Evidence, RunContext, SideSums, StateTensor, Table
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.engine.results import TensorStates
from diffai_stream.options import Options
from diffai_stream.plan.chunks import real_shape
from diffai_stream.plan.pairs import PROFILED, TensorPair
from diffai_stream.statistics.describe import (
    change_stats,
    field,
    finite,
    nonfinite_count,
    numbers,
    shape_stats,
    side_stats,
    sum_of_squares,
)
from diffai_stream.statistics.finishing import QUANTILES, Finished, joined
from diffai_stream.statistics.layout import PAIR_START, VIEW_WIDTH, View
from diffai_stream.statistics.scanner import Runs

SMALLEST_KEY, LARGEST_KEY = 2.0**-133, 2.0**128  # magnitudes that the top 16 bits of a float32 tell from 0 and Inf
PADDED = "padded"  # tables of different lengths, compared over the rows that both have
SIDES = {"old": View.OLD, "new": View.NEW, "delta": View.DELTA}
VIEWS_OF = {  # what a scan by this name measures: view of the scan -> view of the tensor
    "both": {View.OLD: View.OLD, View.NEW: View.NEW, View.DELTA: View.DELTA},
    "old": {View.OLD: View.OLD},
    "new": {View.OLD: View.NEW},
}
EMPTY_VIEW = [0.0] * 5 + [np.inf, -np.inf] + [0.0] * 4
EMPTY_ROW = np.array([*EMPTY_VIEW * 3, *[0.0] * 7, -1.0, -1.0])
PAIR_COLUMNS = ("distances",)

States = dict[str, TensorStates]
Figures = Sequence[dict[str, Any] | None]


class Coarse(NamedTuple):
    """Coarse histograms of one view: the place in the table that each run belongs to, the runs, and their lengths."""

    view: View
    places: NDArray[np.int64]
    runs: Runs
    sizes: NDArray[np.int64]


class _Scans(NamedTuple):
    """The scans of one kind (both, old, new) in a table: their places in it, and all of them as one."""

    kind: str
    places: NDArray[np.int64]
    finished: Finished


def table_of(
    pairs: Sequence[TensorPair], states: Sequence[States], options: Options, run: RunContext, alone: bool = False
) -> Table:
    """The evidence of pairs, side by side. `states` of each by side, "both" when its sides were scanned together, empty when
    not read; `alone` says that there is only one checkpoint."""
    scans = list(_scans(states))
    rows, measured = np.tile(EMPTY_ROW, (len(pairs), 1)), np.zeros((len(pairs), 3), np.bool_)
    for kind, places, finished in scans:
        for source, view in VIEWS_OF[kind].items():
            rows[places, view * VIEW_WIDTH : (view + 1) * VIEW_WIDTH] = finished.rows[:, _columns_of(source)]
            measured[places, view] = True
        if kind == "both":
            rows[places, PAIR_START:] = finished.rows[:, PAIR_START:]
    columns = _placed_columns(scans, len(pairs))
    evidence = _evidence(pairs, states, rows, measured, columns, options, alone)
    return Table(evidence, rows, measured, columns, list(_coarse(scans)), run)


def _columns_of(view: View) -> slice:
    return slice(view * VIEW_WIDTH, (view + 1) * VIEW_WIDTH)


def _scans(states: Sequence[States]) -> Iterator[_Scans]:
    for kind in VIEWS_OF:
        places = [place for place, by_side in enumerate(states) if kind in by_side]
        if places:
            parts = list(_neighbours([states[place][kind] for place in places]))
            yield _Scans(kind, np.array(places), joined(parts))


def _neighbours(states: Sequence[TensorStates]) -> Iterator[Finished]:
    """Runs of tensors that lie side by side in what their task finished."""
    first = 0
    for i in range(1, len(states) + 1):
        if i == len(states) or states[i].finished is not states[first].finished or states[i].place != states[i - 1].place + 1:
            yield states[first].finished.part(states[first].place, states[i - 1].place + 1)
            first = i


def _placed_columns(scans: Sequence[_Scans], count: int) -> dict[str, NDArray[Any]]:
    """The columns of all scans at their places; a side scanned alone has its figures in the first view."""
    columns: dict[str, NDArray[Any]] = {}
    for kind, places, finished in scans:
        for name, values in finished.columns.items():
            nothing = nan if values.dtype.kind == "f" else 0
            column = columns.setdefault(name, np.full((count, *values.shape[1:]), nothing, values.dtype))
            if kind == "both":
                column[places] = values
            elif name not in PAIR_COLUMNS:
                column[places, SIDES[kind]] = values[:, View.OLD]
    return columns


def _coarse(scans: Sequence[_Scans]) -> Iterator[Coarse]:
    for kind, places, finished in scans:
        for source, view in VIEWS_OF[kind].items():
            yield Coarse(view, places, finished.coarse[source], np.diff(finished.coarse_ends[:, source], prepend=0))


def _evidence(
    pairs: Sequence[TensorPair],
    states: Sequence[States],
    rows: NDArray[np.float64],
    measured: NDArray[np.bool_],
    columns: dict[str, NDArray[Any]],
    options: Options,
    alone: bool,
) -> list[Evidence]:
    stats = [figures(rows, columns, view, options, measured[:, view].tolist()) for view in SIDES.values()]
    changes = _changes(pairs, states, rows, columns, stats, options)
    changed = (field(rows, View.PAIR, "changed") > 0).tolist()
    return [
        Evidence(
            pair,
            "unchanged" if alone else status_of(pair, _differs(pair, differs, by_side, options)),
            dict(zip(SIDES, sides, strict=True)),
            change,
            row,
            Columns(columns, place),
            _extras(by_side),
            bool(by_side),
            {side: found.extras for side, found in by_side.items()} if len(by_side) > 1 else {},
        )
        for place, (pair, differs, sides, change, row, by_side) in enumerate(
            zip(pairs, changed, zip(*stats, strict=True), changes, rows, states, strict=True)
        )
    ]


def _extras(states: States) -> dict[Any, dict[str, Any]]:
    """The other statistics of a tensor that was scanned at once; of sides scanned apart there are two of each."""
    return next(iter(states.values())).extras if len(states) == 1 else {}


def _differs(pair: TensorPair, differs: bool, states: States, options: Options) -> bool:
    """Whether elements differ: as they were compared, else by the hashes of the stored bytes."""
    if pair.status == PROFILED:
        assert pair.old is not None
        assert pair.new is not None
        hashes = [_content_hash(states[side]) for side in ("old", "new")]
        return pair.old.encoding != pair.new.encoding or hashes[0] != hashes[1]
    return differs and not (options.quantization_aware and is_cast(states))


def _content_hash(states: TensorStates) -> str | None:
    """The content hash of a side that was looked at alone."""
    found = (columns for statistic, columns in states.extras.items() if type(statistic).__name__ == "ContentHash")
    return next((columns["content_hash"] for columns in found), None)


def is_cast(states: States) -> bool:
    """Whether rounding or truncation to the encoding of new explains every element."""
    extras = states["both"].extras if "both" in states else {}
    found = (columns for statistic, columns in extras.items() if type(statistic).__name__ == "CastCounts")
    return next((columns["cast"] in ("rne", "truncated") for columns in found), False)


def status_of(pair: TensorPair, differs: bool) -> str:
    """What happened to a tensor, some of whose elements may differ."""
    if pair.status == PROFILED:
        return "changed" if differs else "unchanged"
    if pair.status != "paired" or PADDED in pair.match:
        return "reshaped" if pair.status == "paired" else pair.status
    if differs:
        return "changed"
    assert pair.old is not None
    assert pair.new is not None
    return "unchanged" if pair.old.encoding == pair.new.encoding else "retyped"


def figures(
    rows: NDArray[np.float64], columns: Mapping[str, NDArray[Any]], view: View, options: Options, measured: Sequence[bool]
) -> Figures:
    """The figures of one view, with what `--stats` and `--histograms` add; None where it was not measured."""
    stats = side_stats(rows, view)
    if options.stats:
        for told, shape in zip(stats, shape_stats(rows, view), strict=True):
            told.update(shape)
        if "quantiles" in columns:
            _add_quantiles(stats, columns["quantiles"][:, view].tolist())
    if "bin_edges" in columns:
        for told, edges, counts in zip(stats, columns["bin_edges"][:, view], columns["bin_counts"][:, view], strict=True):
            if not np.isnan(edges[0]):
                told["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return [told if is_measured else None for told, is_measured in zip(stats, measured, strict=True)]


def _add_quantiles(stats: Sequence[dict[str, Any]], quantiles: Sequence[Sequence[float]]) -> None:
    for told, values in zip(stats, quantiles, strict=True):
        known = told["mean"] is not None and has_keys(told)
        told["quantiles"] = {name: value + 0.0 if known else None for name, value in zip(QUANTILES, values, strict=True)}


def has_keys(stats: dict[str, Any]) -> bool:
    """Whether the values have float32 keys, from which quantiles and distances follow: doubles can lie beyond them."""
    top = stats["abs_max"]
    return not top or SMALLEST_KEY <= top <= LARGEST_KEY


def _changes(
    pairs: Sequence[TensorPair],
    states: Sequence[States],
    rows: NDArray[np.float64],
    columns: Mapping[str, NDArray[Any]],
    stats: Sequence[Figures],
    options: Options,
) -> Figures:
    """What the records say of each change; None where the sides were not scanned together."""
    changes: list[dict[str, Any] | None] = [None] * len(pairs)
    places = [place for place, by_side in enumerate(states) if "both" in by_side]
    shapes = [real_shape(old) for place in places if (old := pairs[place].old) is not None]
    for place, change in zip(places, change_stats(rows[places], shapes), strict=True):
        changes[place] = change
        if options.quantization_aware and is_cast(states[place]):
            change |= {"changed_count": 0, "changed_ratio": 0.0}
        if options.stats:
            known = all(told is not None and has_keys(told) for told in (stats[0][place], stats[1][place]))
            values = columns["distances"][place].tolist() if known and "distances" in columns else [nan] * 3
            change |= dict(zip(("ks", "js_distance", "wasserstein"), map(finite, values), strict=True))
            extras = states[place]["both"].extras
            ulp = next((found for statistic, found in extras.items() if type(statistic).__name__ == "UlpDistance"), {})
            change |= {name: ulp.get(name) for name in ("ulp_p50", "ulp_p99", "ulp_max")}
    return changes


def allowed_squares(evidence: Evidence, digest: Digest) -> float:
    """The part of Σdelta² that the encodings explain: all of it for a cast, what rounding must lose for codes with scales."""
    from diffai_stream.analyses.quantization import differs, expected_relative

    if not differs(evidence.pair):
        return 0.0
    if digest.status == "retyped":
        return digest.delta_squares
    expected = expected_relative(evidence.pair)
    return digest.old_squares * expected**2 if expected is not None else 0.0


def digests_of(table: Table, options: Options) -> list[Digest]:
    """The scalars that are kept of tensors until the end."""
    rows = table.rows
    squares = np.stack([field(rows, View.PAIR, "old_squares"), sum_of_squares(rows, View.DELTA)], axis=1).tolist()
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        rms = numbers([np.sqrt(sum_of_squares(rows, view)) / np.sqrt(field(rows, view, "n")) for view in (View.OLD, View.NEW)])
    nonfinite = np.stack([nonfinite_count(rows, view) for view in (View.OLD, View.NEW)], axis=1).astype(np.int64).tolist()
    digests = [_digest(*told) for told in zip(table.evidence, rms, squares, nonfinite, strict=True)]
    if not options.quantization_aware:
        return digests
    return [d._replace(allowed_squares=allowed_squares(e, d)) for e, d in zip(table.evidence, digests, strict=True)]


def _digest(evidence: Evidence, rms: Sequence[float | None], squares: Sequence[float], nonfinite: Sequence[int]) -> Digest:
    pair, change = evidence.pair, evidence.change
    hashes = [_hash(evidence, side) for side in ("old", "new")] if evidence.extras else (None, None)
    numel = pair.numel
    compared = numel * ENCODINGS[pair.old.encoding].components if pair.status == "paired" else 0
    return Digest(
        pair.name,
        pair.layer,
        pair.role,
        evidence.status,
        (pair.old or pair.new).shape,
        numel,
        compared,
        old_rms=rms[0],
        new_rms=rms[1],
        old_squares=squares[0],
        delta_squares=squares[1],
        changed_count=change["changed_count"] if change is not None else 0,
        old_nonfinite=nonfinite[0],
        new_nonfinite=nonfinite[1],
        old_hash=hashes[0],
        new_hash=hashes[1],
    )


def state_of(evidence: Evidence) -> StateTensor:
    """What is kept of a tensor beside the weights."""
    row, pair = evidence.row[None], evidence.pair
    old, new = (_sums(row, SIDES[side]) if evidence.stats[side] is not None else None for side in ("old", "new"))
    return StateTensor(pair.name, pair.part, old, new, float(field(row, View.PAIR, "dot")[0]))


def _sums(row: NDArray[np.float64], view: View) -> SideSums:
    count = field(row, view, "n")
    total, squares = count * field(row, view, "mean"), sum_of_squares(row, view)
    return SideSums(int(count[0]), float(total[0]), float(squares[0]), int(nonfinite_count(row, view)[0]))


def _hash(evidence: Evidence, side: str) -> str | None:
    """The content hash of a side, unless it is constant (equal constants say nothing) or tied to another tensor's bytes."""
    stats = evidence.stats[side]
    if stats is None or stats["std"] == 0 or stats["std"] is None or evidence.pair.match == "tied":
        return None
    for statistic, columns in evidence.extras.items():
        if type(statistic).__name__ == "ContentHash" and statistic.view == SIDES[side]:
            return str(columns["content_hash"])
    return None
