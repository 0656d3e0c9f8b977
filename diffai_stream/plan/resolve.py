"""Tensors of two naming conventions and layouts to pairs: by place in the model, then by the view whose samples fit.

A place is the indices of the layer and the role (`naming.py`), which all conventions share: `blk.3.attn_q.weight`,
`layers.3.attention.wq.weight` and `model.layers.3.self_attn.q_proj.weight` are one. A view is accepted only when samples of
both sides agree in it, and better than in the layout as stored; nothing is ever assumed from a name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.plan import layouts
from diffai_stream.plan.layouts import Candidate
from diffai_stream.plan.names_gguf import role_of
from diffai_stream.plan.naming import place
from diffai_stream.plan.sampled_values import Sampler
from diffai_stream.plan.views import View, seen

FIT = 0.25  # Σ(new - old)² / Σold² of samples that are the same tensor: what 2-bit quantization loses; unrelated ones give 2
SAME = 0.05  # below it elements are where they were: moved ones are far off
BETTER = 0.25  # of the distance in the stored layout: below it another layout is believed
_EXPERT = re.compile(r"(?:experts|ffn_(?:gate|up|down))\.(\d+)\.")
_TABLES = ("embedding", "lm_head")
NO_ROLES: Mapping[str, str] = {}

Key = tuple[str, tuple[int, ...], str]  # part, indices of the layer, role
Places = Mapping[Key, list[TensorEntry]]


class Resolved(NamedTuple):
    """A pair: the name it goes by, how it was found, and both sides, one of them perhaps seen through a region."""

    name: str
    match: str
    old: TensorEntry
    new: TensorEntry


def place_key(entry: TensorEntry, roles: Mapping[str, str] = NO_ROLES) -> Key:
    """What two names of one tensor share whatever their conventions; `roles` are those of its checkpoint (`names_gguf.py`)."""
    layer, role = place(entry.name)
    role = role_of(entry.name, roles) or role
    return entry.part, tuple(int(index) for index in re.findall(r"(?<![^.])\d+(?![^.])", layer)), role


class Resolver:
    """Finds the view of the new side (or of the longer or fused one) that fits the other; knows both checkpoints."""

    def __init__(self, old: Checkpoint, new: Checkpoint) -> None:
        self._metadata = (old.metadata, new.metadata)
        self._distance = Sampler({**new.stamps, **old.stamps}).distance

    def pair(self, old: TensorEntry, new: TensorEntry, crossed: bool) -> tuple[str, TensorEntry, TensorEntry]:
        """("" or how the layouts differ, old, new); `crossed` pairs may differ in layout although their shapes are equal."""
        if old.shape == new.shape:
            return self._equal_shapes(old, new) if crossed else ("", old, new)
        longer = max(old, new, key=lambda entry: entry.numel)
        shorter = new if longer is old else old
        if old.numel != new.numel:
            found = self._best(longer, shorter, layouts.common_rows(View.of(longer), shorter.shape), None)
            if found is None or place(old.name).role not in _TABLES:
                return "", old, new
            return (found[0], found[1], new) if longer is old else (found[0], old, found[1])
        view = View.of(new)
        candidates = [*layouts.squeezes(view, old.shape), *layouts.transposes(view, old.shape)]
        fitting = self._best(new, old, candidates, None)
        return (fitting[0], old, fitting[1]) if fitting else ("", old, new)

    def _equal_shapes(self, old: TensorEntry, new: TensorEntry) -> tuple[str, TensorEntry, TensorEntry]:
        plain = self._distance(old, new)
        if plain is None or not old.shape or old.components == new.components:
            return "", old, new
        found = self._best(new, old, self._alternatives(old, new, plain), plain) if plain > 0 else None
        return (found[0], old, found[1]) if found else ("", old, new)

    def _alternatives(self, old: TensorEntry, new: TensorEntry, plain: float) -> Iterator[Candidate]:
        view, role = View.of(new), place(old.name).role
        if layouts.SHIFTED in role:
            yield from layouts.offsets(view)
        if plain < SAME:
            return
        if role.startswith(layouts.ROTARY):
            yield from layouts.rotations(view, layouts.head_dims(self._metadata, view.shape[0]))
        if len(old.shape) > 1 and len(set(old.shape)) < len(old.shape):
            yield from layouts.transposes(view, old.shape)

    def _best(
        self, entry: TensorEntry, other: TensorEntry, candidates: Iterable[Candidate], plain: float | None
    ) -> tuple[str, TensorEntry] | None:
        """The candidate view of `entry` that fits `other` best; one with elements where they were ends the search."""
        limit = FIT if plain is None else min(2 * FIT, BETTER * plain)  # 1-bit types lose 0.4, and what else fits is known
        best, found = limit, None
        for candidate in candidates:
            view = seen(entry, candidate.view, other.shape, candidate.offset)
            distance = self._distance(other, view)
            if distance is not None and distance < best:
                best, found = distance, (candidate.match, view)
            if found is not None and best < SAME:
                break
        return found

    def parts(self, whole: TensorEntry, parts: Sequence[TensorEntry], whole_is_new: bool) -> list[Resolved]:
        """A fused tensor beside its parts: the pairs, none when no way of cutting it fits all parts."""
        best: tuple[float, list[Resolved]] | None = None
        for match, views in layouts.fused(whole, parts, [part.shape[0] for part in parts]):
            slices = [seen(whole, view, part.shape) for view, part in zip(views, parts, strict=True)]
            distances = [self._distance(part, piece) for part, piece in zip(parts, slices, strict=True)]
            known = [distance for distance in distances if distance is not None]
            worst = max(known, default=0.0)
            if worst < FIT and (best is None or worst < best[0]):
                best = worst, [_paired(part, piece, match, whole_is_new) for part, piece in zip(parts, slices, strict=True)]
        return best[1] if best else []

    def experts(
        self, stacked: TensorEntry, singles: Sequence[TensorEntry], stack_is_new: bool, which: int = -1
    ) -> list[Resolved]:
        """A stack of experts beside single ones, `which` being gate (0) or up (1) of a fused stack: the pairs that fit."""
        found = []
        for single in singles:
            index = expert_index(single.name)
            candidates = layouts.expert(stacked, index, single.shape)
            if which >= 0:
                candidates = layouts.expert_fused(stacked, index, single.shape, which)
            fitting = self._best(stacked, single, candidates, None)
            if fitting is not None:
                found.append(_paired(single, fitting[1], fitting[0], stack_is_new))
        return found


def expert_index(name: str) -> int:
    """The number of an expert by its name; -1 without one."""
    found = _EXPERT.search(name)
    return int(found[1]) if found else -1


def _paired(part: TensorEntry, piece: TensorEntry, match: str, whole_is_new: bool) -> Resolved:
    return Resolved(part.name, match, part, piece) if whole_is_new else Resolved(part.name, match, piece, part)


def by_place(entries: Mapping[str, TensorEntry], roles: Mapping[str, str] = NO_ROLES) -> dict[Key, list[TensorEntry]]:
    """Entries by their place; `roles` as in `place_key`."""
    places: dict[Key, list[TensorEntry]] = {}
    for entry in entries.values():
        places.setdefault(place_key(entry, roles), []).append(entry)
    return places


def same_places(old: Places, new: Places) -> Iterator[tuple[TensorEntry, TensorEntry]]:
    """Entries alone at one place on both sides, that hold as many elements or are tables of other lengths."""
    for key, entries in old.items():
        others = new.get(key, [])
        if len(entries) == len(others) == 1 and (entries[0].numel == others[0].numel or key[2] in _TABLES):
            yield entries[0], others[0]


def fusions(wholes: Places, parts: Places) -> Iterator[tuple[TensorEntry, list[TensorEntry]]]:
    """Fused projections of one side and, in order, the parts that the other side stores at the same place."""
    for (part, indices, role), entries in wholes.items():
        for name, pieces in layouts.PARTS.items():
            if name not in role.split(".") or len(entries) != 1:
                continue
            found = [parts.get((part, indices, role.replace(name, piece)), []) for piece in pieces]
            if all(len(group) == 1 and group[0].shape for group in found):
                yield entries[0], [group[0] for group in found]


def stacks(stacked: Places, singles: Places) -> Iterator[tuple[TensorEntry, list[tuple[int, list[TensorEntry]]]]]:
    """Stacks of experts of one side and the single experts of the other: (-1, singles), or gate and up of a fused stack."""
    for (part, indices, role), entries in stacked.items():
        if len(entries) != 1 or not role.startswith("experts.") or expert_index(entries[0].name) >= 0:
            continue
        roles = [(-1, role)]
        if "gate_up_proj" in role:
            roles = [(which, role.replace("gate_up_proj", name)) for which, name in enumerate(layouts.GATE_UP)]
        groups = [(which, singles.get((part, indices, name), [])) for which, name in roles]
        if all(group and all(expert_index(entry.name) >= 0 for entry in group) for _, group in groups):
            yield entries[0], groups
