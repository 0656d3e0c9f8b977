"""Lists of a few rows on stdout: an aligned table for people, one JSON object a line for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffai_stream.cli.sections import SectionOption
from diffai_stream.cli.streams import StandardOutput

if TYPE_CHECKING:
    from diffai_stream.report.page import Page

_MARKS = {"ok": "green", "FAIL": "bold red", "-": "dim"}


def listing_options() -> list[SectionOption]:
    """`--json` and `--color`."""
    from diffai_stream.cli.options import COLORS
    from diffai_stream.cli.parameters import OneOf

    section = "What is printed"
    return [
        SectionOption(["--json", "is_json"], section, is_flag=True, allow_from_autoenv=False, help="One JSON object a line."),
        SectionOption(["--color"], section, type=OneOf(COLORS), default="auto", metavar="WHEN", help="auto, always or never."),
    ]


def print_json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print each row as one line of JSON."""
    output = StandardOutput()
    for row in rows:
        output.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n")
    output.flush()


def print_columns(titles: Sequence[str], rows: Sequence[Sequence[str]], color: Any, note: str = "") -> None:
    """Print rows under their titles; where a terminal is too narrow for all, the last cell of each stands below its row."""
    from diffai_stream.report.text_tables import Column, Row, print_table, table_width

    with _page(color) as page:
        columns = [Column(title) for title in titles]
        table = [Row([page.name(cell) for cell in row]) for row in rows]
        if table_width(columns, table) > page.width:
            columns = columns[:-1]
            table = [Row(row.cells[:-1], notes=[row.cells[-1:]] if row.cells[-1] else ()) for row in table]
        print_table(page, columns, table, indent=0)
        if note:
            page.line()
            page.paragraph(note, style="dim", indent=0)


def print_entries(entries: Iterable[tuple[str, str, str, str]], color: Any) -> None:
    """Print (mark, name, text, hint) entries; a long text runs over several lines, the hint stands below it."""
    from rich.text import Text

    rows = list(entries)
    marks, names = (max((len(row[index]) for row in rows), default=0) for index in (0, 1))
    indent = marks + names + 4
    with _page(color) as page:
        for mark, name, text, hint in rows:
            head = Text.assemble((f"{mark:{marks}}  ", _MARKS.get(mark, "")), f"{name:{names}}  ")
            page.paragraph(head, page.name(text), indent=indent)
            if hint:
                page.paragraph(" " * indent + page.name(hint), style="cyan", indent=indent)


@contextmanager
def _page(color: Any) -> Iterator[Page]:
    """A page as wide and colourful as stdout; what is printed on it goes out at the end."""
    from diffai_stream.report.colors import stream_options
    from diffai_stream.report.page import Page

    text = io.BytesIO()
    yield Page(text, stream_options(sys.stdout, color))
    output = StandardOutput()
    output.write(text.getvalue())
    output.flush()
