"""The page that text is printed on: width, colour and characters decided once, lines that never exceed it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.figures import escaped

_UNLIMITED: Final = 1 << 20


@dataclass(frozen=True)
class Symbols:
    """The characters of decoration; `levels` and `bar` go from little to much."""

    arrow: str
    ellipsis: str
    times: str
    none: str
    dash: str
    levels: str
    bar: str


UNICODE: Final = Symbols(arrow="→", ellipsis="…", times="×", none="·", dash="–", levels="░▒▓█", bar="▏▎▍▌▋▊▉█")
ASCII: Final = Symbols(arrow="->", ellipsis="...", times="x", none="-", dash="-", levels=".:*#", bar="#")


class Page:
    """Prints styled lines as bytes on a stream. Names are always passed through `name`, never printed raw."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self.options = options
        self.symbols = UNICODE if options.unicode else ASCII
        self.width = options.width or _UNLIMITED
        self._stream = stream
        self._buffer = io.StringIO()
        self._console = Console(
            file=self._buffer,
            width=self.width,
            color_system="256" if options.color else None,
            force_terminal=options.color,
            no_color=not options.color,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def name(self, text: str) -> str:
        """A name or message from a file, safe to print; in ASCII when the page is ASCII."""
        safe = escaped(text)
        return safe if self.options.unicode else safe.encode("ascii", "backslashreplace").decode()

    def shortened(self, text: str, width: int) -> str:
        """The text with its middle left out where it is wider than `width`: both ends of a tensor name tell it apart."""
        if cell_len(text) <= width:
            return text
        room = width - cell_len(self.symbols.ellipsis)
        if room < 2:
            return _cropped(text, width)
        head = _cropped(text, room // 2)
        tail = _cropped(text[::-1], room - cell_len(head))[::-1]
        return f"{head}{self.symbols.ellipsis}{tail}"

    def line(self, *parts: Text | str, style: str = "") -> None:
        """Print one line, cropped to the width."""
        text = _joined(parts, style)
        text.rstrip()
        text.truncate(self.width)
        self._emit(text)

    def paragraph(self, *parts: Text | str, style: str = "", indent: int = 2) -> None:
        """Print text over as many lines as it needs, the later ones indented."""
        text = _joined(parts, style)
        room = max(self.width - indent, 1)
        if text.cell_len <= self.width:
            self._emit(text)
            return
        for index, line in enumerate(text.wrap(self._console, room, overflow="fold")):
            line.rstrip()
            self._emit(Text(" " * min(indent, self.width - 1) if index else "") + line)

    def flow(self, items: Sequence[Text], indent: int = 2) -> None:
        """Print items beside each other, over as many lines as they need; only one wider than a line is broken."""
        indent = min(indent, self.width // 4)
        line = Text(" " * indent)
        for item in items:
            if line.cell_len > indent and line.cell_len + 2 + item.cell_len > self.width:
                self.line(line)
                line = Text(" " * indent)
            line.append("  " if line.cell_len > indent else "").append_text(item)
        self.paragraph(line, indent=indent)

    def heading(self, title: str) -> None:
        """Print a blank line and the title of a section."""
        self._emit(Text())
        self.line(title, style="bold")

    def flush(self) -> None:
        """Pass on what is printed."""
        self._stream.flush()

    def _emit(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
        self._stream.write(self._buffer.getvalue().encode("utf-8", "backslashreplace"))
        self._buffer.seek(0)
        self._buffer.truncate()


def _joined(parts: tuple[Text | str, ...], style: str) -> Text:
    return Text.assemble(*parts, style=style)


def _cropped(text: str, width: int) -> str:
    kept, used = [], 0
    for char in text:
        used += cell_len(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept)
