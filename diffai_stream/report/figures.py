"""Numbers, sizes, shapes and names as people read them; nothing here can print a control character."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_DECIMAL_UNITS: Final = ("", "k", "M", "B", "T")
_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_SHOWN_ITEMS: Final = 4


def escaped(text: str) -> str:
    r"""The text with everything that could steer a terminal shown as its escape: `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def finite(item: object) -> float | None:
    """The number, or None for anything that is none or not finite."""
    return float(item) if isinstance(item, (int, float)) and math.isfinite(item) else None


def number(value: float | None) -> str:
    """Three significant digits; integers in full with thousands separators, null as `n/a`."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}"


def aligned(value: float | None) -> str:
    """Three significant digits with their trailing zeros, so that figures below each other compare at a glance."""
    if not value or not math.isfinite(value):
        return number(value)
    return f"{value:#.3g}".rstrip(".")


def percent(ratio: float | None) -> str:
    """A ratio 0..1 in percent; `100%` and `0%` only where they are exact."""
    if ratio is None or not math.isfinite(ratio):
        return "n/a"
    if ratio in (0.0, 1.0):
        return f"{ratio:.0%}"
    if ratio < 0.001:
        return "<0.1%"
    return ">99.9%" if ratio > 0.999 else f"{ratio:.1%}"


def size(nbytes: float) -> str:
    """Bytes in decimal units, three significant digits."""
    return _scaled(nbytes, _BYTE_UNITS, " ")


def count(total: float) -> str:
    """A count of parameters in the usual short form: 512, 4.19M, 6.74B."""
    return _scaled(total, _DECIMAL_UNITS, "")


def _scaled(value: float, units: Sequence[str], gap: str) -> str:
    index = 0
    while abs(value) >= 999.5 and index < len(units) - 1:
        value /= 1000
        index += 1
    digits = f"{value:.0f}" if index == 0 or abs(value) >= 99.95 else f"{value:.3g}"
    return f"{digits}{gap}{units[index]}"


def seconds(elapsed: float) -> str:
    """A duration: 0.42 s, 12.3 s, 3 min 05 s, 2 h 07 min."""
    if elapsed < 60:
        return f"{elapsed:.2f} s" if elapsed < 10 else f"{elapsed:.1f} s"
    minutes, rest = divmod(round(elapsed), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def plural(total: int, noun: str) -> str:
    """`1 tensor`, `1,024 tensors`."""
    return f"{total:,} {noun}" if total == 1 else f"{total:,} {noun}s"


def shape(axes: Sequence[int], times: str) -> str:
    """Axes joined by `times`; a tensor without axes is a scalar."""
    return times.join(str(axis) for axis in axes) if axes else "scalar"


def value(item: Any, ellipsis: str) -> str:
    """Any field of a record on one line: long lists are cut, objects written as key=value."""
    if item is None or (isinstance(item, (int, float)) and not isinstance(item, bool)):
        return number(item)
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, Mapping):
        return "{" + " ".join(f"{escaped(str(key))}={value(inner, ellipsis)}" for key, inner in item.items()) + "}"
    if isinstance(item, (list, tuple)):
        return _listed(item, ellipsis)
    return escaped(str(item))


def _listed(items: Sequence[Any], ellipsis: str) -> str:
    shown = [value(item, ellipsis) for item in items[:_SHOWN_ITEMS]]
    if len(items) > _SHOWN_ITEMS:
        shown.append(f"{ellipsis} {len(items) - _SHOWN_ITEMS:,} more")
    return "[" + ", ".join(shown) + "]"
