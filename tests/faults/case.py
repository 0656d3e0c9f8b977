"""One fault on one pair, drawn with its own dice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.faults.judge import Record, expect, records_of
from tests.faults.pairs import Pair, Scale, is_available, written
from tests.faults.process import COMMAND, Ended, Running

FLAGS = ("--include-unchanged", "--stats", "--no-progress", "--output", "ndjson")


class Case(NamedTuple):
    """A pair, what an undisturbed run prints of it, an empty folder to harm things in, and the dice."""

    pair: Pair
    plain: list[Record]
    folder: Path
    random: Random

    def command(self, *flags: str, wrap: Sequence[str] = ()) -> list[str]:
        """The comparison of the pair, by one worker or two."""
        return [*wrap, *comparison(self.pair), "--workers", str(self.random.choice((1, 2))), *flags]

    def start(self, *flags: str, wrap: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Running:
        """The comparison as a process whose output is read by us."""
        return Running(self.command(*flags, wrap=wrap), self.pair.folder, environment=environment)

    def run(self, *flags: str, wrap: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Ended:
        """The comparison from start to end."""
        with self.start(*flags, wrap=wrap, environment=environment) as process:
            return process.end()

    def copied(self) -> Case:
        """The case with a copy of the pair, which may be harmed; names in it are the same."""
        return self._replace(pair=self.pair._replace(folder=Path(shutil.copytree(self.pair.folder, self.folder / "pair"))))

    def some(self) -> int:
        """How many records to read before something happens: up to a third of them."""
        return self.random.randint(1, max(1, len(self.plain) // 3))


class Fault(NamedTuple):
    """What happens, who does it and judges what comes of it, on which kinds of pairs, at which scale if not the common one."""

    name: str
    title: str
    happen: Callable[[Case], str]
    kinds: tuple[str, ...] = ("file",)
    scale: Callable[[Scale], Scale] = lambda scale: scale


def comparison(pair: Pair) -> list[str]:
    """The command that compares a pair in its folder."""
    return [*COMMAND, pair.old, pair.new, *FLAGS, "--chunk-size", pair.scale.chunk]


@cache
def undisturbed(pair: Pair) -> list[Record]:
    """What a comparison of the pair prints; it is compared once."""
    with Running(comparison(pair), pair.folder) as process:
        ended = process.end()
    records = records_of(ended)
    expect(ended.status == 1 and records[-1]["type"] == "summary", "the undisturbed run failed", ended)
    return records


def drawn(fault: Fault, seed: int, scale: Scale, pairs: Path, folder: Path) -> Case:
    """The case of a seed: the kind of pair and all that the fault draws follow from it."""
    random = Random(f"{fault.name}-{seed}")
    pair = written(pairs, random.choice([kind for kind in fault.kinds if is_available(kind)]), fault.scale(scale))
    return Case(pair, undisturbed(pair), folder, random)
