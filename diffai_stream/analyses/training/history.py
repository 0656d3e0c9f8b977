"""What is recorded of a run beside the weights: losses and learning rates by step, wherever they were written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import NamedTuple

from diffai_stream.analyses.base import RunContext
from diffai_stream.context.base import Context, Sourced

_LOSS = re.compile(r"(?:.*\.)?(?:train_|training_|val_|valid_|eval_|best_)?loss(?:es|_history|_curve)?")
_GROUP_RATE = re.compile(r"(?:.*\.)?param_groups\.(\d+)\.lr")
_LAST_RATE = re.compile(r"(?:.*\.)?_last_lr\.(\d+)")
_RATE_NAMES = ("learning_rate", "lr", "optimizer.lr", "optimizer.learning_rate", "train.lr", "args.learning_rate", "args.lr")


class Series(NamedTuple):
    """(step, value) in the order of the steps, and where they were recorded; `by_step` is False where steps are places."""

    points: tuple[tuple[int, float], ...]
    source: str
    by_step: bool = True


class Rates(NamedTuple):
    """Learning rates by parameter group, and where they were recorded."""

    groups: Mapping[str, float]
    source: str


def contexts_of(run: RunContext) -> list[Context]:
    """The contexts of all checkpoints of the trajectory up to this pair, oldest first."""
    return [*(before.run.configurations[0] for before in run.previous), *run.configurations]


def steps_between(run: RunContext) -> int | None:
    """Training steps from old to new; None unless both are known and new is later."""
    old, new = (context.step for context in run.configurations)
    return new - old if old is not None and new is not None and new > old else None


def losses(run: RunContext) -> Series | None:
    """The history of the loss: as new recorded it, in a log beside it or inside, else one value a checkpoint."""
    new = run.configurations[1]
    for field in ("loss", "eval_loss"):
        logged = [(point.step, value) for point in new.history if (value := getattr(point, field)) is not None]
        if len(logged) > 1:
            return Series(tuple(logged), f"{field} of trainer_state.json")
    listed = _listed(new.hyperparameters)
    return listed if listed is not None else _by_checkpoint(run)


def _listed(values: Mapping[str, Sourced]) -> Series | None:
    """A list of losses that a checkpoint carries, `losses.0`, `losses.1`, ..."""
    found: dict[str, list[float]] = {}
    for name, (value, _) in values.items():
        stem, _, number = name.rpartition(".")
        if number.isdigit() and _LOSS.fullmatch(stem) and _is_number(value) and int(number) == len(found.get(stem, ())):
            found.setdefault(stem, []).append(float(value))
    stem = max(found, key=lambda name: len(found[name]), default="")
    if not stem or len(found[stem]) < 2:
        return None
    return Series(tuple(enumerate(found[stem])), f"{stem} of {values[f'{stem}.0'].source}", by_step=False)


def _by_checkpoint(run: RunContext) -> Series | None:
    points: list[tuple[int, float]] = []
    contexts = contexts_of(run)
    by_step = all(context.step is not None for context in contexts)
    name = next((name for name, (value, _) in contexts[-1].hyperparameters.items() if _LOSS.fullmatch(name)), None)
    for place, context in enumerate(contexts):
        found = context.hyperparameters.get(name or "")
        if found is not None and _is_number(found.value):
            points.append((context.step if by_step and context.step is not None else place, float(found.value)))
    return Series(tuple(points), f"{name} of each checkpoint", by_step) if len(points) > 1 else None


def rates_of(context: Context) -> Rates | None:
    """The learning rates of a checkpoint: of its optimizer, its scheduler, the log beside it, or its configuration."""
    for pattern in (_GROUP_RATE, _LAST_RATE):
        groups = {
            match[1]: (float(value), source)
            for name, (value, source) in context.hyperparameters.items()
            if (match := pattern.fullmatch(name)) and _is_number(value)
        }
        if groups:
            source = next(iter(groups.values()))[1]
            where = "optimizer" if pattern is _GROUP_RATE else "scheduler"
            return Rates({group: rate for group, (rate, _) in groups.items()}, f"{where} in {source}")
    logged = [point.learning_rate for point in context.history if point.learning_rate is not None]
    if logged:
        return Rates({"all": logged[-1]}, "trainer_state.json")
    for name in _RATE_NAMES:
        found = context.hyperparameters.get(name)
        if found is not None and _is_number(found.value):
            return Rates({"all": float(found.value)}, f"{name} of {found.source}")
    return None


def rate_history(run: RunContext) -> Series | None:
    """The learning rate by step: from the log beside new, else that of each checkpoint of the trajectory."""
    logged = [(point.step, point.learning_rate) for point in run.configurations[1].history if point.learning_rate is not None]
    if len(logged) > 1:
        return Series(tuple(logged), "trainer_state.json")
    points = []
    for context in contexts_of(run):
        rates = rates_of(context)
        if rates is not None and context.step is not None:
            points.append((context.step, next(iter(rates.groups.values()))))
    return Series(tuple(points), "each checkpoint") if len(points) > 1 else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def after(points: Iterable[tuple[int, float]], step: int | None) -> list[tuple[int, float]]:
    """The points later than a step; all of them when it is not known."""
    return [point for point in points if step is None or point[0] > step]
