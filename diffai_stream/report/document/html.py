"""A document as one HTML page that needs nothing else: no network, dark and light, tables that can be sorted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from html import escape
from importlib.resources import files

from diffai_stream.report.document.blocks import (
    Block,
    Cell,
    Chart,
    Column,
    Document,
    Legend,
    Listing,
    Mark,
    Name,
    Paragraph,
    Parts,
    Section,
    Table,
    Tiles,
    Verbatim,
)
from diffai_stream.report.figures import escaped


def render(document: Document) -> str:
    """The page. Only its own style and its own script may run in it, which it says in its content security policy."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:"
    body = "\n".join(_body(document))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(document.title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _body(document: Document) -> Iterator[str]:
    yield "<main>"
    yield f"<h1>{_text(document.title)}</h1>"
    for block in document.lead:
        yield from _block(block)
    if len(document.sections) > 2:
        links = "".join(f'<a href="#{escape(section.anchor)}">{_inline(section.title)}</a>' for section in document.sections)
        yield f'<nav aria-label="Sections">{links}</nav>'
    for section in document.sections:
        yield from _section(section, 2)
    yield f"</main><footer>{_text(document.footer)}</footer>"


def _section(section: Section, level: int) -> Iterator[str]:
    heading = f"<h{level}>{_inline(section.title)}</h{level}>"
    tag = f'<section id="{escape(section.anchor)}">'
    yield tag + (f"<details><summary>{heading}</summary>" if section.folded else heading)
    for block in section.blocks:
        yield from _block(block)
    for inner in section.sections:
        yield from _section(inner, min(level + 1, 6))
    yield ("</details>" if section.folded else "") + "</section>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Table():
            yield from _table(block)
        case Paragraph():
            yield f"<p{' class=quiet' if block.quiet else ''}>{_inline(block.parts)}</p>"
        case Listing():
            yield "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>"
        case Tiles():
            tiles = (
                f'<div class="tile {tile.tone}"><dt>{_text(tile.title)}</dt><dd>{_text(tile.text)}</dd></div>'
                for tile in block.tiles
            )
            yield f"<dl class=tiles>{''.join(tiles)}</dl>"
        case Legend():
            yield f"<p class=legend>{_text(block.title)}: {' '.join(map(_mark, block.marks))}</p>"
        case Verbatim():
            yield "<pre>" + "\n".join(_text(line) for line in block.text.splitlines()) + "</pre>"
        case Chart():
            data = base64.b64encode(block.svg.encode()).decode()
            image = f'<img alt="{_text(block.description)}" src="data:image/svg+xml;base64,{data}">'
            yield f"<figure><figcaption>{_text(block.title)}</figcaption>{image}</figure>"


def _table(table: Table) -> Iterator[str]:
    used = [place for place in range(len(table.columns)) if any(_inline(row[place].parts) for row in table.rows)]
    yield '<div class=scroll tabindex=0 role=region aria-label="Table"><table>'
    if table.caption:
        yield f"<caption>{_text(table.caption)}</caption>"
    yield "<thead><tr>" + "".join(_head(table.columns[place]) for place in used) + "</tr></thead><tbody>"
    for row in table.rows:
        yield "<tr>" + "".join(_cell(row[place], table.columns[place]) for place in used) + "</tr>"
    yield "</tbody></table></div>"
    if table.note:
        yield f"<p class=quiet>{_text(table.note)}</p>"


def _head(column: Column) -> str:
    classes = " class=number" if column.is_number else ""
    hint = f' title="{_text(column.hint)}"' if column.hint else ""
    return f"<th scope=col{classes}{hint}>{_text(column.title)}</th>"


def _cell(cell: Cell, column: Column) -> str:
    classes = " ".join(filter(None, ("number" if column.is_number else "", cell.tone)))
    sort = f' data-sort="{cell.sort!r}"' if cell.sort is not None else ""
    return f"<td{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}{sort}>{_inline(cell.parts)}</td>"


def _inline(parts: Parts) -> str:
    shown = []
    for part in parts:
        if isinstance(part, Name):
            shown.append(f"<code>{_text(part.text)}</code>")
        else:
            shown.append(_mark(part) if isinstance(part, Mark) else _text(part))
    return "".join(shown)


def _mark(mark: Mark) -> str:
    return f'<span class="mark {mark.tone}">{_text(mark.text)}</span>' if mark.text else ""


def _text(plain: str) -> str:
    """Plain text: no markup, and nothing that steers the direction of writing."""
    return escape(escaped(plain))
