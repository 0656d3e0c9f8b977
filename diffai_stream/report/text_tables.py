"""Aligned columns for the text output: one column gives way, the least needed ones are dropped, names stay legible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from diffai_stream.report.page import Page

_GAP: Final = 2
_LEGIBLE_NAME: Final = 36


@dataclass(frozen=True)
class Column:
    """One column: `drop` > 0 may be left out on a narrow page, the highest number first; `flexible` is shortened last."""

    title: str
    right: bool = False
    drop: int = 0
    flexible: bool = False
    style: str = ""


@dataclass(frozen=True)
class Row:
    """Cells in the order of the columns; each of `notes` is printed dim below the row, its items whole while they fit."""

    cells: Sequence[str]
    styles: Sequence[str] = ()
    notes: Sequence[Sequence[str]] = ()


def print_table(page: Page, columns: Sequence[Column], rows: Sequence[Row], indent: int = 2) -> None:
    """Print the rows under a dim line of titles. Columns that are empty in every row are left out."""
    widths, shown = _widths(columns, rows)
    shown = _fitting(columns, widths, shown, page.width - indent)
    flexible = next((i for i in shown if columns[i].flexible), None)
    if flexible is not None:
        others = sum(widths[i] + _GAP for i in shown if i != flexible)
        widths[flexible] = max(1, min(widths[flexible], page.width - indent - others))
    titles = Row([column.title for column in columns])
    page.line(" " * indent, _assembled(page, columns, widths, shown, titles), style="dim")
    for row in rows:
        page.line(" " * indent, _assembled(page, columns, widths, shown, row))
        for note in row.notes:
            page.flow([Text(item, style="dim") for item in note], indent=indent + 5)


def table_width(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """The width that the table needs to be printed in full."""
    widths, shown = _widths(columns, rows)
    return sum(widths[i] + _GAP for i in shown) - _GAP


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """The width that each column needs, and the columns that are not empty."""
    widths = [max([cell_len(row.cells[i]) for row in rows], default=0) for i in range(len(columns))]
    shown = [i for i, width in enumerate(widths) if width > 0]
    return [max(width, cell_len(column.title)) for width, column in zip(widths, columns, strict=True)], shown


def _fitting(columns: Sequence[Column], widths: Sequence[int], shown: list[int], room: int) -> list[int]:
    """The columns that leave the flexible one legible, the most dispensable dropped first."""
    shown = list(shown)
    while _needed(columns, widths, shown) > room:
        droppable = [i for i in shown if columns[i].drop]
        if not droppable:
            break
        shown.remove(max(droppable, key=lambda i: columns[i].drop))
    return shown


def _needed(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int]) -> int:
    least = [min(widths[i], _LEGIBLE_NAME) if columns[i].flexible else widths[i] for i in shown]
    return sum(least) + _GAP * (len(least) - 1)


def _assembled(page: Page, columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], row: Row) -> Text:
    line = Text()
    for position, i in enumerate(shown):
        cell = page.shortened(row.cells[i], widths[i])
        padding = " " * (widths[i] - cell_len(cell))
        style = row.styles[i] if row.styles else columns[i].style
        line.append(" " * _GAP if position else "")
        line.append(padding if columns[i].right else "")
        line.append(cell, style=style or None)
        line.append("" if columns[i].right else padding)
    return line
