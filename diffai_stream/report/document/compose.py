"""The report: what is kept of a run as a document, the verdict first, then what changed, then what was not computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from diffai_stream._version import __version__
from diffai_stream.report import figures
from diffai_stream.report.document import cells
from diffai_stream.report.document.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Listing,
    Mark,
    Name,
    Paragraph,
    Part,
    Section,
    Table,
    Tile,
    Tiles,
)
from diffai_stream.report.document.collected import PairRecords, RunRecords
from diffai_stream.report.document.findings import finding_section
from diffai_stream.report.document.tables import (
    anomaly_table,
    layer_blocks,
    notice_table,
    quantization_blocks,
    tensor_table,
)
from diffai_stream.report.records import Record
from diffai_stream.report.verdict import cost, outcome

STATUS_TONES: Final = {"identical": "good", "equivalent": "good", "different": "warning", "failed": "critical"}
FIRST: Final = ("risk_assessment", "regression_test", "alert", "change_summary", "deployment_readiness")


def report(run: RunRecords, charts: Mapping[int, Sequence[Block]] | None = None) -> Document:
    """The whole report; `charts` by pair."""
    several = len(run.pairs) > 1
    sections: list[Section] = []
    lead: list[Block] = [Paragraph(side) for side in _sides(run)]
    for place, pair in enumerate(run.pairs):
        drawn = (charts or {}).get(place, ())
        prefix = f"pair{place}-" if several else ""
        inner = list(_sections(pair, run, prefix, drawn))
        if several:
            sections.append(Section(run.step(place), f"pair{place}", _lead(pair, run), inner))
        else:
            lead += _lead(pair, run)
            sections += inner
    sections += _about(run)
    return Document(title(run), lead, sections, f"diffai_stream {__version__}")


def title(run: RunRecords) -> str:
    """What was compared, for a heading."""
    names = [figures.escaped(path.rstrip("/").rpartition("/")[2] or path) for path in run.paths]
    return "Comparison of " + " and ".join(names if len(names) <= 2 else [names[0], f"{len(names) - 1} more"])


def verdict(pair: PairRecords, run: RunRecords) -> Paragraph:
    """The verdict in a sentence."""
    if pair.summary is None:
        return Paragraph((Mark("cut off", "critical"), ": the run ended before its summary; what follows is incomplete"))
    largest = pair.tensors.largest()
    told = outcome(pair.summary, None, _has_tolerance(run))
    parts: list[Part] = [Mark(pair.summary["status"], STATUS_TONES.get(pair.summary["status"], "critical")), f": {told}"]
    if largest is not None and pair.summary["status"] == "different":
        relative_l2 = largest.change["relative_l2"]
        size = "from all zeros" if relative_l2 is None else f"relative l2 {cells.number(relative_l2)}"
        parts += [" (largest ", Name(largest.name), f", {size})"]
    return Paragraph((*parts, f"; exit status {pair.summary['exit_status']}."))


def _has_tolerance(run: RunRecords) -> bool:
    options = (run.header or {}).get("options") or {}
    return any(options.get(name) for name in ("epsilon", "relative_tolerance"))


def _sides(run: RunRecords) -> Iterator[list[Part]]:
    header = run.header or {}
    checkpoints = header.get("checkpoints") or [header[side] for side in ("old", "new") if header.get(side)]
    for label, side in zip(_labels(len(checkpoints)), checkpoints, strict=True):
        told = f"{side['format']}, {figures.plural(side['tensor_count'], 'tensor')}, {figures.count(side['parameter_count'])}"
        yield [f"{label} ", Name(str(side["path"])), f": {told} parameters, {figures.size(side['stored_nbytes'])}"]


def _labels(total: int) -> list[str]:
    return ["Old", "New"] if total == 2 else [f"{place + 1}." for place in range(total)]


def _lead(pair: PairRecords, run: RunRecords) -> list[Block]:
    blocks: list[Block] = [verdict(pair, run)]
    if pair.summary is not None:
        blocks.append(Tiles(list(_tiles(pair, pair.summary))))
    return blocks


def _tiles(pair: PairRecords, summary: Record) -> Iterator[Tile]:
    counts: Mapping[str, int] = summary["counts"]
    total = sum(item for key, item in counts.items() if key != "renamed")
    yield Tile("tensors changed", f"{counts['changed']:,} of {total:,}")
    parameters = summary["parameter_count"]
    if parameters["new"]:
        yield Tile(
            "elements changed", figures.percent(min(1.0, parameters["changed"] / max(parameters["old"], parameters["new"])))
        )
    yield Tile("relative l2 of the model", cells.number(summary["relative_l2"]))
    if pair.anomalies.total:
        kept = pair.anomalies.records()
        yield Tile("anomalies", pair.anomalies.totals(), cells.TONES.get(str(kept[0].get("severity")), "") if kept else "")
    if "regression_test" in pair.findings:
        total_gates = pair.findings["regression_test"].total
        tone = "critical" if pair.failed_gates else "good"
        yield Tile("gates passed", f"{total_gates - pair.failed_gates:,} of {total_gates:,}", tone)
    risk = pair.finding("risk_assessment")
    if risk:
        yield Tile(
            "risk",
            str(risk.get("level")),
            {"low": "good"}.get(str(risk.get("level")), cells.TONES.get(str(risk.get("level")), "")),
        )
    if pair.errors.total:
        yield Tile("errors", f"{pair.errors.total:,}", "critical")


def _sections(pair: PairRecords, run: RunRecords, prefix: str, charts: Sequence[Block]) -> Iterator[Section]:
    for heading, anchor, notices in (("Errors", "errors", pair.errors), ("Warnings", "warnings", pair.warnings)):
        if notices.total:
            yield Section((heading,), prefix + anchor, [notice_table(notices)])
    if charts:
        yield Section(("Charts",), prefix + "charts", charts)
    if table := tensor_table(pair.tensors):
        yield Section(("Tensors",), prefix + "tensors", [table])
    if blocks := layer_blocks(pair.layers):
        yield Section(("Change by layer and role",), prefix + "layers", blocks)
    if table := tensor_table(pair.state):
        yield Section(("Optimizer state, averages, gradients",), prefix + "state", [table])
    if blocks := quantization_blocks(pair.quantization):
        yield Section(("Quantization",), prefix + "quantization", blocks)
    if pair.anomalies.total:
        yield Section((f"Anomalies: {pair.anomalies.totals()}",), prefix + "anomalies", [anomaly_table(pair.anomalies)])
    for name in sorted(pair.findings, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        yield finding_section(pair.findings[name], prefix + name, run.top)
    if reasons := pair.skipped.reasons():
        yield Section(("Not computed",), prefix + "skipped", [Listing([skip_line(*reason) for reason in reasons])])


def skip_line(analysis: str, reason: str, subject: str, total: int) -> list[Part]:
    """Why something was not computed, and where."""
    where: list[Part] = [f" ({figures.plural(total, 'subject')})"] if total > 1 else []
    if total == 1 and subject not in ("", "model"):
        where = [" (", Name(subject), ")"]
    return [f"{cells.words(analysis)}: {figures.escaped(reason)}", *where]


def _about(run: RunRecords) -> Iterator[Section]:
    blocks: list[Block] = []
    options = (run.header or {}).get("options") or {}
    if options:
        rows = [[cells.text(cells.words(key)), _option(key, item)] for key, item in options.items()]
        blocks.append(Table("Options that differ from their defaults", (Column("option"), Column("value")), rows))
    for place, pair in enumerate(run.pairs):
        if pair.summary is not None:
            told: list[Part] = [*run.step(place), ": "] if len(run.pairs) > 1 else []
            blocks.append(Paragraph([*told, cost(pair.summary)], quiet=True))
    if run.header:
        blocks.append(Paragraph(("Run ", Name(str(run.header.get("run_id"))), "."), quiet=True))
    if blocks:
        yield Section(("About this run",), "about", blocks, folded=True)


def _option(key: str, item: Any) -> Cell:
    return cells.text(figures.escaped(figures.value(item, "…"))) if isinstance(item, (list, tuple)) else cells.valued(key, item)
