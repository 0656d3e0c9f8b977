"""The sections of the findings: anomalies, quantization, any other analysis, and what was skipped."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from diffai_stream.report.figures import aligned, number, plural, value
from diffai_stream.report.page import Page
from diffai_stream.report.records import FindingRecord, Record
from diffai_stream.report.text_tables import Column, Row, print_table

SEVERITIES: Final = ("critical", "warning", "info")
SEVERITY_STYLES: Final = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_BASE_FIELDS: Final = frozenset(FindingRecord.__annotations__)
_MAX_REASONS: Final = 100


class AnomalySection:
    """Collects `anomaly` records; prints the worst ones and counts the rest."""

    _COLUMNS = (
        Column("severity"),
        Column("kind"),
        Column("where", flexible=True),
        Column("side", drop=2),
        Column("value", right=True, drop=1),
        Column("limit", right=True, drop=3),
        Column("count", right=True, drop=1),
    )

    def __init__(self, top: int) -> None:
        self._top = top
        self._kept: dict[str, list[Record]] = {severity: [] for severity in SEVERITIES}
        self._counts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Note one anomaly."""
        severity = record.get("severity", "info")
        self._counts[severity] += 1
        kept = self._kept.setdefault(severity, [])
        if not self._top or len(kept) < self._top:
            kept.append(record)

    def render(self, page: Page) -> None:
        """Print them, the most severe first, in the order of the model among equals."""
        records = [record for severity in self._kept for record in self._kept[severity]]
        records = records[: self._top or None]
        if not records:
            return
        totals = ", ".join(f"{self._counts[severity]:,} {severity}" for severity in self._kept if self._counts[severity])
        page.heading(f"Anomalies: {totals}")
        print_table(page, self._COLUMNS, [self._row(page, record) for record in records])
        _render_rest(page, self._counts.total() - len(records))

    def _row(self, page: Page, record: Record) -> Row:
        severity = record.get("severity", "info")
        figures = [number(record[key]) if record.get(key) is not None else "" for key in ("value", "threshold", "count")]
        cells = [severity, record.get("kind") or "", record["subject"], record.get("side") or "", *figures]
        extra = {key: item for key, item in record.items() if key not in _BASE_FIELDS | _ANOMALY_FIELDS}
        detail = record.get("detail")
        notes = [[page.name(str(detail))]] if detail else []
        notes += [[_fields(page, extra)]] if extra else []
        styles = (SEVERITY_STYLES.get(severity, ""), "bold", "", "", "", "dim", "")
        return Row([page.name(str(cell)) for cell in cells], styles, notes)


_ANOMALY_FIELDS: Final = frozenset({"kind", "side", "value", "threshold", "count", "detail"})


class QuantizationSection:
    """Collects `quantization` records; prints the tensors with the lowest SQNR and the totals of the model."""

    _COLUMNS = (
        Column("tensor", flexible=True),
        Column("bits", right=True, drop=1),
        Column("ratio", right=True, drop=4),
        Column("SQNR dB", right=True),
        Column("gap dB", right=True, drop=3),
        Column("rel l2", right=True, drop=2),
        Column("worst row", drop=5),
        Column(""),
    )

    def __init__(self, top: int) -> None:
        self._top = top
        self._worst: list[tuple[float, int, Record]] = []
        self._model: list[Record] = []
        self._seen = 0

    def add(self, record: Record) -> None:
        """Note one tensor or the totals."""
        if record.get("scope") != "tensor":
            self._model.append(record)
            return
        self._seen += 1
        sqnr_db = record.get("sqnr_db")
        entry = (float("-inf") if sqnr_db is None else -sqnr_db, -self._seen, record)
        if not self._top or len(self._worst) < self._top:
            heapq.heappush(self._worst, entry)
        elif entry[:2] > self._worst[0][:2]:
            heapq.heapreplace(self._worst, entry)

    def render(self, page: Page) -> None:
        """Print the table, the lowest SQNR first, then the totals."""
        if not self._worst and not self._model:
            return
        page.heading("Quantization")
        rows = sorted(self._worst, key=lambda entry: entry[:2], reverse=True)
        if rows:
            print_table(page, self._COLUMNS, [self._row(page, record) for *_, record in rows])
            _render_rest(page, self._seen - len(rows))
        for record in self._model:
            page.paragraph("  ", Text("model  ", style="bold"), _fields(page, _own_fields(record)), indent=4)

    def _row(self, page: Page, record: Record) -> Row:
        bits = [record.get(key) for key in ("old_bits_per_weight", "new_bits_per_weight")]
        ratio, worst = record.get("compression_ratio"), record.get("worst_row")
        exceeds = bool(record.get("exceeds_threshold"))
        cells = [
            page.name(record["subject"]),
            f" {page.symbols.arrow} ".join(number(item) for item in bits),
            number(ratio) + page.symbols.times if ratio is not None else "",
            aligned(record.get("sqnr_db")),
            number(record["sqnr_gap_db"]) if record.get("sqnr_gap_db") is not None else "",
            aligned(record.get("relative_l2")),
            f"{worst} ({number(record.get('worst_row_relative_l2'))})" if worst is not None else "",
            "over threshold" if exceeds else "",
        ]
        return Row(cells, ("", "", "", "bold", "", "red" if exceeds else "", "", "bold red"))


class GenericSection:
    """Collects the records of any other analysis and prints their fields as they are: no analysis needs code here."""

    def __init__(self, analysis: str, top: int) -> None:
        self._analysis = analysis
        self._top = top
        self._records: list[Record] = []
        self._seen = 0

    def add(self, record: Record) -> None:
        """Note one record."""
        self._seen += 1
        if not self._top or len(self._records) < self._top:
            self._records.append(record)

    def render(self, page: Page) -> None:
        """Print a line of `key=value` a record; text of several lines is printed below it."""
        estimated = any(record.get("basis") == "estimated" for record in self._records)
        title = self._analysis.replace("_", " ")
        page.heading(page.name(title[:1].upper() + title[1:]) + (" (estimated)" if estimated else ""))
        for record in self._records:
            self._render_record(page, record)
        _render_rest(page, self._seen - len(self._records))

    def _render_record(self, page: Page, record: Record) -> None:
        fields = _own_fields(record)
        texts = [fields.pop(key) for key, item in list(fields.items()) if isinstance(item, str) and "\n" in item]
        severity = record.get("severity")
        mark = Text(f"{page.name(severity)}  ", style=SEVERITY_STYLES.get(severity, "")) if severity else Text()
        subject = Text(page.name(str(record.get("subject", ""))) + "  ", style="bold")
        page.paragraph("  ", mark, subject, _fields(page, fields), indent=6)
        for line in (line for text in texts for line in text.splitlines()):
            page.paragraph("    ", page.name(line), indent=4)


class SkippedSection:
    """Counts `skipped` records by analysis and reason."""

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], list[str | int]] = {}

    def add(self, record: Record) -> None:
        """Note one reason; beyond a hundred different ones only the known ones are counted."""
        key = (record["analysis"], record["reason"])
        if key in self._subjects or len(self._subjects) < _MAX_REASONS:
            entry = self._subjects.setdefault(key, [record.get("subject", ""), 0])
            entry[1] = int(entry[1]) + 1

    def render(self, page: Page) -> None:
        """Print one dim line a reason."""
        if self._subjects:
            page.heading("Not computed")
        for (analysis, reason), (subject, total) in self._subjects.items():
            where = str(subject) if total == 1 else plural(int(total), "subject")
            suffix = "" if where in ("", "model") else f" ({page.name(where)})"
            page.paragraph(f"  {page.name(analysis)}: {page.name(reason)}{suffix}", style="dim", indent=4)


def _own_fields(record: Record) -> dict[str, Any]:
    return {key: item for key, item in record.items() if key not in _BASE_FIELDS}


def _fields(page: Page, fields: Mapping[str, Any]) -> str:
    """`key=value` of each field that says something; null and empty lists say nothing here."""
    said = {key: item for key, item in fields.items() if item is not None and item != []}
    return "  ".join(f"{page.name(key)}={page.name(value(item, page.symbols.ellipsis))}" for key, item in said.items())


def _render_rest(page: Page, total: int) -> None:
    if total > 0:
        page.line(f"  {page.symbols.ellipsis} and {total:,} more", style="dim")
