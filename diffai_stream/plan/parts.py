"""Training checkpoints: what beside the weights two checkpoints share, and what is told of the rest.

Optimizer state, averages of the weights and gradients are compared apart from the weights where both sides have them. What
one side alone has is no difference of the weights: it is told, not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import NamedTuple

from diffai_stream.formats.base import Checkpoint, Oddity
from diffai_stream.formats.inert import listed

WEIGHTS = "weights"
TITLES = {"ema": "averaged weights", "gradient": "gradients", "optimizer": "optimizer state"}
"""The parts beside the weights, in the order in which they are compared."""


class Shared(NamedTuple):
    """Both checkpoints with the tensors that are compared, and what was left out."""

    old: Checkpoint
    new: Checkpoint
    oddities: tuple[Oddity, ...]


def shared(old: Checkpoint, new: Checkpoint, ignore_state: bool = False) -> Shared:
    """The checkpoints less the parts that only one of them has; less all but the weights with `ignore_state`."""
    kinds = _parts(old), _parts(new)
    if not (kinds[0] | kinds[1]) and old.hyperparameters == new.hyperparameters:
        return Shared(old, new, ())
    kept = {WEIGHTS} if ignore_state else {WEIGHTS, *(kinds[0].keys() & kinds[1].keys())}
    oddities = () if ignore_state else (*_one_sided(old, new), *_changed_settings(old, new))
    return Shared(only(old, kept), only(new, kept), oddities)


def differs_in_state(old: Checkpoint, new: Checkpoint) -> bool:
    """Whether one side has a part or a setting that the other has not, or a setting of another value."""
    return _parts(old).keys() != _parts(new).keys() or dict(old.hyperparameters) != dict(new.hyperparameters)


def changed_settings(old: Checkpoint, new: Checkpoint) -> list[str]:
    """Names of the settings that differ, where both sides have any."""
    if not (old.hyperparameters and new.hyperparameters):
        return []
    names = dict.fromkeys((*old.hyperparameters, *new.hyperparameters))
    missing = object()
    return [name for name in names if old.hyperparameters.get(name, missing) != new.hyperparameters.get(name, missing)]


def parameter_count(checkpoint: Checkpoint) -> int:
    """Elements of the weights."""
    return sum(entry.numel for entry in checkpoint.tensors if entry.part == WEIGHTS)


def _parts(checkpoint: Checkpoint) -> Counter[str]:
    """How many tensors each part beside the weights has."""
    return Counter(entry.part for entry in checkpoint.tensors if entry.part != WEIGHTS)


def only(checkpoint: Checkpoint, parts: Container[str]) -> Checkpoint:
    """The checkpoint with the tensors of these parts."""
    return checkpoint._replace(tensors=tuple(entry for entry in checkpoint.tensors if entry.part in parts))


def _one_sided(old: Checkpoint, new: Checkpoint) -> Iterator[Oddity]:
    for checkpoint, other, side in ((old, new, "old"), (new, old, "new")):
        counts, others = _parts(checkpoint), _parts(other)
        found = [f"{title} ({counts[part]} tensors)" for part, title in TITLES.items() if counts[part] and not others[part]]
        if checkpoint.hyperparameters and not other.hyperparameters:
            found.append(f"{len(checkpoint.hyperparameters)} settings")
        if found:
            message = f"only the {side} checkpoint has {', '.join(found)}: not compared"
            yield Oddity("one_sided_state", message, checkpoint.path)


def _changed_settings(old: Checkpoint, new: Checkpoint) -> Iterator[Oddity]:
    names = changed_settings(old, new)
    if names:
        yield Oddity("settings_differ", f"{len(names)} settings differ: {listed(sorted(names))}", new.path)
