"""The table of tensors that differ, the largest changes first."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from diffai_stream.report.figures import aligned, finite, number, percent, shape
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record
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
_GROUPS: Final = (("added", "removed", "reshaped", "retyped"), ("changed",), ("unchanged",))
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


@dataclass(frozen=True)
class _Shown:
    """What a row needs of its record."""

    name: str
    new_name: str
    match: str
    status: str
    shapes: Sequence[Sequence[int]]
    dtypes: Sequence[str]
    change: Mapping[str, float | None]
    stats: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]

    @classmethod
    def of(cls, record: Record) -> _Shown:
        old, new = record.get("old"), record.get("new")
        sides = [side for side in (old, new) if side]
        stats = record.get("stats") or {}
        detailed = any(side and "quantiles" in side for side in stats.values())
        return cls(
            name=record["name"],
            new_name=new["name"] if old and new else record["name"],
            match=record.get("match", "exact"),
            status=record["status"],
            shapes=_distinct([side["shape"] for side in sides]),
            dtypes=_distinct([side["encoding"] for side in sides]),
            change={key: finite((record.get("change") or {}).get(key)) for key in _CHANGE_FIELDS},
            stats=(stats.get("old"), stats.get("new")) if detailed else (None, None),
        )


_CHANGE_FIELDS: Final = ("changed_ratio", "relative_l2", "cosine_distance", "max_abs")


class TensorTable:
    """Collects `tensor` records, keeping only the rows that will be printed, and counts the rest."""

    def __init__(self, top: int, title: str = "Tensors") -> None:
        self._top, self._title = top, title
        self._heaps: dict[int, list[tuple[float, int, _Shown]]] = {group: [] for group in range(len(_GROUPS))}
        self._counts: Counter[str] = Counter()
        self._seen = 0

    def add(self, record: Record) -> None:
        """Note one record; among equals the earlier one is kept."""
        status = record["status"]
        self._counts[status] += 1
        self._seen += 1
        group = next((i for i, names in enumerate(_GROUPS) if status in names), 1)
        entry = (_rank(record) if group == 1 else 0.0, -self._seen)
        heap = self._heaps[group]
        if not self._top or len(heap) < self._top:
            heapq.heappush(heap, (*entry, _Shown.of(record)))
        elif entry > heap[0][:2]:
            heapq.heapreplace(heap, (*entry, _Shown.of(record)))

    def largest(self) -> _Shown | None:
        """The changed tensor with the largest relative change."""
        return max(self._heaps[1], default=(0.0, 0, None))[2]

    def render(self, page: Page) -> None:
        """Print the table, what its signs say and how much was left out; nothing when no tensor was noted."""
        shown = self._selected()
        if not shown:
            return
        page.heading(f"{self._title} by relative change" if self._heaps[1] else self._title)
        finite = [item.change["relative_l2"] for item in shown if item.change["relative_l2"] is not None]
        greatest = max(finite, default=0.0)
        converted = any(len(item.dtypes) > 1 for item in shown)
        columns = [replace(column, drop=2 if converted else 4) if column.title == "dtype" else column for column in _COLUMNS]
        print_table(page, columns, [_row(page, item, greatest) for item in shown])
        self._render_rest(page, shown)

    def _selected(self) -> list[_Shown]:
        """The rows to print: changes in tensors as such first, at most half of them while there are values to rank."""
        groups = [
            [item for *_, item in sorted(heap, key=lambda entry: entry[:2], reverse=True)] for heap in self._heaps.values()
        ]
        structural, changed, unchanged = groups
        if self._top:
            room = max(self._top // 2, self._top - len(changed))
            structural = structural[:room]
            changed = changed[: self._top - len(structural)]
            unchanged = unchanged[: self._top - len(structural) - len(changed)]
        return structural + changed + unchanged

    def _render_rest(self, page: Page, shown: Sequence[_Shown]) -> None:
        present = dict.fromkeys(item.status for item in shown)
        signs = "  ".join(f"{SIGNS[status]} {status}" for status in present if SIGNS.get(status))
        rest = self._counts - Counter(item.status for item in shown)
        if rest:
            kinds = ", ".join(f"{total:,} {status}" for status, total in rest.items())
            more = f"{rest.total():,} more: {kinds}" if len(rest) > 1 else kinds.replace(" ", " more ", 1)
            page.paragraph(f"  {page.symbols.ellipsis} and {more} (--top 0 lists all)", style="dim", indent=4)
        if signs:
            page.paragraph(f"  {signs}", style="dim", indent=4)


def _rank(record: Record) -> float:
    """Order of changed tensors: a change from all zeros has no relative size and comes first."""
    relative_l2 = finite((record.get("change") or {}).get("relative_l2"))
    return math.inf if relative_l2 is None else relative_l2


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [values[0]] if len(values) == 2 and values[0] == values[1] else list(values)


def _row(page: Page, item: _Shown, greatest: float) -> Row:
    arrow = f" {page.symbols.arrow} "
    style = STYLES.get(item.status, "")
    cells = [
        SIGNS.get(item.status, "?"),
        page.name(item.name),
        shape(item.shapes[-1], page.symbols.times),
        arrow.join(page.name(dtype) for dtype in item.dtypes),
        *_figures(item),
        _bar(page, item, greatest),
    ]
    return Row(cells, (style, style, "", "", "", "bold", "", "", "yellow"), _notes(page, item))


def _figures(item: _Shown) -> list[str]:
    if item.status in ("added", "removed", "reshaped", "retyped", "unchanged"):
        return ["", "", "", ""]
    change = item.change
    return [percent(change["changed_ratio"]), *(aligned(change[key]) for key in _CHANGE_FIELDS[1:])]


def _bar(page: Page, item: _Shown, greatest: float) -> str:
    relative_l2 = item.change["relative_l2"]
    if not relative_l2 or not greatest:
        return ""
    glyphs = page.symbols.bar
    width = _BAR_WIDTH if page.width >= _NARROW_PAGE else _NARROW_BAR_WIDTH
    eighths = max(1, round(relative_l2 / greatest * width * len(glyphs)))
    full, part = divmod(eighths, len(glyphs))
    return glyphs[-1] * full + (glyphs[part - 1] if part else "")


def _notes(page: Page, item: _Shown) -> list[list[str]]:
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
    figures = _distinct([number(side.get(key)) for side in (old, new) if side])
    return f"{title} {f' {page.symbols.arrow} '.join(figures)}"


def _quantile_title(key: str) -> str:
    return f"{int(key[1:])}%"
