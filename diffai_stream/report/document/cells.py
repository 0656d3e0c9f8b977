"""Values of records as cells and text of a document: numbers with the digits that tell something, names as names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from diffai_stream.report import figures
from diffai_stream.report.document.blocks import Cell, Mark, Name, Part, text_of

TONES: Final = {"critical": "critical", "warning": "warning", "info": "info", "high": "warning", "medium": "warning"}
NAME_KEYS: Final = frozenset({"layer", "name", "tensor", "subject", "token", "least_alike", "path", "group"})
_SHOWN: Final = 6


def text(value: str) -> Cell:
    """A cell of running text."""
    return Cell((value,))


def name(value: object) -> Cell:
    """A cell with a name."""
    return Cell((Name(str(value)),))


def figure(value: float | None, tone: str = "") -> Cell:
    """A cell with a number; null is blank and sorts last."""
    shown = "" if figures.finite(value) is None else number(value)
    return Cell((shown,), figures.finite(value), tone)


def percent(ratio: float | None) -> Cell:
    """A cell with a ratio in percent."""
    return Cell(("" if ratio is None else figures.percent(ratio),), figures.finite(ratio))


def severity(value: object) -> Cell:
    """A cell with a severity, which sorts from bad to good."""
    order = {"critical": 0.0, "warning": 1.0, "info": 2.0}
    word = str(value or "")
    return Cell((Mark(word, TONES.get(word, "info")),) if word else ("",), order.get(word))


def number(value: float | None) -> str:
    """Three significant digits; more close to 1, where they would hide that it is not 1."""
    if isinstance(value, float) and 0.99 <= abs(value) < 1.01 and value not in (1.0, -1.0):
        shown = f"{value:.7g}"
        return shown if float(shown) not in (1.0, -1.0) else ("just below " if abs(value) < 1 else "just above ") + shown
    return figures.number(value)


def scalar(key: str, value: Any) -> Part:
    """A value of a field as text; a name where the field holds names."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if key.endswith("nbytes") or key.endswith("bytes_per_token"):
            return figures.size(value)
        return figures.seconds(value) if key.endswith("_seconds") else number(value)
    if key in NAME_KEYS:
        return Name(str(value))
    return figures.escaped(str(value))


def valued(key: str, value: Any) -> Cell:
    """A value of a field as a cell, whatever it is."""
    if value is None:
        return Cell(("",))
    if key in ("severity", "level"):
        return Cell((Mark(str(value), TONES.get(str(value), "info")),))
    if key == "passed":
        return Cell((Mark("yes", "good") if value else Mark("no", "critical"),), float(value))
    if isinstance(value, Mapping):
        return Cell((", ".join(f"{words(inner)} {text_of([scalar(inner, item)])}" for inner, item in value.items()),))
    if isinstance(value, (list, tuple)):
        return Cell((listed(key, value),))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Cell((scalar(key, value),), figures.finite(value) if is_number else None)


def listed(key: str, values: Sequence[Any], limit: int = _SHOWN) -> str:
    """The first values of a list, and how many more there are."""
    shown = [text_of(valued(key, item).parts) for item in values[:limit]]
    more = [f"{len(values) - limit:,} more"] if len(values) > limit else []
    return ", ".join([*shown, *more])


def words(key: str) -> str:
    """The name of a field as words."""
    return figures.escaped(key).replace("_nbytes", " bytes").replace("_", " ")
