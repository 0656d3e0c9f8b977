"""The history of a training run, from `trainer_state.json` beside the checkpoint or from what it carries itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from diffai_stream.context.base import HistoryPoint, Scalar

MAX_POINTS = 1_000_000
_STEP = re.compile(r"(?:checkpoint|step|iter|global_step)[-_]?(\d+)$")
_STEP_KEYS = ("global_step", "step", "trainer.global_step", "iteration", "num_updates")


def history_of(state: Mapping[str, Any]) -> tuple[HistoryPoint, ...]:
    """The lines of `log_history`, joined by step and ordered; lines without a step are left out."""
    lines = state.get("log_history")
    by_step: dict[int, dict[str, float]] = {}
    for line in (lines if isinstance(lines, list) else [])[:MAX_POINTS]:
        if isinstance(line, Mapping) and type(line.get("step")) is int:
            by_step.setdefault(line["step"], {}).update(_numbers(line))
    return tuple(
        HistoryPoint(step, row.get("epoch"), row.get("loss"), row.get("eval_loss"), row.get("learning_rate"))
        for step, row in sorted(by_step.items())
    )


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
            yield str(key), float(value)


def step_of(path: str, state: Mapping[str, Any], hyperparameters: Mapping[str, Scalar]) -> int | None:
    """The training step: from the trainer's state, from the checkpoint, from the name of the path, in this order."""
    told = state.get("global_step")
    if type(told) is int:
        return told
    for key in _STEP_KEYS:
        value = hyperparameters.get(key)
        if type(value) is int:
            return value
    stem = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
    found = _STEP.search(stem)
    return int(found[1]) if found else None
