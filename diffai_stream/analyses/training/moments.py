"""Gradients and moments of optimizers, sorted by the parameter they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

from diffai_stream.analyses.base import SideSums, StateTensor
from diffai_stream.plan.naming import place

FIRST = ("exp_avg", "momentum_buffer", "momentum", "mu", "m")
SECOND = ("exp_avg_sq", "velocity", "nu", "v")
_LEADING = ("optimizer", "optimizers", "optimizer_states", "optimizer_state", "opt_state", "optim", "opt", "state")


class Slot(NamedTuple):
    """What a tensor beside the weights holds: of which parameter, and gradient, first or second moment."""

    parameter: str
    kind: str


def slot_of(tensor: StateTensor) -> Slot | None:
    """The slot of a tensor; None for step counts and whatever else is no gradient and no moment."""
    if tensor.part == "gradient":
        return Slot(tensor.name.removesuffix(".grad"), "gradient")
    words = tensor.name.replace("/", ".").split(".")
    for kind, names in (("first", FIRST), ("second", SECOND)):
        at = next((place for place in reversed(range(len(words))) if words[place] in names), None)
        if tensor.part == "optimizer" and at is not None:
            return Slot(".".join(_stripped([*words[:at], *words[at + 1 :]], at)), kind)
    return None


def _stripped(words: list[str], moment_at: int) -> list[str]:
    """A name without what stands for the optimizer; numbers in that are left out where they cannot be the parameter's."""
    first = 0
    while first < len(words) - 1:
        is_number = words[first].isdigit() and first > 0 and (words[first + 1] in _LEADING or first + 1 == moment_at)
        if words[first] not in _LEADING and not is_number:
            break
        first += 1
    return words[first:]


class Sums:
    """Sums over the tensors of a layer of one side: Σm, Σm², Σv, how many, how many not finite."""

    def __init__(self) -> None:
        self.count = self.nonfinite = 0
        self.squares = self.variances = 0.0
        self.has_variances = False

    def add(self, kind: str, side: SideSums) -> None:
        """Take in a tensor: of second moments the sum counts, of all others the squares."""
        if kind == "second":
            self.variances += side.total
            self.has_variances = True
        else:
            self.count += side.count
            self.squares += side.squares
        self.nonfinite += side.nonfinite

    @property
    def rms(self) -> float | None:
        """Root mean square of the gradient or of the first moment."""
        return sqrt(self.squares / self.count) if self.count else None

    @property
    def signal_to_noise(self) -> float | None:
        """√(Σm²/Σv): 1 when every gradient was the same, near 0 when they were noise; None without second moments."""
        return sqrt(self.squares / self.variances) if self.has_variances and self.variances > 0 else None


class Gathered:
    """What is known of the gradients of one layer."""

    def __init__(self) -> None:
        self.old, self.new, self.dot, self.source = Sums(), Sums(), 0.0, ""


def by_layer(tensors: Iterable[StateTensor]) -> dict[str, Gathered]:
    """Layers in the order of the checkpoint; where gradients are stored they count, not the moments."""
    slots = [(tensor, slot) for tensor in tensors if (slot := slot_of(tensor)) is not None]
    has_gradients = any(slot.kind == "gradient" for _, slot in slots)
    has_second = any(slot.kind == "second" for _, slot in slots)
    found: dict[str, Gathered] = {}
    for tensor, slot in slots:
        if (slot.kind == "gradient") != has_gradients or tensor.old is None or tensor.new is None:
            continue
        layer = found.setdefault(place(slot.parameter).layer, Gathered())
        layer.source = "gradient" if has_gradients else "adam" if has_second else "momentum"
        layer.old.add(slot.kind, tensor.old)
        layer.new.add(slot.kind, tensor.new)
        if slot.kind != "second":
            layer.dot += tensor.dot
    return found
