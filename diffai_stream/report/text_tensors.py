"""The table of tensors that differ, the largest changes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from diffai_stream.report.figures import aligned, number, percent, shape
from diffai_stream.report.page import Page
from diffai_stream.report.ranking import ShownTensor, TensorRanking, distinct
from diffai_stream.report.text_tables import Column, Row, print_table

SIGNS: Final = {"added": "+", "removed": "-", "reshaped": "~", "retyped": "!", "changed": "", "unchanged": "="}
STYLES: Final = {
    "added": "green",
    "removed": "red",
    "reshaped": "magenta",
    "retyped": "cyan",
    "changed": "",
    "unchanged": "dim",
}
_BAR_WIDTH: Final = 12
_NARROW_BAR_WIDTH: Final = 6
_NARROW_PAGE: Final = 100
_QUANTILES: Final = ("p01", "p05", "p25", "p50", "p75", "p95", "p99")
_COLUMNS: Final = (
    Column(""),
    Column("tensor", flexible=True),
    Column("shape", right=True, drop=3),
    Column("dtype"),
    Column("changed", right=True),
    Column("rel l2", right=True),
    Column("cos dist", right=True, drop=5),
    Column("max |d|", right=True, drop=6),
    Column("", drop=1),
)


class TensorTable(TensorRanking):
    """The tensors that changed most, as a table."""

    def __init__(self, top: int, title: str = "Tensors") -> None:
        super().__init__(top)
        self._title = title

    def render(self, page: Page) -> None:
        """Print the table, what its signs say and how much was left out; nothing when no tensor was noted."""
        shown = self.selected()
        if not shown:
            return
        page.heading(f"{self._title} by relative change" if self.has_changes else self._title)
        finite = [item.change["relative_l2"] for item in shown if item.change["relative_l2"] is not None]
        greatest = max(finite, default=0.0)
        converted = any(len(item.encodings) > 1 for item in shown)
        columns = [replace(column, drop=2 if converted else 4) if column.title == "dtype" else column for column in _COLUMNS]
        print_table(page, columns, [_row(page, item, greatest) for item in shown])
        self._render_rest(page, shown)

    def _render_rest(self, page: Page, shown: Sequence[ShownTensor]) -> None:
        present = dict.fromkeys(item.status for item in shown)
        signs = "  ".join(f"{SIGNS[status]} {status}" for status in present if SIGNS.get(status))
        if rest := self.rest(shown):
            page.paragraph(f"  {page.symbols.ellipsis} and {rest} (--top 0 lists all)", style="dim", indent=4)
        if signs:
            page.paragraph(f"  {signs}", style="dim", indent=4)


def _row(page: Page, item: ShownTensor, greatest: float) -> Row:
    arrow = f" {page.symbols.arrow} "
    style = STYLES.get(item.status, "")
    cells = [
        SIGNS.get(item.status, "?"),
        page.name(item.name),
        shape(item.shapes[-1], page.symbols.times),
        arrow.join(page.name(dtype) for dtype in item.encodings),
        *_figures(item),
        _bar(page, item, greatest),
    ]
    return Row(cells, (style, style, "", "", "", "bold", "", "", "yellow"), _notes(page, item))


def _figures(item: ShownTensor) -> list[str]:
    if item.status in ("added", "removed", "reshaped", "retyped", "unchanged"):
        return ["", "", "", ""]
    change = item.change
    return [percent(change["changed_ratio"]), *(aligned(change[key]) for key in ("relative_l2", "cosine_distance", "max_abs"))]


def _bar(page: Page, item: ShownTensor, greatest: float) -> str:
    relative_l2 = item.change["relative_l2"]
    if not relative_l2 or not greatest:
        return ""
    glyphs = page.symbols.bar
    width = _BAR_WIDTH if page.width >= _NARROW_PAGE else _NARROW_BAR_WIDTH
    eighths = max(1, round(relative_l2 / greatest * width * len(glyphs)))
    full, part = divmod(eighths, len(glyphs))
    return glyphs[-1] * full + (glyphs[part - 1] if part else "")


def _notes(page: Page, item: ShownTensor) -> list[list[str]]:
    notes = []
    arrow = page.symbols.arrow
    if item.new_name != item.name:
        notes.append([f"{arrow} {page.name(item.new_name)} ({page.name(item.match)})"])
    if len(item.shapes) > 1:
        notes.append([f" {arrow} ".join(shape(axes, page.symbols.times) for axes in item.shapes)])
    old, new = item.stats
    if old or new:
        notes.append([_compared(page, key, key, old, new) for key in ("mean", "std", "min", "max")])
        quantiles = [(side or {}).get("quantiles") for side in (old, new)]
        notes.append([_compared(page, key, _quantile_title(key), *quantiles) for key in _QUANTILES])
    return notes


def _compared(page: Page, key: str, title: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    figures = distinct([number(side.get(key)) for side in (old, new) if side])
    return f"{title} {f' {page.symbols.arrow} '.join(figures)}"


def _quantile_title(key: str) -> str:
    return f"{int(key[1:])}%"
