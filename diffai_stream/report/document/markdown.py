"""A document as GitHub-flavoured Markdown (GFM, https://github.github.com/gfm/): no name can become markup."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Final

from diffai_stream.report.document.blocks import (
    Block,
    Chart,
    Document,
    Legend,
    Listing,
    Mark,
    Name,
    Paragraph,
    Part,
    Parts,
    Section,
    Table,
    Tiles,
    Verbatim,
)
from diffai_stream.report.figures import escaped

_PUNCTUATION: Final = re.compile(r"([\\`*_\[\]<>|#&~@$!{}])")
_AT_START: Final = re.compile(r"^(\s*)([-+=]|\d+[.)])")
_DEEPEST: Final = 6


def render(document: Document) -> str:
    """The document as Markdown text, ending with a newline."""
    return "\n\n".join(_pieces(document)) + "\n"


def _pieces(document: Document) -> Iterator[str]:
    yield f"# {text(document.title)}"
    for block in document.lead:
        yield from _block(block)
    for section in document.sections:
        yield from _section(section, 2)
    yield f"<sub>{text(document.footer)}</sub>"


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"{'#' * min(level, _DEEPEST)} {inline(section.title)}"
    for block in section.blocks:
        yield from _block(block)
    for inner in section.sections:
        yield from _section(inner, level + 1)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Table():
            yield from _table(block)
        case Paragraph():
            yield _guarded(inline(block.parts))
        case Listing():
            yield "\n".join(f"- {_guarded(inline(item))}" for item in block.items)
        case Tiles():
            titles, values = [text(tile.title) for tile in block.tiles], [f"**{text(tile.text)}**" for tile in block.tiles]
            yield _rows([titles, values], [False] * len(titles))
        case Verbatim():
            yield _fenced(block.text)
        case Legend():
            pass  # Markdown has no shades: the figures are in the cells
        case Chart():
            data = base64.b64encode(block.svg.encode()).decode()
            yield f"**{text(block.title)}**"
            yield f"![{text(block.description)}](data:image/svg+xml;base64,{data})"


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield _guarded(text(table.caption))
    used = [place for place in range(len(table.columns)) if any(_filled(row[place].parts) for row in table.rows)]
    titles = [text(table.columns[place].title) for place in used]
    rows = [[inline(row[place].parts, in_table=True) for place in used] for row in table.rows]
    if used:
        yield _rows([titles, *rows], [table.columns[place].is_number for place in used])
    if table.note:
        yield text(table.note)


def _filled(parts: Parts) -> bool:
    return any(part if isinstance(part, str) else part.text for part in parts)


def _rows(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(" ---: " if is_right else " --- " for is_right in right) + "|")
    return "\n".join(lines)


def inline(parts: Parts, in_table: bool = False) -> str:
    """Parts on one line."""
    return "".join(_part(part, in_table) for part in parts)


def _part(part: Part, in_table: bool) -> str:
    if isinstance(part, Name):
        return _code(part.text, in_table)
    if isinstance(part, Mark):
        return f"**{text(part.text)}**" if part.text else ""
    return text(part)


def text(plain: str) -> str:
    """Plain text: what Markdown or HTML would read as markup, a mention or a reference is escaped."""
    return _PUNCTUATION.sub(r"\\\1", escaped(plain))


def _guarded(line: str) -> str:
    """A line that begins no list and no heading."""
    return _AT_START.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", line)


def _code(name: str, in_table: bool) -> str:
    """A code span; a fence longer than any run of backticks in it. In tables GFM needs every pipe escaped, in code too."""
    shown = escaped(name) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    padded = f" {shown} " if shown.startswith("`") or shown.endswith("`") else shown
    span = f"{fence}{padded}{fence}"
    return span.replace("|", "\\|") if in_table else span


def _fenced(block: str) -> str:
    lines = [escaped(line) for line in block.splitlines()]
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
    return "\n".join([fence, *lines, fence])
