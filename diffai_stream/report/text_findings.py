"""The sections of the findings: anomalies, quantization, any other analysis, and what was skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from diffai_stream.report.figures import aligned, number, plural, value
from diffai_stream.report.kept import BASE_FIELDS, AnomalyList, FindingList, QuantizationList, SkipList, own_fields, telling
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record
from diffai_stream.report.text_rows import LEAST_ROWS, render_rows
from diffai_stream.report.text_tables import Column, Row, print_table

SEVERITY_STYLES: Final = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


class AnomalySection(AnomalyList):
    """Prints the worst anomalies and counts the rest."""

    _COLUMNS = (
        Column("severity"),
        Column("kind"),
        Column("where", flexible=True),
        Column("side", drop=2),
        Column("value", right=True, drop=1),
        Column("limit", right=True, drop=3),
        Column("count", right=True, drop=1),
    )

    def render(self, page: Page) -> None:
        """Print them, the most severe first, in the order of the model among equals."""
        records = self.records()
        if not records:
            return
        page.heading(f"Anomalies: {self.totals()}")
        print_table(page, self._COLUMNS, [self._row(page, record) for record in records])
        _render_rest(page, self.total - len(records))

    def _row(self, page: Page, record: Record) -> Row:
        severity = record.get("severity", "info")
        figures = [number(record[key]) if record.get(key) is not None else "" for key in ("value", "threshold", "count")]
        cells = [severity, record.get("kind") or "", record["subject"], record.get("side") or "", *figures]
        extra = {key: item for key, item in record.items() if key not in BASE_FIELDS | _ANOMALY_FIELDS}
        detail = record.get("detail")
        notes = [[page.name(str(detail))]] if detail else []
        notes += [[_fields(page, extra)]] if extra else []
        styles = (SEVERITY_STYLES.get(severity, ""), "bold", "", "", "", "dim", "")
        return Row([page.name(str(cell)) for cell in cells], styles, notes)


_ANOMALY_FIELDS: Final = frozenset({"kind", "side", "value", "threshold", "count", "detail"})


class QuantizationSection(QuantizationList):
    """Prints the tensors with the lowest SQNR and the totals of the model."""

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

    def render(self, page: Page) -> None:
        """Print the table, the lowest SQNR first, then the totals."""
        rows = self.records()
        if not rows and not self.model:
            return
        page.heading("Quantization")
        if rows:
            print_table(page, self._COLUMNS, [self._row(page, record) for record in rows])
            _render_rest(page, self.total - len(rows))
        for record in self.model:
            page.paragraph("  ", Text("model  ", style="bold"), _fields(page, own_fields(record)), indent=4)

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


class GenericSection(FindingList):
    """Prints the fields of the records of any other analysis as they are: no analysis needs code here."""

    def render(self, page: Page) -> None:
        """Print several records of tensors or layers as a table, others as `key=value`; text of several lines comes below."""
        page.heading(page.name(self.title))
        rows = [record for record in self.records if record.get("scope") in ("tensor", "layer")]
        rows = rows if len(rows) >= LEAST_ROWS else []
        if rows:
            render_rows(page, rows, SEVERITY_STYLES)
        for record in self.records:
            if not rows or record.get("scope") not in ("tensor", "layer"):
                self._render_record(page, record)
        _render_rest(page, self.total - len(self.records))

    def _render_record(self, page: Page, record: Record) -> None:
        fields = own_fields(record)
        texts = [fields.pop(key) for key, item in list(fields.items()) if isinstance(item, str) and "\n" in item]
        severity = record.get("severity")
        mark = Text(f"{page.name(severity)}  ", style=SEVERITY_STYLES.get(severity, "")) if severity else Text()
        subject = Text(page.name(str(record.get("subject", ""))) + "  ", style="bold")
        page.paragraph("  ", mark, subject, _fields(page, fields), indent=6)
        for line in (line for text in texts for line in text.splitlines()):
            page.paragraph("    ", page.name(line), indent=4)


class SkippedSection(SkipList):
    """Prints what was not computed, and why."""

    def render(self, page: Page) -> None:
        """Print one dim line a reason."""
        reasons = self.reasons()
        if reasons:
            page.heading("Not computed")
        for analysis, reason, subject, total in reasons:
            where = subject if total == 1 else plural(total, "subject")
            suffix = "" if where in ("", "model") else f" ({page.name(where)})"
            page.paragraph(f"  {page.name(analysis)}: {page.name(reason)}{suffix}", style="dim", indent=4)


def _fields(page: Page, fields: Mapping[str, Any]) -> str:
    """`key=value` of each field that says something; null and empty lists say nothing here."""
    return "  ".join(
        f"{page.name(key)}={page.name(value(item, page.symbols.ellipsis))}" for key, item in telling(fields).items()
    )


def _render_rest(page: Page, total: int) -> None:
    if total > 0:
        page.line(f"  {page.symbols.ellipsis} and {total:,} more", style="dim")
