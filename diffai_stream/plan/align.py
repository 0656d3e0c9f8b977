"""Two indexes to tensor pairs: which tensor of the new checkpoint is which tensor of the old one.

Each step looks only at the names that the steps before it left over: exact names, the user's rules, prefixes that wrappers
add, tied weights that one side does not store, equal samples of the stored bytes. What is left is removed or added.
"""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, Oddity, TensorEntry
from diffai_stream.plan.naming import natural_key, place
from diffai_stream.plan.pairs import SharedBytes, TensorPair, select
from diffai_stream.storage.extent import Extent

__all__ = ["Alignment", "align", "read_range", "select"]

LARGE_NUMEL = 1 << 26
SAMPLE_NBYTES = 4096
SAMPLE_COUNT = 8

Read = Callable[[str, int, int], bytes]
_Found = tuple[str, str, TensorEntry | None, TensorEntry | None]  # name, match, old, new; a plain tuple: there are many
_PREFIXES = re.compile(r"(?:module\.|model\.|_orig_mod\.|base_model\.model\.)+")


class Alignment(NamedTuple):
    """The pairs in plan order, and what was odd about finding them."""

    pairs: tuple[TensorPair, ...]
    oddities: tuple[Oddity, ...]


@dataclass
class _Matching:
    """What is matched so far, and the entries by name that are not."""

    old: dict[str, TensorEntry]
    new: dict[str, TensorEntry]
    found: list[_Found] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)

    def pair(self, old_name: str, new_name: str, match: str) -> None:
        self.found.append((old_name, match, self.old.pop(old_name), self.new.pop(new_name)))

    def unmatched(self, side: str) -> dict[str, TensorEntry]:
        return self.old if side == "old" else self.new

    def tie(self, side: str, name: str, stored: TensorEntry) -> None:
        """Pair the unmatched `name` of one side with the other side's entry that it is tied to, matched or not."""
        entry = self.unmatched(side).pop(name)
        self.unmatched("new" if side == "old" else "old").pop(stored.name, None)
        old, new = (entry, stored) if side == "old" else (stored, entry)
        self.found.append((name, "tied", old, new))


def read_range(path: str, offset: int, nbytes: int) -> bytes:
    """Bytes of a local file; fewer than asked for at its end. Raises OSError when it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, nbytes, offset)
    finally:
        os.close(descriptor)


def align(old: Checkpoint, new: Checkpoint, rules: Sequence[tuple[str, str]] = (), read: Read = read_range) -> Alignment:
    """Match the tensors of two checkpoints.

    `rules` are pairs (old pattern, new pattern), literal or with `*`; `read(path, offset, nbytes)` gives the samples for
    renamed tensors and is called only when both sides have tensors left. Pairs come in the order of the old checkpoint,
    file by file, tensors above 2^26 elements last within their file; added tensors follow in the order of the new one.
    Raises UsageError for a rule that matches nothing.
    """
    matching = _Matching({entry.name: entry for entry in old.tensors}, {entry.name: entry for entry in new.tensors})
    _match_exact(matching)
    _match_rules(matching, rules)
    _match_prefixes(matching)
    _match_aliases(matching, old, new)
    _match_heads(matching, old, new)
    _match_samples(matching, read)
    matching.found += [(name, "exact", entry, None) for name, entry in matching.old.items()]
    matching.found += [(name, "exact", None, entry) for name, entry in matching.new.items()]
    return Alignment(_planned(matching.found, old, new), tuple(matching.oddities))


def _match_exact(matching: _Matching) -> None:
    old, new = matching.old, matching.new
    matching.found = [(name, "exact", entry, new[name]) for name, entry in old.items() if name in new]
    matching.old = {name: entry for name, entry in old.items() if name not in new}
    matching.new = {name: entry for name, entry in new.items() if name not in old}


def _match_rules(matching: _Matching, rules: Sequence[tuple[str, str]]) -> None:
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


def _match_prefixes(matching: _Matching) -> None:
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


def _match_aliases(matching: _Matching, old: Checkpoint, new: Checkpoint) -> None:
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


def _match_heads(matching: _Matching, old: Checkpoint, new: Checkpoint) -> None:
    """Output heads that the other side does not store at all: there the embedding serves as head."""
    for side, other in (("new", old), ("old", new)):
        heads = [name for name in matching.unmatched(side) if place(name).role == "lm_head"]
        if not heads or any(place(entry.name).role == "lm_head" for entry in other.tensors):
            continue
        for name in heads:
            embeddings = _embeddings_like(matching.unmatched(side)[name], matching.found, side)
            if len(embeddings) == 1:
                matching.tie(side, name, embeddings[0])


def _embeddings_like(head: TensorEntry, found: Iterable[_Found], side: str) -> list[TensorEntry]:
    """The other side's embeddings that are paired with one of this side, both of the head's shape and encoding."""
    kind = (head.shape, head.encoding)
    return [
        stored
        for _, _, old, new in found
        for entry, stored in ([(old, new)] if side == "old" else [(new, old)])
        if entry and stored and (entry.shape, entry.encoding) == (stored.shape, stored.encoding) == kind
        if place(entry.name).role == "embedding"
    ]


class _Sample(NamedTuple):
    """What entries must share to be the same tensor; `ending` only where the bytes are too plain to tell them apart."""

    layout: tuple[object, ...]
    digest: bytes
    ending: str


def _match_samples(matching: _Matching, read: Read) -> None:
    """Tensors of equal encoding and shape whose sampled bytes are equal."""
    old, new = _by_layout(matching.old), _by_layout(matching.new)
    groups: dict[_Sample, tuple[list[str], list[str]]] = {}
    for layout in old:
        for position, entries in enumerate((old[layout], new.get(layout, []))):
            for entry in entries if layout in new else ():
                if sample := _sampled(entry, layout, read):
                    groups.setdefault(sample, ([], []))[position].append(entry.name)
    for old_names, new_names in groups.values():
        if len(old_names) == len(new_names):
            for old_name, new_name in zip(sorted(old_names, key=natural_key), sorted(new_names, key=natural_key), strict=True):
                matching.pair(old_name, new_name, "renamed")
        elif old_names and new_names:
            matching.oddities.append(_ambiguous(old_names, new_names))


def _by_layout(entries: Mapping[str, TensorEntry]) -> dict[tuple[object, ...], list[TensorEntry]]:
    """Entries whose bytes are stored plainly, by all that must be equal before bytes are compared."""
    groups: dict[tuple[object, ...], list[TensorEntry]] = {}
    for entry in entries.values():
        components = sorted(entry.components.items())
        if not components or any(
            part.strides is not None or any(extent.codec for extent in part.extents) for _, part in components
        ):
            continue
        layout = tuple((name, part.dtype, part.shape, sum(e.nbytes for e in part.extents)) for name, part in components)
        groups.setdefault((entry.encoding, entry.shape, layout), []).append(entry)
    return groups


def _sampled(entry: TensorEntry, layout: tuple[object, ...], read: Read) -> _Sample | None:
    """The sample of an entry, None when its bytes cannot be read."""
    import xxhash

    extents = [extent for _, part in sorted(entry.components.items()) for extent in part.extents]
    nbytes = sum(extent.nbytes for extent in extents)
    try:
        windows = [_window(extents, offset, length, read) for offset, length in _sample_windows(nbytes)]
    except OSError:
        return None
    # one element repeated: half of all biases look like this
    period = max(1, nbytes // max(1, entry.numel))
    plain = all(window[period:] == window[:-period] for window in windows)
    return _Sample(layout, xxhash.xxh3_128_digest(b"".join(windows)), entry.name.rpartition(".")[2] if plain else "")


@lru_cache(maxsize=256)
def _sample_windows(nbytes: int) -> tuple[tuple[int, int], ...]:
    """(offset, nbytes) of the samples of so many bytes: the same for both sides, all of it when that is little."""
    if nbytes <= SAMPLE_COUNT * SAMPLE_NBYTES:
        return ((0, nbytes),)
    generator = random.Random(nbytes)
    return tuple((generator.randrange(nbytes - SAMPLE_NBYTES + 1), SAMPLE_NBYTES) for _ in range(SAMPLE_COUNT))


def _window(extents: Iterable[Extent], offset: int, nbytes: int, read: Read) -> bytes:
    """Bytes from `offset` on of the extents laid end to end. Raises OSError when a file is shorter than its extent."""
    parts = []
    for extent in extents:
        length = min(extent.nbytes - offset, nbytes)
        if length > 0:
            parts.append(read(extent.path, extent.offset + offset, length))
            if len(parts[-1]) < length:
                raise OSError(f"{extent.path} ends within an extent")
            offset, nbytes = offset + length, nbytes - length
        offset -= extent.nbytes
    return b"".join(parts)


def _ambiguous(old_names: Sequence[str], new_names: Sequence[str]) -> Oddity:
    message = (
        f"{len(old_names)} tensors of the old and {len(new_names)} of the new checkpoint seem to hold the same bytes "
        f"({old_names[0]}, {new_names[0]}); they are left unpaired, --map OLD=NEW pairs them"
    )
    return Oddity("ambiguous_rename", message, tensor=old_names[0])


def _planned(found: Iterable[_Found], old: Checkpoint, new: Checkpoint) -> tuple[TensorPair, ...]:
    """The pairs in plan order."""
    old_ranks, new_ranks = _ranks(old), _ranks(new)
    width, shared = len(new_ranks) + 1, SharedBytes(old, new)

    def rank(item: _Found) -> int:
        _, _, old_entry, new_entry = item
        new_rank = new_ranks[new_entry.name] if new_entry else width - 1
        return (old_ranks[old_entry.name] if old_entry else len(old_ranks)) * width + new_rank

    return tuple([_tensor_pair(index, item, shared) for index, item in enumerate(sorted(found, key=rank))])


def _ranks(checkpoint: Checkpoint) -> dict[str, int]:
    """Place of each name in the plan: file by file as they first appear, the large tensors of a file after its others."""
    files: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for entry in checkpoint.tensors:
        path = _first_path(entry) if len(checkpoint.stamps) > 1 else ""
        files[path][entry.numel > LARGE_NUMEL].append(entry.name)
    return {name: rank for rank, name in enumerate(name for parts in files.values() for part in parts for name in part)}


def _first_path(entry: TensorEntry) -> str:
    for component in entry.components.values():
        for extent in component.extents:
            return extent.path
    return ""


def _tensor_pair(index: int, item: _Found, shared: SharedBytes) -> TensorPair:
    name, match, old, new = item
    layer, role = place(name)
    if old is None or new is None:
        return TensorPair(index, name, match, old, new, "removed" if new is None else "added", False, layer, role)
    status = "paired" if old.shape == new.shape and _comparable(old, new) else "reshaped"
    return TensorPair(index, name, match, old, new, status, shared.identical(old, new), layer, role)


def _comparable(old: TensorEntry, new: TensorEntry) -> bool:
    """Whether both are real or both complex: complex numbers are measured with one more axis of 2."""
    if old.encoding == new.encoding:
        return True
    from diffai_stream.encodings.catalogue import ENCODINGS  # not at the top: planning names alone needs no numpy

    return ENCODINGS[old.encoding].components == ENCODINGS[new.encoding].components
