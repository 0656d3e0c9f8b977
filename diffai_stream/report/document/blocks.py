"""What a document is made of, before it is Markdown or HTML: text is plain here, each notation escapes it in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Name:
    """A name that a file or a user wrote: shown as code, whatever is in it."""

    text: str


@dataclass(frozen=True)
class Mark:
    """A word that stands out; `tone` is a severity, `good`, or a class of the heat map, `heat0` to `heat3`."""

    text: str
    tone: str


Part: TypeAlias = str | Name | Mark
Parts: TypeAlias = Sequence[Part]


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `sort` is what it is sorted by where that is a number, `tone` shades it."""

    parts: Parts
    sort: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """A column: numbers stand right, `hint` says what the figures are."""

    title: str
    is_number: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under titles; `note` says below them what was left out."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Running text; a `quiet` one is of less weight."""

    parts: Parts
    quiet: bool = False


@dataclass(frozen=True)
class Listing:
    """Items below each other."""

    items: Sequence[Parts]


@dataclass(frozen=True)
class Tile:
    """One of the few figures that a reader looks at first."""

    title: str
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Tiles:
    """These figures."""

    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Legend:
    """What the shades of the table above mean; only where there are shades."""

    title: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Verbatim:
    """Lines whose columns matter."""

    text: str


@dataclass(frozen=True)
class Chart:
    """A drawing, and in words what it shows."""

    title: str
    description: str
    svg: str


Block: TypeAlias = Table | Paragraph | Listing | Tiles | Legend | Verbatim | Chart


@dataclass(frozen=True)
class Section:
    """A heading and what is below it; a `folded` one is opened by the reader where the notation can."""

    title: Parts
    anchor: str
    blocks: Sequence[Block]
    sections: Sequence[Section] = field(default=())
    folded: bool = False


@dataclass(frozen=True)
class Document:
    """The whole: a title, what is said first, sections."""

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section]
    footer: str


def text_of(parts: Parts) -> str:
    """The bare text."""
    return "".join(part if isinstance(part, str) else part.text for part in parts)
