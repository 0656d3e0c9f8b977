"""Two indexes to tensor pairs: which tensor of the new checkpoint is which tensor of the old one.

Each step looks only at the names that the steps before it left over: exact names, the user's rules, prefixes that wrappers
add, tied weights that one side does not store, equal places in the model, fused and stacked projections, equal samples of
the stored bytes. What is left is removed or added. Pairs whose layouts differ are then seen through the view that fits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from diffai_stream.formats.base import Checkpoint, Oddity, TensorEntry
from diffai_stream.plan.matching import Found, Matching, match_aliases, match_exact, match_heads, match_prefixes, match_rules
from diffai_stream.plan.names_gguf import roles_of
from diffai_stream.plan.naming import place
from diffai_stream.plan.pairs import PROFILED, SharedBytes, TensorPair, numbered, select
from diffai_stream.plan.parts import TITLES, WEIGHTS, only
from diffai_stream.plan.sampled_bytes import Read, match_samples, read_range

if TYPE_CHECKING:
    from diffai_stream.plan.resolve import Places, Resolved, Resolver

__all__ = ["Alignment", "align", "read_range", "select"]

LARGE_NUMEL = 1 << 26
PLACED = "renamed"
Roles = Mapping[str, Mapping[str, str]]  # by side: roles that differ from what the names alone tell


class Alignment(NamedTuple):
    """The pairs in plan order, and what was odd about finding them."""

    pairs: tuple[TensorPair, ...]
    oddities: tuple[Oddity, ...]


def align(old: Checkpoint, new: Checkpoint, rules: Sequence[tuple[str, str]] = (), read: Read = read_range) -> Alignment:
    """Match the tensors of two checkpoints.

    `rules` are pairs (old pattern, new pattern), literal or with `*`; `read(path, offset, nbytes)` gives the samples for
    renamed tensors and is called only when both sides have tensors left. Pairs come in the order of the old checkpoint,
    file by file, tensors above 2^26 elements last within their file; added tensors follow in the order of the new one.
    The parts of training checkpoints never mix: the weights come first, and only they follow the rules.
    Raises UsageError for a rule that matches nothing.
    """
    parts = [part for part in (WEIGHTS, *TITLES) if any(entry.part == part for c in (old, new) for entry in c.tensors)]
    if len(parts) < 2:
        return _aligned(old, new, rules, read)
    pairs: list[TensorPair] = []
    oddities: list[Oddity] = []
    for part in parts:
        found = _aligned(only(old, {part}), only(new, {part}), rules if part == WEIGHTS else (), read)
        pairs += found.pairs
        oddities += found.oddities
    return Alignment(numbered(pairs), tuple(oddities))


def _aligned(old: Checkpoint, new: Checkpoint, rules: Sequence[tuple[str, str]], read: Read) -> Alignment:
    """Match tensors of one part."""
    matching = Matching({entry.name: entry for entry in old.tensors}, {entry.name: entry for entry in new.tensors})
    match_exact(matching)
    match_rules(matching, rules)
    match_prefixes(matching)
    match_aliases(matching, old, new)
    match_heads(matching, old, new)
    if not (old.is_profile or new.is_profile):  # a profile has no bytes to look at
        match_samples(matching, read)
        _match_layouts(matching, old, new)
    matching.found += [(name, "exact", entry, None) for name, entry in matching.old.items()]
    matching.found += [(name, "exact", None, entry) for name, entry in matching.new.items()]
    return Alignment(_planned(matching.found, old, new), tuple(matching.oddities))


def _match_layouts(matching: Matching, old: Checkpoint, new: Checkpoint) -> None:
    """Pairs across naming conventions, and the views in which layouts that differ agree. Reads samples only where it must."""
    is_reshaped = any(a is not None and b is not None and a.shape != b.shape for _, _, a, b in matching.found)
    if not is_reshaped and not (matching.old and matching.new):
        return
    from diffai_stream.plan.resolve import Resolver

    resolver = Resolver(old, new)
    placed = len(matching.found)
    roles = {"old": roles_of(old), "new": roles_of(new)}
    _match_places(matching, roles)
    by_name, by_place = matching.found[:placed], matching.found[placed:]
    matching.found = [_resolved(found, resolver, False) for found in by_name]
    if any("transposed" in found[1] for found in matching.found):  # then square ones may be transposed too
        matching.found = [_resolved(found, resolver, True) for found in matching.found]
    matching.found += [_resolved(found, resolver, True) for found in by_place]
    _match_fused(matching, resolver, roles)


def _resolved(found: Found, resolver: Resolver, crossed: bool) -> Found:
    """A pair seen through the view that fits, its match saying so."""
    name, match, old, new = found
    if old is None or new is None or old.region is not None or new.region is not None or not _comparable(old, new):
        return found
    layout, old, new = resolver.pair(old, new, crossed)
    return (name, _joined(match, layout), old, new) if layout else found


def _joined(match: str, layout: str) -> str:
    """How a pair was found: `exact` goes without saying where there is more to say."""
    return layout if match == "exact" else f"{match}+{layout}"


def _match_places(matching: Matching, roles: Roles) -> None:
    """Tensors alone at their place in the model on both sides, whatever the naming conventions."""
    from diffai_stream.plan.resolve import by_place, same_places

    for old, new in list(same_places(by_place(matching.old, roles["old"]), by_place(matching.new, roles["new"]))):
        matching.pair(old.name, new.name, PLACED)


def _match_fused(matching: Matching, resolver: Resolver, roles: Roles) -> None:
    """Fused projections and stacks of experts on one side, their parts on the other."""
    from diffai_stream.plan.resolve import by_place, fusions, stacks

    def places(side: str) -> Places:
        return by_place(matching.unmatched(side), roles[side])

    for whole_side, part_side in (("new", "old"), ("old", "new")):
        wholes, parts = places(whole_side), places(part_side)
        for whole, pieces in fusions(wholes, parts):
            _take(matching, whole_side, whole, resolver.parts(whole, pieces, whole_side == "new"))
        wholes, parts = places(whole_side), places(part_side)
        for stack, groups in stacks(wholes, parts):
            resolved = [pair for which, group in groups for pair in resolver.experts(stack, group, whole_side == "new", which)]
            if len(resolved) == sum(len(group) for _, group in groups):
                _take(matching, whole_side, stack, resolved)


def _take(matching: Matching, whole_side: str, whole: TensorEntry, resolved: Sequence[Resolved]) -> None:
    """Pair a fused tensor with its parts; with none found it stays unmatched."""
    if not resolved:
        return
    del matching.unmatched(whole_side)[whole.name]
    for name, match, old, new in resolved:
        del matching.unmatched("old" if whole_side == "new" else "new")[name]
        matching.found.append((name, match, old, new))


def _planned(found: Iterable[Found], old: Checkpoint, new: Checkpoint) -> tuple[TensorPair, ...]:
    """The pairs in plan order."""
    old_ranks, new_ranks = _ranks(old), _ranks(new)
    width, shared = len(new_ranks) + 1, SharedBytes(old, new)

    def rank(item: Found) -> int:
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


def _tensor_pair(index: int, item: Found, shared: SharedBytes) -> TensorPair:
    name, match, old, new = item
    layer, role = place(name)
    if old is None or new is None:
        return TensorPair(index, name, match, old, new, "removed" if new is None else "added", False, layer, role)
    status = "paired" if old.shape == new.shape and _comparable(old, new) else "reshaped"
    if status == "paired" and (old.is_profiled or new.is_profiled):
        status = PROFILED
    return TensorPair(index, name, match, old, new, status, shared.identical(old, new), layer, role)


def _comparable(old: TensorEntry, new: TensorEntry) -> bool:
    """Whether both are real or both complex: complex numbers are measured with one more axis of 2."""
    if old.encoding == new.encoding:
        return True
    from diffai_stream.encodings.catalogue import ENCODINGS  # not at the top: planning names alone needs no numpy

    return ENCODINGS[old.encoding].components == ENCODINGS[new.encoding].components
