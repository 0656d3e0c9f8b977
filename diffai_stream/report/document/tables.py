"""The tables whose columns are known: tensors, layers, quantization, anomalies, errors and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from diffai_stream.report import figures
from diffai_stream.report.document import cells
from diffai_stream.report.document.blocks import Block, Cell, Column, Legend, Mark, Name, Paragraph, Part, Table
from diffai_stream.report.document.collected import Notices
from diffai_stream.report.document.findings import finding_section
from diffai_stream.report.kept import AnomalyList, FindingList, QuantizationList
from diffai_stream.report.layers_kept import LEVELS, ChangeScale, Layer, LayerList, ordered_roles
from diffai_stream.report.ranking import ShownTensor, TensorRanking
from diffai_stream.report.records import Record

_ARROW: Final = " → "
_STATUS_TONES: Final = {"added": "good", "removed": "critical", "reshaped": "warning", "retyped": "info"}
_TENSOR_COLUMNS: Final = (
    Column("tensor"),
    Column("status"),
    Column("shape"),
    Column("encoding"),
    Column("changed", True, "elements that differ"),
    Column("relative l2", True, "‖new - old‖ / ‖old‖"),
    Column("cosine distance", True, "1 - cosine of old and new"),
    Column("largest change", True, "largest |new - old|"),
)
_QUANTIZATION_COLUMNS: Final = (
    Column("tensor"),
    Column("bits per weight"),
    Column("SQNR dB", True, "signal to quantization noise ratio"),
    Column("relative l2", True, "‖new - old‖ / ‖old‖"),
    Column("compression", True, "stored bytes, old over new"),
)
_ANOMALY_COLUMNS: Final = (
    Column("severity"),
    Column("kind"),
    Column("where"),
    Column("side"),
    Column("value", True),
    Column("limit", True),
    Column("count", True),
    Column("detail"),
)


def tensor_table(ranking: TensorRanking, limit: int = 0) -> Table | None:
    """The tensors that changed most, at most `limit` of them; None when there are none."""
    shown = ranking.selected()
    shown = shown[:limit] if limit else shown
    if not shown:
        return None
    rest = ranking.rest(shown)
    return Table("", _TENSOR_COLUMNS, [_tensor_row(item) for item in shown], f"And {rest}." if rest else "")


def _tensor_row(item: ShownTensor) -> list[Cell]:
    name: list[Part] = [Name(item.name)]
    if item.new_name != item.name:
        name += [_ARROW, Name(item.new_name), f" ({figures.escaped(item.match)})"]
    change = item.change
    tone = _STATUS_TONES.get(item.status)
    return [
        Cell(name),
        Cell((Mark(item.status, tone),) if tone else (item.status,)),
        cells.text(_ARROW.join(figures.shape(axes, "×") for axes in item.shapes)),
        cells.text(_ARROW.join(map(figures.escaped, item.encodings))),
        cells.percent(change["changed_ratio"]),
        *(cells.figure(change[key]) for key in ("relative_l2", "cosine_distance", "max_abs")),
    ]


def layer_blocks(layers: LayerList) -> list[Block]:
    """The heat map as a table, and what its shades mean; nothing when no layer changed."""
    shown = layers.layers()
    scale = ChangeScale.of(shown)
    if scale is None:
        return []
    roles = ordered_roles(shown)
    columns = [Column("layer"), *(Column(figures.escaped(role), True) for role in roles), Column("relative l2", True)]
    rows = [
        [cells.name(layer.name), *(_heat(scale, layer, role) for role in roles), cells.figure(layer.relative_l2)]
        for layer in shown
    ]
    note = f"{len(shown):,} of {layers.total:,} layers shown, evenly sampled" if len(shown) < layers.total else ""
    return [Table("Relative l2 of each role of each layer", columns, rows, note), Legend("Shades", legend(scale))]


def _heat(scale: ChangeScale, layer: Layer, role: str) -> Cell:
    if role not in layer.roles:
        return Cell(("",))
    relative_l2 = layer.roles[role]
    if relative_l2 is None:
        return Cell(("from 0",))
    return cells.figure(relative_l2, f"heat{scale.level(relative_l2)}" if relative_l2 > 0 else "")


def legend(scale: ChangeScale) -> list[Mark]:
    """The classes of the shades with their bounds."""
    texts = [f"up to {figures.number(scale.bounds[0])}"]
    texts += [f"{figures.number(low)} to {figures.number(high)}" for low, high in pairwise(scale.bounds)]
    texts += [f"above {figures.number(scale.bounds[-1])}"] if scale.above else []
    levels = range(LEVELS - len(texts), LEVELS)
    return [Mark(text, f"heat{level}") for level, text in zip(levels, texts, strict=True)]


def quantization_blocks(found: QuantizationList) -> list[Block]:
    """The tensors with the lowest SQNR, and the totals of the model."""
    records = found.records()
    blocks: list[Block] = []
    if records:
        rest = found.total - len(records)
        blocks.append(Table("", _QUANTIZATION_COLUMNS, [_quantized_row(record) for record in records], _more(rest)))
    for record in found.model:
        listed = FindingList("quantization", 0)
        listed.add(record)
        blocks += [block for block in finding_section(listed, "", 0).blocks if not isinstance(block, Paragraph)]
    return blocks


def _quantized_row(record: Record) -> list[Cell]:
    bits = [figures.number(record.get(key)) for key in ("old_bits_per_weight", "new_bits_per_weight")]
    tone = "critical" if record.get("exceeds_threshold") else ""
    sqnr, relative, ratio = (figures.finite(record.get(key)) for key in ("sqnr_db", "relative_l2", "compression_ratio"))
    return [
        cells.name(record["subject"]),
        cells.text(_ARROW.join(bits)),
        cells.figure(sqnr),
        cells.figure(relative, tone),
        cells.figure(ratio),
    ]


def anomaly_table(found: AnomalyList, limit: int = 0) -> Table:
    """The worst anomalies."""
    records = found.records()
    records = records[:limit] if limit else records
    return Table("", _ANOMALY_COLUMNS, [_anomaly_row(record) for record in records], _more(found.total - len(records)))


def _anomaly_row(record: Record) -> list[Cell]:
    return [
        cells.severity(record.get("severity", "info")),
        cells.text(figures.escaped(str(record.get("kind") or ""))),
        cells.name(record["subject"]),
        cells.text(figures.escaped(str(record.get("side") or ""))),
        *(cells.figure(record.get(key)) for key in ("value", "threshold", "count")),
        cells.text(figures.escaped(str(record.get("detail") or ""))),
    ]


def notice_table(notices: Notices) -> Table:
    """Errors or warnings with the places they are about."""
    columns = (Column("what"), Column("message"), Column("where"))
    rows = [
        [_code(record), cells.text(figures.escaped(str(record["message"]))), Cell(_where(record))] for record in notices.records
    ]
    return Table("", columns, rows, _more(notices.total - len(notices.records)))


def _code(record: Record) -> Cell:
    failed = record["type"] == "error"
    return Cell((Mark(figures.escaped(str(record.get("error" if failed else "code"))), "critical" if failed else "warning"),))


def _where(record: Record) -> Sequence[Part]:
    named: list[Part] = [Name(str(record[key])) for key in ("path", "tensor") if record.get(key)]
    if record.get("offset") is not None:
        named.append(f"offset {record['offset']:,}")
    spaced: list[Part] = []
    for part in named:
        spaced += [", ", part] if spaced else [part]
    return spaced


def _more(rest: int) -> str:
    return f"And {rest:,} more." if rest > 0 else ""
