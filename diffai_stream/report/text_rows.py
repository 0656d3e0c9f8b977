"""Records of one analysis below each other: a column a field, old and new side by side, what is the same in all said once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from diffai_stream.report.figures import value
from diffai_stream.report.kept import own_fields
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record
from diffai_stream.report.text_tables import Column, Row, print_table

LEAST_ROWS: Final = 3
_LONGEST_CELL: Final = 28


def render_rows(page: Page, records: Sequence[Record], severity_styles: Mapping[str, str]) -> None:
    """Print the records as a table; lists and longer texts are named below it, they are in every other output."""
    told = [_told(page, own_fields(record)) for record in records]
    keys = list(dict.fromkeys(key for fields in told for key in fields))
    cells = {key: [fields.get(key, "") for fields in told] for key in keys}
    same = {key: column[0] for key, column in cells.items() if len(set(column)) == 1}
    shown = [key for key in keys if key not in same]
    graver = {record.get("severity") for record in records} - {"info", None}
    columns = [
        Column("severity"),
        Column(str(records[0]["scope"]), flexible=True),
        *(Column(key.replace("_", " "), right=True, drop=place) for place, key in enumerate(shown)),
    ]
    rows = []
    for place, record in enumerate(records):
        severity = str(record.get("severity") or "") if graver else ""
        styles = (severity_styles.get(severity, ""), *[""] * (len(columns) - 1))
        rows.append(Row([severity, page.name(str(record.get("subject", ""))), *(cells[key][place] for key in shown)], styles))
    if shown or graver:
        print_table(page, columns, rows)
    else:
        page.line(f"  {len(rows)} {records[0]['scope']}s, {rows[0].cells[1]} to {rows[-1].cells[1]}")
    _render_rest(page, same, records)


def _render_rest(page: Page, same: Mapping[str, str], records: Sequence[Record]) -> None:
    """What all have in common, and what has no column."""
    if same:
        common = "  ".join(f"{key}={text}" for key, text in same.items() if text)
        page.paragraph(f"  in all: {common}", style="dim", indent=6)
    missing = dict.fromkeys(key for record in records for key, item in own_fields(record).items() if item and not _fits(item))
    if missing:
        page.paragraph(f"  not shown: {', '.join(map(page.name, missing))} (-o ndjson has them)", style="dim", indent=6)


def _fits(item: Any) -> bool:
    """Whether a field can be a cell."""
    return not isinstance(item, (Mapping, list, tuple)) and not (isinstance(item, str) and len(item) > _LONGEST_CELL)


def _told(page: Page, fields: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a record: `old_x` and `new_x` are one, `x`, with both values where they differ."""
    texts = {key: _text(page, item) for key, item in fields.items() if _fits(item)}
    found: dict[str, str] = {}
    for key, text in texts.items():
        stem = key.removeprefix("old_").removeprefix("new_")
        if stem != key and {f"old_{stem}", f"new_{stem}"} <= texts.keys():
            old, new = texts[f"old_{stem}"], texts[f"new_{stem}"]
            found[stem] = old if old == new else f"{old} {page.symbols.arrow} {new}"
        else:
            found[key] = text
    return found


def _text(page: Page, item: Any) -> str:
    return page.name(value(item, page.symbols.ellipsis)) if item is not None else ""
