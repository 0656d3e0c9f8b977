"""Text for people: what is compared at once, trouble as it comes, tables and the verdict at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.heatmap import HeatMap
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record
from diffai_stream.report.text_findings import AnomalySection, GenericSection, QuantizationSection, SkippedSection
from diffai_stream.report.text_tensors import TensorTable
from diffai_stream.report.verdict import render_header, render_notice, render_verdict


class Section(Protocol):
    """A part of the page that is printed once all its records are known."""

    def render(self, page: Page) -> None:
        """Print it; nothing when it has nothing to say."""
        ...


class TextWriter:
    """Prints tables; keeps of the records only the rows that will be shown, so its memory does not grow with the model."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._page = Page(stream, options)
        self._top = options.top
        self._checkpoints: Sequence[str] = ()
        self._has_tolerance = False
        self._begin()

    def _begin(self) -> None:
        self._tensors = TensorTable(self._top)
        self._state = TensorTable(self._top, "Optimizer state, averages, gradients")
        self._heat_map = HeatMap()
        self._anomalies = AnomalySection(self._top)
        self._quantization = QuantizationSection(self._top)
        self._others: dict[str, GenericSection] = {}
        self._skipped = SkippedSection()
        self._pending = False

    def write(self, record: Record) -> None:
        """Print the header, errors, warnings and, with the summary, everything; note all other records."""
        match record["type"]:
            case "header":
                render_header(self._page, record)
                self._checkpoints = [checkpoint["path"] for checkpoint in record.get("checkpoints") or ()]
                options = record.get("options") or {}
                self._has_tolerance = any(options.get(name) for name in ("epsilon", "relative_tolerance"))
            case "error" | "warning":
                render_notice(self._page, record)
            case "summary":
                self._render_pair(record)
                self._render_verdict(record)
            case _:
                self._collect(record)
                return
        self._page.flush()

    def close(self) -> None:
        """Print what no summary has printed: findings over all pairs, or the tables of a run that was cut off."""
        if self._pending:
            self._render_sections()
        self._page.flush()

    def _collect(self, record: Record) -> None:
        self._pending = True
        match record["type"]:
            case "tensor":
                (self._state if "part" in record else self._tensors).add(record)
            case "layer_impact":
                self._heat_map.add(record)
            case "anomaly":
                self._anomalies.add(record)
            case "quantization":
                self._quantization.add(record)
            case "skipped":
                self._skipped.add(record)
            case other:
                self._others.setdefault(other, GenericSection(other, self._top)).add(record)

    def _render_pair(self, summary: Record) -> None:
        pair = summary.get("pair")
        if pair is not None and pair + 1 < len(self._checkpoints):
            old, new = self._checkpoints[pair : pair + 2]
            self._page.heading(f"{self._page.name(old)} {self._page.symbols.arrow} {self._page.name(new)}")

    def _render_verdict(self, summary: Record) -> None:
        found = self._tensors.largest()
        largest = (found.name, found.change["relative_l2"]) if found else None
        self._render_sections()
        self._page.line()
        render_verdict(self._page, summary, largest, self._has_tolerance)

    def _render_sections(self) -> None:
        others = self._others.values()
        sections: list[Section] = [self._tensors, self._state, self._heat_map, self._quantization, *others]
        sections += [self._anomalies, self._skipped]
        self._begin()  # before they are printed: when that fails, close() must not print them again
        for section in sections:
            section.render(self._page)
