"""Rows that other installed packages bring: formats, encodings, statistics, analyses, writers.

A package names them in its metadata, in an entry point group `diffai_stream.<kind>`:

    [project.entry-points."diffai_stream.formats"]
    lines = "diffai_example:FORMAT"

They are looked up only when a catalogue is asked for what it does not have, or for all it has: a run that needs none neither
looks for one nor imports it. What is wrong with one is told (`broken`), and the others work.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib import import_module
from threading import RLock
from typing import Any, NamedTuple, Protocol, Self, TypeVar

KINDS = ("formats", "encodings", "statistics", "analyses", "writers")
GROUP = "diffai_stream."
_METADATA = (".dist-info", ".egg-info")
_LINE = re.compile(r"([^=\s][^=]*?)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?")


class Row(Protocol):
    """What all rows of a catalogue have."""

    @property
    def name(self) -> str: ...  # noqa: D102


R = TypeVar("R", bound=Row)


class EntryPoint(NamedTuple):
    """A row that an installed package declares: its kind and name, where it lies, whose it is."""

    kind: str
    name: str
    module: str
    attribute: str
    distribution: str

    def load(self) -> Any:
        """The object it points at; raises whatever importing it raises."""
        found: Any = import_module(self.module)
        for name in self.attribute.split("."):
            found = getattr(found, name)
        return found


class BrokenPlugin(NamedTuple):
    """A declared row that cannot be used, and why."""

    kind: str
    name: str
    distribution: str
    reason: str

    @property
    def message(self) -> str:
        """One sentence."""
        return f"{self.kind} plug-in {self.name!r} of {self.distribution} is left out: {self.reason}"


_broken: dict[tuple[str, str, str], BrokenPlugin] = {}


def broken() -> tuple[BrokenPlugin, ...]:
    """What was found to be broken so far, in the order of kind and name."""
    return tuple(plugin for _, plugin in sorted(_broken.items()))


def is_broken(kind: str, name: str, distribution: str) -> bool:
    """Whether a plug-in's row was found to be broken."""
    return (kind, name, distribution) in _broken


def note(kind: str, name: str, distribution: str, reason: str) -> None:
    """Remember that a plug-in's row does not work."""
    _broken[kind, name, distribution] = BrokenPlugin(kind, name, distribution, reason)


def is_ours(thing: object) -> bool:
    """Whether an object is of a class of this package, and not of a plug-in."""
    return type(thing).__module__.startswith(GROUP)


def told(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def entry_points(kind: str) -> tuple[EntryPoint, ...]:
    """What installed packages declare of a kind, in the order of their names."""
    return tuple(point for point in _installed(tuple(sys.path)) if point.kind == kind)


@lru_cache(maxsize=4)
def _installed(paths: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """All entry points of our groups; of a package that is installed twice the first on the path counts.

    `importlib.metadata` finds the same, but importing it takes half as long as the whole of `diffai --help`.
    """
    found: dict[str, list[EntryPoint]] = {}
    for path in paths:
        for folder in _metadata_folders(path or os.curdir):
            name = _distribution(folder)
            key = re.sub(r"[-_.]+", "-", name.partition(" ")[0]).lower()
            if key not in found:
                found[key] = list(_declared(os.path.join(folder, "entry_points.txt"), name))
    return tuple(sorted(point for points in found.values() for point in points))


def _metadata_folders(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as items:
            yield from sorted(item.path for item in items if item.name.endswith(_METADATA))
    except OSError:
        return


def _distribution(folder: str) -> str:
    """`name version` of an installed package, as its folder is called."""
    name, _, version = os.path.basename(folder).rpartition(".")[0].partition("-")
    return f"{name} {version.partition('-')[0]}".strip()


def _declared(path: str, distribution: str) -> Iterator[EntryPoint]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return
    if GROUP not in text:
        return
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group.startswith(GROUP) and not line.startswith(("#", ";")) and (match := _LINE.fullmatch(line)):
            yield EntryPoint(group.removeprefix(GROUP), match[1], match[2], match[3], distribution)


def _accepts(row: Any) -> str | None:
    return None


class Catalogue(dict[str, R]):
    """Rows by name: those of this package first, those of plug-ins behind them once they have been asked for.

    `catalogue[name]` looks for a plug-in when there is no such row; `in`, `get` and iteration know only what is there already,
    and after `complete()` that is everything. `refuse` says why a row of a plug-in cannot be taken, None where it can;
    `adopt` is what becomes of one that is taken.
    """

    def __init__(
        self,
        kind: str,
        row_type: type[R],
        rows: Iterable[R],
        refuse: Callable[[R], str | None] = _accepts,
        adopt: Callable[[R, EntryPoint], R] = lambda row, point: row,
    ) -> None:
        super().__init__((row.name, row) for row in rows)
        self.kind = kind
        self.origins: dict[str, EntryPoint] = {}
        self._row_type, self._refuse, self._adopt = row_type, refuse, adopt
        self._seen: set[EntryPoint] = set()
        self._lock = RLock()

    def __missing__(self, name: str) -> R:
        if name in self.complete():
            return self[name]
        raise KeyError(name)

    def complete(self) -> Self:
        """The catalogue with the rows of all plug-ins; what is wrong with one is noted in `broken`."""
        with self._lock:
            for point in entry_points(self.kind):
                if point not in self._seen:
                    self._seen.add(point)
                    self._take(point)
        return self

    def _take(self, point: EntryPoint) -> None:
        try:
            row = point.load()
        except (Exception, SystemExit) as error:
            note(self.kind, point.name, point.distribution, told(error))
            return
        reason = self._reason(point, row)
        if reason is not None:
            note(self.kind, point.name, point.distribution, reason)
            return
        self.origins[point.name] = point
        self[point.name] = self._adopt(row, point)

    def _reason(self, point: EntryPoint, row: Any) -> str | None:
        """Why a loaded row cannot be taken."""
        if not isinstance(row, self._row_type):
            return f"{point.module}:{point.attribute} is no {self._row_type.__name__} but a {type(row).__name__}"
        if row.name != point.name:
            return f"its row is called {row.name!r} and its entry point {point.name!r}; give both one name"
        if row.name in self:
            owner = self.origins[row.name].distribution if row.name in self.origins else "diffai_stream itself"
            return f"{owner} has a row of that name"
        return self._refuse(row)

    def drop(self, name: str, reason: str) -> None:
        """Take a plug-in's row out, because it turned out not to work."""
        note(self.kind, name, self.origins.pop(name).distribution, reason)
        del self[name]

    def register(self, row: R) -> None:
        """Add a row of one's own to this process, as a notebook may want to. Raises ValueError for a name that is taken."""
        if row.name in self.complete():
            raise ValueError(f"there is a row called {row.name!r} already")
        self[row.name] = row
