"""Charts of a comparison as SVG, drawn by Vega-Lite from what is kept of the records; each says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from diffai_stream.errors import MissingExtraError
from diffai_stream.report.document import cells
from diffai_stream.report.document.blocks import Block, Chart
from diffai_stream.report.document.collected import BINS_PER_DECADE, Magnitudes, PairRecords, QuantizationBook, RunRecords
from diffai_stream.report.figures import escaped, plural
from diffai_stream.report.layers_kept import LayerList, ordered_roles
from diffai_stream.report.records import Record

_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v5.json"
_CONFIG: Final = {"view": {"stroke": None}, "font": "sans-serif", "axis": {"grid": False, "labelLimit": 220}}
_SCHEME: Final = "yelloworangered"
_WIDTH: Final = 640
Rows = Sequence[Mapping[str, Any]]


def require() -> Any:
    """The module that draws. Raises MissingExtraError."""
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError("charts need vl-convert-python: pip install 'diffai-stream[charts]'") from error
    return vl_convert


def charts(run: RunRecords) -> dict[int, list[Block]]:
    """The charts of each pair; those that would be empty are left out. Raises MissingExtraError."""
    return {place: list(_of_pair(pair)) for place, pair in enumerate(run.pairs)}


def _of_pair(pair: PairRecords) -> Iterator[Block]:
    yield from _heat_map(pair.layers)
    yield from _histogram(pair.magnitudes)
    yield from _sqnr(pair.quantization)
    spectrum = pair.finding("spectrum")
    if spectrum is not None and spectrum.get("rank_energies"):
        yield _spectrum(spectrum)


def _heat_map(layers: LayerList) -> Iterator[Chart]:
    """A cell a role of a layer, coloured by the logarithm of its relative change."""
    shown = layers.layers()
    rows: list[dict[str, Any]] = [
        {"layer": escaped(layer.name), "role": escaped(role), "change": relative_l2}
        for layer in shown
        for role, relative_l2 in layer.roles.items()
        if relative_l2
    ]
    if not rows:
        return
    largest = max(rows, key=lambda row: row["change"])
    roles = [escaped(role) for role in ordered_roles(shown)]
    encoding = {
        "y": {"field": "layer", "type": "ordinal", "sort": [escaped(layer.name) for layer in shown], "title": None},
        "x": {"field": "role", "type": "ordinal", "sort": roles, "title": None, "axis": {"orient": "top", "labelAngle": -35}},
        "color": _color("change", "relative l2"),
    }
    least = cells.number(min(row["change"] for row in rows))
    told = (
        f"Relative l2 of {plural(len(shown), 'layer')} by role, from {least} to {cells.number(largest['change'])}, the largest "
        f"in {largest['layer']} ({largest['role']})."
    )
    yield _drawn("Change by layer and role", told, "rect", rows, encoding, height={"step": 14}, width={"step": 44})


def _color(field: str, title: str) -> dict[str, Any]:
    scale = {"type": "log", "scheme": _SCHEME}
    return {"field": field, "type": "quantitative", "scale": scale, "legend": {"title": title, "format": ".2g", "tickCount": 4}}


def _histogram(magnitudes: Magnitudes) -> Iterator[Chart]:
    """How many tensors changed by how much."""
    if not magnitudes.bins:
        return
    low, high = min(magnitudes.bins), max(magnitudes.bins)
    rows = [
        {
            "from": 10 ** (place / BINS_PER_DECADE),
            "to": 10 ** ((place + 1) / BINS_PER_DECADE),
            "tensors": magnitudes.bins[place],
        }
        for place in range(low, high + 1)
    ]
    axis = {"format": ".0e", "labelOverlap": True}
    scale = {"type": "log", "domain": [rows[0]["from"], rows[-1]["to"]], "nice": False}
    counts = {"tickMinStep": 1, "format": "d", "grid": True}
    encoding = {
        "x": {"field": "from", "type": "quantitative", "scale": scale, "title": "relative l2", "axis": axis},
        "x2": {"field": "to"},
        "y": {"field": "tensors", "type": "quantitative", "title": "tensors", "axis": counts, "scale": {"domainMin": 0}},
        "y2": {"datum": 0},
    }
    most = max(rows, key=lambda row: row["tensors"])
    total = plural(sum(magnitudes.bins.values()), "changed tensor")
    told = (
        f"{total} by relative l2, from {cells.number(rows[0]['from'])} to {cells.number(rows[-1]['to'])}; "
        f"most ({most['tensors']:,}) between {cells.number(most['from'])} and {cells.number(most['to'])}."
    )
    yield _drawn("How much the tensors changed", told, {"type": "bar", "stroke": "white"}, rows, encoding)


def _sqnr(book: QuantizationBook) -> Iterator[Chart]:
    """A point a quantized tensor, along the model."""
    sample = [item for item in book.sample.items() if item.sqnr_db is not None]
    if not sample:
        return
    rows = [{"layer": escaped(item.layer), "role": escaped(item.role), "sqnr": item.sqnr_db} for item in sample]
    encoding = {
        "x": {
            "field": "layer",
            "type": "ordinal",
            "sort": None,
            "title": None,
            "axis": {"labelAngle": -60, "labelOverlap": True},
        },
        "y": {"field": "sqnr", "type": "quantitative", "title": "SQNR, dB", "scale": {"zero": False}, "axis": {"grid": True}},
        "color": {"field": "role", "type": "nominal", "title": "role"},
    }
    values = [float(row["sqnr"]) for row in rows if row["sqnr"] is not None]
    told = f"SQNR of {plural(len(rows), 'tensor')} along the model, from {min(values):.1f} to {max(values):.1f} dB."
    yield _drawn("SQNR by layer", told, {"type": "point", "filled": True}, rows, encoding)


def _spectrum(record: Record) -> Chart:
    """What share of the change an adapter of each rank could hold."""
    rows = [{"rank": item["rank"], "share": item["energy_ratio"]} for item in record["rank_energies"]]
    axis = {"format": ".0%", "grid": True}
    encoding = {
        "x": {"field": "rank", "type": "ordinal", "title": "rank", "axis": {"labelAngle": 0}},
        "y": {
            "field": "share",
            "type": "quantitative",
            "title": "part of the change",
            "scale": {"domain": [0, 1]},
            "axis": axis,
        },
    }
    known = [row for row in rows if row["share"] is not None and math.isfinite(row["share"])]
    told = "Part of the squared change that an adapter holds: " + ", ".join(
        f"rank {row['rank']} {row['share']:.1%}" for row in known
    )
    return _drawn("Spectrum of the change", told + ".", "bar", rows, encoding)


def _drawn(
    title: str, description: str, mark: Any, rows: Rows, encoding: Mapping[str, Any], width: Any = _WIDTH, height: Any = 220
) -> Chart:
    spec = {"$schema": _SCHEMA, "config": _CONFIG, "width": width, "height": height, "data": {"values": list(rows)}}
    return Chart(title, description, require().vegalite_to_svg({**spec, "mark": mark, "encoding": encoding}))
