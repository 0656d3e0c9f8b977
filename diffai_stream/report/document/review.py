"""The comment for a pull request: the verdict, the ten largest changes, the risks, and what was not checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from diffai_stream._version import __version__
from diffai_stream.report import figures
from diffai_stream.report.document import cells
from diffai_stream.report.document.blocks import Block, Document, Listing, Mark, Name, Paragraph, Part, Section
from diffai_stream.report.document.collected import PairRecords, RunRecords
from diffai_stream.report.document.compose import skip_line, title, verdict
from diffai_stream.report.document.tables import tensor_table
from diffai_stream.report.records import Record

LARGEST: Final = 10
_RISKS: Final = 10
_GRAVE: Final = ("critical", "warning")


def review(run: RunRecords) -> Document:
    """The comment; with several pairs each is a section."""
    lead: list[Block] = []
    sections: list[Section] = []
    for place, pair in enumerate(run.pairs):
        inner = list(_sections(pair, f"pair{place}-"))
        if len(run.pairs) > 1:
            sections.append(Section(run.step(place), f"pair{place}", [verdict(pair, run)], inner))
        else:
            lead.append(verdict(pair, run))
            sections += inner
    return Document(title(run), lead, sections, f"diffai_stream {__version__}")


def _sections(pair: PairRecords, prefix: str) -> Iterator[Section]:
    if table := tensor_table(pair.tensors, LARGEST):
        yield Section(("Largest changes",), prefix + "changes", [table])
    risks = list(_risks(pair))
    shown: list[Block] = [Listing(risks[:_RISKS])] if risks else [Paragraph(("None of the analyses that ran found any.",))]
    if len(risks) > _RISKS:
        shown.append(Paragraph((f"And {len(risks) - _RISKS:,} more.",)))
    yield Section(("Risks",), prefix + "risks", shown)
    reasons = pair.skipped.reasons()
    unchecked: list[Block] = [Listing([skip_line(*reason) for reason in reasons])] if reasons else []
    yield Section(
        ("Not checked",), prefix + "skipped", unchecked or [Paragraph(("Everything that was asked for was computed.",))]
    )


def _risks(pair: PairRecords) -> Iterator[list[Part]]:
    """What could not be read, gates that failed, alerts, rules that fired, anomalies that are grave."""
    for record in pair.errors.records:
        yield [Mark("error", "critical"), f": {figures.escaped(str(record['message']))}"]
    for record in _of(pair, "regression_test"):
        if not record["passed"]:
            told = record.get("detail") or f"{figures.number(record['value'])} (limit {figures.number(record['limit'])})"
            yield [
                Mark("gate failed", "critical"),
                f": {cells.words(record['gate'])} of ",
                Name(record["subject"]),
                f", {told}",
            ]
    for record in _of(pair, "alert"):
        yield [_mark(record), f": {figures.escaped(str(record['detail']))}"]
    for record in _of(pair, "risk_assessment"):
        for rule in record["rules"]:
            tone = cells.TONES.get(rule["level"], "info")
            yield [Mark(rule["level"], tone), f": {cells.words(rule['rule'])}, {figures.escaped(rule['evidence'])}"]
    for record in pair.anomalies.records():
        if record.get("severity") in _GRAVE:
            detail = f", {figures.escaped(str(record['detail']))}" if record.get("detail") else ""
            yield [_mark(record), f": {cells.words(str(record['kind']))} in ", Name(str(record["subject"])), detail]


def _of(pair: PairRecords, analysis: str) -> list[Record]:
    found = pair.findings.get(analysis)
    return found.records if found else []


def _mark(record: Record) -> Mark:
    severity = str(record.get("severity") or "info")
    return Mark(severity, cells.TONES.get(severity, "info"))
