"""Whether to colour, which characters to use, how wide: decided once, from the flag, the environment and the stream.

The order is that of no-color.org and bixense.com/clicolors; the first rule that applies decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, TextIO, TypeAlias

from diffai_stream.report.base import WriterOptions

ColorFlag: TypeAlias = Literal["always", "never", "auto"]


def wants_color(flag: ColorFlag, environ: Mapping[str, str], is_terminal: bool) -> bool:
    """`--color` > NO_COLOR > FORCE_COLOR, CLICOLOR_FORCE > CLICOLOR=0 > a terminal that is not dumb."""
    if flag != "auto":
        return flag == "always"
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0", "false") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    if environ.get("CLICOLOR") == "0":
        return False
    return is_terminal and environ.get("TERM") != "dumb"


def wants_unicode(encoding: str | None, environ: Mapping[str, str]) -> bool:
    """True when the stream is UTF-8 and the locale, where one is named, says the same."""
    if (encoding or "").lower().replace("-", "").replace("_", "") not in ("utf8", "utf8sig"):
        return False
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    codeset = locale.partition(".")[2].partition("@")[0].lower().replace("-", "")
    return locale not in ("C", "POSIX") and codeset in ("", "utf8")


def terminal_width(stream: TextIO, environ: Mapping[str, str]) -> int | None:
    """Columns of the terminal, COLUMNS first; None when the stream is no terminal and nothing may be shortened."""
    if not stream.isatty():
        return None
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def stream_options(
    stream: TextIO,
    flag: ColorFlag = "auto",
    *,
    top: int = 20,
    timestamps: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> WriterOptions:
    """The options of a writer on this stream."""
    return WriterOptions(
        color=wants_color(flag, environ, stream.isatty()),
        width=terminal_width(stream, environ),
        unicode=wants_unicode(stream.encoding, environ),
        top=top,
        timestamps=timestamps,
    )
