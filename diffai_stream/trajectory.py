"""Trajectories: several checkpoints of one training run, compared pair by pair in the order of their steps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffai_stream.errors import UsageError
from diffai_stream.storage.remote.addresses import shown

if TYPE_CHECKING:
    from diffai_stream.report.progress import Progress

_STEP = re.compile(r"checkpoint-(\d{1,18})(?:\.\w+)?")


def expanded(paths: Sequence[str]) -> list[str]:
    """The checkpoints that paths stand for: a directory of `checkpoint-<step>` stands for these, in the order of the steps.

    A directory that holds weights itself is a checkpoint, unless it is the only path. Raises UsageError when fewer than two
    are left, or when two directories stand for several: which of their checkpoints belong together is not known.
    """
    found: list[str] = []
    several: list[str] = []
    for path in paths:
        inside = steps_in(path)
        if inside and (len(paths) == 1 or not _holds_weights(path)):
            several.append(path)
            found += inside
        else:
            found.append(path)
    if len(several) > 1:
        raise UsageError(
            f"{several[0]} and {several[1]} both hold several checkpoints; name one checkpoint in each, or one directory"
        )
    if len(found) < 2:
        raise UsageError(_too_few(paths, several))
    return found


def _too_few(paths: Sequence[str], several: Sequence[str]) -> str:
    if several:
        return f"a comparison needs two checkpoints; {several[0]} holds only one checkpoint-<step>"
    told = f"; diffai inspect {shown(paths[0])} shows what is in one" if paths else ""
    return f"a comparison needs two checkpoints{told}"


def steps_in(path: str) -> list[str]:
    """What a directory holds by the name `checkpoint-<step>`, ordered by the number; nothing for what is no directory."""
    try:
        names = os.listdir(path)
    except (OSError, ValueError):
        return []
    steps = sorted((int(match[1]), name) for name in names if (match := _STEP.fullmatch(name)))
    return [os.path.join(path, name) for _, name in steps]


def _holds_weights(path: str) -> bool:
    from diffai_stream.formats.catalogue import holds_weights

    return holds_weights(path)


def plan_of(plans: Sequence[dict[str, Any]], memory_nbytes: int) -> dict[str, Any]:
    """The plans of all pairs as one: what is read adds up, memory does not, but for `memory_nbytes` that is kept of pairs."""
    sums = {name: sum(plan[name] for plan in plans) for name in ("batch_count", "read_nbytes")}
    return {**plans[0], **sums, "projected_memory_nbytes": max(p["projected_memory_nbytes"] for p in plans) + memory_nbytes}


class Throughout:
    """One progress over all pairs: it starts with the first and stops with `end`."""

    def __init__(self, progress: Progress, total_nbytes: int) -> None:
        self._progress, self._total_nbytes, self._is_started = progress, total_nbytes, False

    @property
    def follows(self) -> bool:
        """Whether the next record is known."""
        return self._progress.follows

    @follows.setter
    def follows(self, follows: bool) -> None:
        self._progress.follows = follows

    def start(self, total_nbytes: int) -> None:
        """A pair begins."""
        if not self._is_started:
            self._is_started = True
            self._progress.start(self._total_nbytes)

    def advance(self, nbytes: int, tensor_name: str) -> None:
        """More bytes are read."""
        self._progress.advance(nbytes, tensor_name)

    def clear(self) -> None:
        """Make room on the terminal."""
        self._progress.clear()

    def stop(self) -> None:
        """A pair is over."""
        self._progress.clear()

    def end(self) -> None:
        """All are."""
        self._progress.stop()
