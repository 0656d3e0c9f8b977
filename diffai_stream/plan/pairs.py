"""Tensor pairs: the unit of a comparison, which pairs the user selects, and which are equal without reading a byte."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import translate
from itertools import islice
from typing import NamedTuple

from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry

SUGGESTION_CANDIDATES = 20_000
PROFILED = "profiled"


class TensorPair(NamedTuple):
    """One tensor of each side, or of one side only.

    `index` is the position in the plan; `name` the old name, the new one when added, the missing name when tied; `match` is
    exact, renamed, tied, or how the layouts differ (`layouts.py`), joined by +; `status` is paired, profiled (equal shapes,
    but of one side only the figures are there), reshaped (the shapes differ), added (`old` is None) or removed (`new` is
    None); `identical` means known to be equal without reading.
    """

    index: int  # type: ignore[assignment]  # the plan's word; hides tuple.index
    name: str
    match: str
    old: TensorEntry | None
    new: TensorEntry | None
    status: str
    identical: bool
    layer: str
    role: str

    @property
    def entries(self) -> tuple[TensorEntry, ...]:
        """The sides that exist, old first."""
        if self.old is None:
            return (self.new,) if self.new is not None else ()
        return (self.old, self.new) if self.new is not None else (self.old,)

    @property
    def part(self) -> str:
        """What kind of state it is: weights, ema, optimizer or gradient."""
        return (self.old or self.new).part  # type: ignore[union-attr]  # one of them is there

    @property
    def numel(self) -> int:
        """Elements of the larger side."""
        if self.old is None or self.new is None:
            return self.entries[0].numel
        return self.old.numel if self.old.shape == self.new.shape else max(self.old.numel, self.new.numel)


def select(pairs: Iterable[TensorPair], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> tuple[TensorPair, ...]:
    """The pairs whose tensor or layer name matches a pattern of `include` (none: all) and no pattern of `exclude`.

    Patterns are case-sensitive globs (`*`, `?`, `[...]`). The pairs are numbered anew. Raises UsageError for a pattern
    that matches no pair, naming the nearest names.
    """
    pairs = tuple(pairs)
    kept = _matching(pairs, include, "--include") if include else set(range(len(pairs)))
    kept -= _matching(pairs, exclude, "--exclude")
    return numbered(pairs[position] for position in sorted(kept))


def numbered(pairs: Iterable[TensorPair]) -> tuple[TensorPair, ...]:
    """The pairs, numbered by their place."""
    return tuple([pair if pair.index == index else pair._replace(index=index) for index, pair in enumerate(pairs)])


def _matching(pairs: Sequence[TensorPair], patterns: Sequence[str], option: str) -> set[int]:
    """Positions of the pairs that match any of the patterns."""
    positions: set[int] = set()
    for pattern in patterns:
        matches = re.compile(translate(pattern)).match
        found = {position for position, pair in enumerate(pairs) if matches(pair.name) or matches(pair.layer)}
        if not found:
            raise UsageError(f"{option} {pattern!r} matches no tensor and no layer{_nearest(pattern, pairs)}")
        positions |= found
    return positions


def _nearest(pattern: str, pairs: Sequence[TensorPair]) -> str:
    names = dict.fromkeys(name for pair in pairs for name in (pair.layer, pair.name))
    near = get_close_matches(pattern, islice(names, SUGGESTION_CANDIDATES), n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else ""


class SharedBytes:
    """Tells which entries of two checkpoints lie in the same bytes, judged by their files and without reading them.

    Files are the same when they resolve to one path or one inode (at equal size and modification time), or when both
    carry the same content name.
    """

    def __init__(self, old: Checkpoint, new: Checkpoint) -> None:
        known: dict[tuple[object, ...], int] = {}
        numbers = {path: _file_number(path, old, known) for path in _paths(old)}
        twins: dict[int, list[str]] = {}
        for path, number in numbers.items():
            twins.setdefault(number, []).append(path)
        self._equal_files = {(twin, path) for path in _paths(new) for twin in twins.get(_file_number(path, new, known), ())}

    def identical(self, old: TensorEntry, new: TensorEntry) -> bool:
        """Whether both entries read the same ranges of the same files in the same way."""
        if not self._equal_files or not old.components or (old.shape, old.encoding) != (new.shape, new.encoding):
            return False
        if (old.metadata, old.region) != (new.metadata, new.region) or old.components.keys() != new.components.keys():
            return False
        return all(self._same(component, new.components[name]) for name, component in old.components.items())

    def _same(self, old: Component, new: Component) -> bool:
        if old[1:] != new[1:] or len(old.extents) != len(new.extents):
            return False
        extents = zip(old.extents, new.extents, strict=True)
        return all(left[1:] == right[1:] and (left.path, right.path) in self._equal_files for left, right in extents)


def _paths(checkpoint: Checkpoint) -> Iterable[str]:
    return dict.fromkeys((*checkpoint.stamps, *checkpoint.identities))


def _file_number(path: str, checkpoint: Checkpoint, known: dict[tuple[object, ...], int]) -> int:
    """A number equal for files that are the same; `known` holds what was seen before."""
    resolved = path if "://" in path else os.path.realpath(path)
    keys: list[tuple[object, ...]] = []
    if stamp := checkpoint.stamps.get(path):
        keys.append(("path", resolved, stamp.nbytes, stamp.mtime_ns))
        if stamp.inode[1]:
            keys.append(("inode", stamp.inode, stamp.nbytes, stamp.mtime_ns))
    if path in checkpoint.identities:
        keys.append(("content", checkpoint.identities[path]))
    number = next((known[key] for key in keys if key in known), len(known))
    for key in keys:
        known.setdefault(key, number)
    return number
