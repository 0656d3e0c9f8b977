"""What may stand behind an option: sizes, amounts, names of a list, rules. A wrong value names the nearest right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from math import isfinite
from typing import Any

import click
from click.shell_completion import CompletionItem

from diffai_stream.plugins import Catalogue

KIB = 1 << 10
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)


def nearest(word: str, words: Sequence[str]) -> str:
    """`did you mean 'x'?`, or all there are when nothing is near."""
    near = get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"one of {', '.join(words)}"


class CheckpointPath(click.ParamType):
    """A path or address, passed on as given; a shell completes it as a file name."""

    name = "checkpoint"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Files."""
        return [CompletionItem(incomplete, type="file")]


class OneOf(click.ParamType):
    """One of the names."""

    name = "name"

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self._names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself."""
        if value not in self.names:
            self.fail(f"{value!r} is not known; {nearest(str(value), self.names)}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in self.names if name.startswith(incomplete)]


class RowOf(OneOf):
    """The name of a row of a catalogue; plug-ins are looked for where it has none of that name."""

    def __init__(self, catalogue: Catalogue[Any]) -> None:
        super().__init__(())
        self._catalogue = catalogue

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the catalogue, as far as it is known."""
        return tuple(self._catalogue)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself."""
        if value not in self._catalogue:
            self._catalogue.complete()
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, those of plug-ins too."""
        self._catalogue.complete()
        return super().shell_complete(ctx, param, incomplete)


class SomeOf(OneOf):
    """Some of the names, separated by commas."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A tuple of the names, each once, in the order given."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",") if word.strip()]
        if not words:
            self.fail(f"it names nothing; a list of {', '.join(self.names)}", param, ctx)
        return tuple(dict.fromkeys(OneOf.convert(self, word, param, ctx) for word in words))


class Amount(click.ParamType):
    """A finite number that is not negative."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            amount = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not isfinite(amount) or amount < 0:
            self.fail(f"{value!r} must be finite and not negative", param, ctx)
        return amount


class Whole(click.ParamType):
    """A whole number, not below the minimum."""

    name = "count"

    def __init__(self, minimum: int = 0) -> None:
        self.minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if number < self.minimum:
            self.fail(f"{value!r} is too small; at least {self.minimum}", param, ctx)
        return number


class Size(click.ParamType):
    """Bytes: `16MiB`, `1.5G` and `1g` count by 1024, `500MB` by 1000, a bare number is bytes."""

    name = "size"

    def __init__(self, minimum: int = 1) -> None:
        self.minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a size; write it like 16MiB, 1G, 500MB or 65536", param, ctx)
        number, unit, suffix = found.groups()
        base = 1000 if (suffix or "").lower() == "b" else 1024
        power = " kmgt".index(unit.lower()) if unit else 0
        nbytes = int(float(number) * base**power) if "." in number else int(number) * base**power
        if nbytes < self.minimum:
            self.fail(f"{value!r} is too small; at least {shown_size(self.minimum)}", param, ctx)
        return nbytes


class Renaming(click.ParamType):
    """`OLD=NEW`: two names."""

    name = "rule"

    def __init__(self, form: str = "OLD=NEW") -> None:
        self._form = form

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Both names."""
        if isinstance(value, tuple):
            return value
        old, equals, new = str(value).partition("=")
        if not (old and equals and new):
            self.fail(f"{value!r} is no rule; write it like {self._form}", param, ctx)
        return old, new


class Limit(click.ParamType):
    """`PATTERN=VALUE`: a glob and a number that is not negative."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Both."""
        if isinstance(value, tuple):
            return value
        pattern, equals, number = str(value).rpartition("=")
        if not (pattern and equals):
            self.fail(f"{value!r} is no limit; write it like 'model.layers.*=0.05'", param, ctx)
        return pattern, Amount().convert(number, param, ctx)


def shown_size(nbytes: int) -> str:
    """A size as `Size` reads it, in the largest unit that leaves no fraction."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if nbytes and nbytes % KIB**power == 0:
            return f"{nbytes // KIB**power}{unit}"
    return str(nbytes)
