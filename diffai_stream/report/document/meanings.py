"""What the fields of an analysis mean, in the words of its catalogue row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints, is_typeddict

from diffai_stream.analyses.catalogue import ANALYSES


class Meaning(NamedTuple):
    """What a field is, and the fields of the objects it holds."""

    text: str
    fields: Mapping[str, Meaning]


NONE: Mapping[str, Meaning] = {}


@cache
def meanings(analysis: str) -> Mapping[str, Meaning]:
    """The fields of the analysis' records; none for an analysis that is not in the catalogue."""
    row = ANALYSES.get(analysis)
    return _fields(row.fields) if row else NONE


def title_of(analysis: str) -> str:
    """What the analysis tells, in a sentence; empty when it is not in the catalogue."""
    row = ANALYSES.get(analysis)
    return row.title[:1].upper() + row.title[1:] + "." if row else ""


def _fields(typed_dict: type) -> dict[str, Meaning]:
    hints = get_type_hints(typed_dict, include_extras=True)
    return {key: Meaning(_text(hint), _inner(hint)) for key, hint in hints.items()}


def _text(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return " ".join(item for item in hint.__metadata__ if isinstance(item, str))
    return next((text for inner in get_args(hint) if (text := _text(inner))), "")


def _inner(hint: Any) -> Mapping[str, Meaning]:
    if is_typeddict(hint):
        return _fields(hint)
    return next((found for inner in get_args(hint) if (found := _inner(inner))), NONE)
