"""Matching by name alone: each step looks only at the names that the steps before it left over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, Oddity, TensorEntry
from diffai_stream.plan.naming import place

Found = tuple[str, str, TensorEntry | None, TensorEntry | None]  # name, match, old, new; a plain tuple: there are many
_PREFIXES = re.compile(r"(?:module\.|model\.|_orig_mod\.|base_model\.model\.)+")


@dataclass
class Matching:
    """What is matched so far, and the entries by name that are not."""

    old: dict[str, TensorEntry]
    new: dict[str, TensorEntry]
    found: list[Found] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)

    def pair(self, old_name: str, new_name: str, match: str) -> None:
        """Pair two unmatched names."""
        self.found.append((old_name, match, self.old.pop(old_name), self.new.pop(new_name)))

    def unmatched(self, side: str) -> dict[str, TensorEntry]:
        """The entries of a side, "old" or "new", that are not matched yet."""
        return self.old if side == "old" else self.new

    def tie(self, side: str, name: str, stored: TensorEntry) -> None:
        """Pair the unmatched `name` of one side with the other side's entry that it is tied to, matched or not."""
        entry = self.unmatched(side).pop(name)
        self.unmatched("new" if side == "old" else "old").pop(stored.name, None)
        old, new = (entry, stored) if side == "old" else (stored, entry)
        self.found.append((name, "tied", old, new))


def match_exact(matching: Matching) -> None:
    """Equal names."""
    old, new = matching.old, matching.new
    matching.found = [(name, "exact", entry, new[name]) for name, entry in old.items() if name in new]
    matching.old = {name: entry for name, entry in old.items() if name not in new}
    matching.new = {name: entry for name, entry in new.items() if name not in old}


def match_rules(matching: Matching, rules: Sequence[tuple[str, str]]) -> None:
    """The user's rules. Raises UsageError for one that matches nothing."""
    for old_pattern, new_pattern in rules:
        if old_pattern.count("*") != new_pattern.count("*"):
            raise UsageError(f"--map {old_pattern}={new_pattern} has not as many * on both sides")
        source = re.compile("(.*?)".join(map(re.escape, old_pattern.split("*"))), re.DOTALL)
        hits = 0
        for name in list(matching.old):
            target = _substituted(new_pattern, source.fullmatch(name))
            if target is not None and target in matching.new:
                matching.pair(name, target, "renamed")
                hits += 1
        if not hits:
            raise UsageError(f"--map {old_pattern}={new_pattern} matches no tensors that are not paired by their names already")


def _substituted(pattern: str, found: re.Match[str] | None) -> str | None:
    """The new name that a rule gives to a matched old one."""
    if found is None:
        return None
    first, *others = pattern.split("*")
    return first + "".join(text + other for text, other in zip(found.groups(), others, strict=True))


def match_prefixes(matching: Matching) -> None:
    """Names that differ by what wrappers put in front of them."""
    new = _stripped(matching.new)
    for stripped, name in _stripped(matching.old).items():
        if stripped in new:
            matching.pair(name, new[stripped], "renamed")


def _stripped(names: Iterable[str]) -> dict[str, str]:
    """Name without wrapper prefixes -> name, for those that no other name shares."""
    owners: dict[str, list[str]] = {}
    for name in names:
        found = _PREFIXES.match(name)
        owners.setdefault(name[found.end() :] if found else name, []).append(name)
    return {stripped: names[0] for stripped, names in owners.items() if len(names) == 1 and stripped}


def match_aliases(matching: Matching, old: Checkpoint, new: Checkpoint) -> None:
    """Names that the other side knows as another name of a tensor it stores."""
    for side, other in (("new", old), ("old", new)):
        if not other.aliases:
            continue
        entries = {entry.name: entry for entry in other.tensors}
        for name in list(matching.unmatched(side)):
            stored = entries.get(_resolved(name, other.aliases))
            if stored is not None and stored.name != name:
                matching.tie(side, name, stored)


def _resolved(name: str, aliases: Mapping[str, str]) -> str:
    """The end of a chain of aliases; the chain is followed no longer than there are aliases."""
    for _ in aliases:
        if name not in aliases:
            break
        name = aliases[name]
    return name


def match_heads(matching: Matching, old: Checkpoint, new: Checkpoint) -> None:
    """Output heads that the other side does not store at all: there the embedding serves as head."""
    for side, other in (("new", old), ("old", new)):
        heads = [name for name in matching.unmatched(side) if place(name).role == "lm_head"]
        if not heads or any(place(entry.name).role == "lm_head" for entry in other.tensors):
            continue
        for name in heads:
            embeddings = _embeddings_like(matching.unmatched(side)[name], matching.found, side)
            if len(embeddings) == 1:
                matching.tie(side, name, embeddings[0])


def _embeddings_like(head: TensorEntry, found: Iterable[Found], side: str) -> list[TensorEntry]:
    """The other side's embeddings that are paired with one of this side, both of the head's shape and encoding."""
    kind = (head.shape, head.encoding)
    return [
        stored
        for _, _, old, new in found
        for entry, stored in ([(old, new)] if side == "old" else [(new, old)])
        if entry and stored and (entry.shape, entry.encoding) == (stored.shape, stored.encoding) == kind
        if place(entry.name).role == "embedding"
    ]
