"""The text output of `diffai inspect`: one row a tensor, printed when all are known so that columns align."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.figures import aligned, count, plural, shape, size
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record
from diffai_stream.report.text_findings import AnomalySection, SkippedSection
from diffai_stream.report.text_tables import Column, Row, print_table
from diffai_stream.report.verdict import render_notice

_FIGURES = {"mean": 2, "std": 1, "min": 4, "max": 3}  # and when each gives way to the names
_ODD = ("nan_count", "posinf_count", "neginf_count")
_COLUMNS = (
    Column("tensor", flexible=True),
    Column("shape", right=True),
    Column("encoding"),
    Column("elements", right=True, drop=6),
    Column("bytes", right=True, drop=5),
    *(Column(name, right=True, drop=drop) for name, drop in _FIGURES.items()),
    Column("zeros", right=True, drop=7),
    Column("not finite", right=True),
)


class InspectTextWriter:
    """Prints what the checkpoint is, its tensors in file order, what is odd about them, and a closing line."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._page = Page(stream, options)
        self._top = options.top
        self._begin()

    def _begin(self) -> None:
        self._rows: list[Row] = []
        self._left_out = 0
        self._anomalies = AnomalySection(self._top or 20)
        self._skipped = SkippedSection()

    def write(self, record: Record) -> None:
        """Print header, errors and warnings; note tensors and findings; print them with the summary."""
        match record["type"]:
            case "header":
                self._render_header(record.get("old") or record.get("new") or {})
            case "error" | "warning":
                render_notice(self._page, record)
            case "tensor":
                self._add(record)
            case "anomaly":
                self._anomalies.add({**record, "side": None})  # there is but one
            case "skipped":
                self._skipped.add(record)
            case "summary":
                self._render_tables()
                self._render_end(record)
        self._page.flush()

    def close(self) -> None:
        """Print the rows that no summary has printed."""
        self._render_tables()
        self._page.flush()

    def _render_header(self, checkpoint: Record) -> None:
        page = self._page
        page.paragraph(Text(page.name(str(checkpoint.get("path", ""))), style="bold"))
        parts = [
            page.name(str(checkpoint.get("format", ""))),
            size(checkpoint.get("stored_nbytes", 0)),
            plural(checkpoint.get("tensor_count", 0), "tensor"),
            f"{count(checkpoint.get('parameter_count', 0))} parameters",
        ]
        page.paragraph(", ".join(parts), style="dim")
        for item in checkpoint.get("metadata") or ():
            page.line(f"  {page.name(item['key'])}: {page.name(item['value'])}", style="dim")

    def _add(self, record: Record) -> None:
        if self._top and len(self._rows) >= self._top:
            self._left_out += 1
            return
        side = record.get("old") or record.get("new") or {}
        figures = (record.get("stats") or {}).get("old") or (record.get("stats") or {}).get("new")
        page = self._page
        axes = side.get("shape") or []
        cells = [
            page.name(record["name"]),
            shape(axes, page.symbols.times),
            page.name(str(side.get("encoding", ""))),
            f"{side.get('numel', 0):,}",
            size(side.get("stored_nbytes", 0)),
            *_measured(figures),
        ]
        self._rows.append(Row(cells))

    def _render_tables(self) -> None:
        rows, left_out, anomalies, skipped = self._rows, self._left_out, self._anomalies, self._skipped
        self._begin()  # before they are printed: when that fails, close() must not print them again
        if rows:
            self._page.heading("Tensors")
            print_table(self._page, _COLUMNS, rows)
        if left_out:
            rest = f"  {self._page.symbols.ellipsis} and {plural(left_out, 'more tensor')} (--top 0 lists all)"
            self._page.line(rest, style="dim")
        anomalies.render(self._page)
        skipped.render(self._page)

    def _render_end(self, summary: Record) -> None:
        trouble = summary["status"] in ("failed", "interrupted")
        if trouble or summary["exit_status"]:
            self._page.line()
            style = "bold red" if trouble else "bold yellow"
            self._page.line(Text(f"{summary['status']}: ", style=style), f"exit {summary['exit_status']}")


def _measured(figures: dict[str, Any] | None) -> list[str]:
    """The cells of the figures; empty ones, whose columns the table leaves out, when only the index was read."""
    if not figures:
        return [""] * (len(_FIGURES) + 2)
    odd = sum(figures.get(name, 0) for name in _ODD)
    return [*(aligned(figures.get(name)) for name in _FIGURES), f"{figures.get('zero_count', 0):,}", f"{odd:,}" if odd else ""]
