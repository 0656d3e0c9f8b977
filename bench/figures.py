"""The figures, one row each: what is measured, against what, and the bar it has to reach."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from measure import (
    ENVIRONMENT,
    Command,
    MeasureError,
    Run,
    Runs,
    alternate,
    available_nbytes,
    drop_all,
    evict,
    first_line,
    run,
    warm,
)

HERE = Path(__file__).parent
TENSOR = b'"type":"tensor"'
CACHE_SHARE = 0.7  # of the memory that is free: a pair above it is not expected to stay in the page cache

MEMORY_ROUNDS = 2  # memory hardly varies


class Bar(NamedTuple):
    """The figure to reach: at most `limit`, or at least when `is_floor`."""

    limit: float
    unit: str
    is_floor: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.is_floor else '≤'} {shown(self.limit, self.unit)}"

    def holds(self, value: float) -> bool:
        """Whether a measured value reaches the bar."""
        return value >= self.limit if self.is_floor else value <= self.limit


class Measured(NamedTuple):
    """A figure, what it is made of, and the commands as they were run."""

    value: float
    unit: str
    detail: str
    commands: tuple[Command, ...]


@dataclass(eq=False)
class Bench:
    """Where the pairs are and how to run things."""

    folder: Path
    rounds: int
    diffai: Command
    peer_python: str
    is_quick: bool
    drops_all: bool
    primed: set[tuple[str, ...]] = field(default_factory=set)

    def pair(self, name: str) -> tuple[Path, Path]:
        """Old and new of a pair, which is written first where it is not there yet."""
        shape, *flags = (QUICK_PAIRS if self.is_quick else PAIRS)[name]
        command = [sys.executable, str(HERE / "pair.py"), str(self.folder / name), "--shape", shape, *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # a process of its own: see measure.py
        return self.folder / name / "old.safetensors", self.folder / name / "new.safetensors"

    def gguf(self, kind: str) -> tuple[Path, Path]:
        """The old side of the pair, and the GGUF file of a type that a converter would make of it."""
        if subprocess.run([self.peer_python, "-c", "import gguf"], check=False, capture_output=True).returncode:
            raise MeasureError("gguf: not installed")
        old, _ = self.pair("1b")
        new = old.with_name(f"{kind}.gguf")
        command = [sys.executable, str(HERE / "gguf_pair.py"), str(old), str(new), "--type", kind]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return old, new

    def compare(self, pair: Sequence[Path], *flags: str) -> Command:
        """The command that compares a pair."""
        return [*self.diffai, *map(str, pair), "--no-progress", *flags]

    def prime(self, command: Command) -> None:
        """Run a command once untimed, so that its kernels are compiled and its files in the page cache."""
        if not self.is_quick and tuple(command) not in self.primed:
            self.primed.add(tuple(command))
            run(command)

    def versus(self, command: Command, peer: Command, peer_rounds: int | None = None) -> tuple[Runs, Runs]:
        """Both commands in turn, warm."""
        self.prime(command)
        mine, theirs = alternate([command, peer], [self.rounds, peer_rounds or self.rounds])
        return mine, theirs

    def alone(self, command: Command) -> Runs:
        """One command, warm."""
        self.prime(command)
        return alternate([command], [self.rounds])[0]

    def drop(self, paths: Sequence[Path]) -> str:
        """Make the next run a cold one; what was dropped, in words."""
        if self.drops_all:
            with suppress(MeasureError):
                drop_all()
                return "whole page cache dropped"
        evict(paths)
        return "the pair evicted from the page cache"


class Figure(NamedTuple):
    """One row of the table."""

    name: str
    title: str
    bar: Bar | None
    measure: Callable[[Bench], Measured]


PAIRS = {
    "1b": ("llama-1b", "--same"),
    "10gb": ("llama-10gb",),
    "20gb": ("llama-20gb",),
    "many": ("many", "--tensors", "50000"),
    "many-200k": ("many", "--tensors", "200000"),
    "1mb": ("1mb",),
    "256mb": ("llama-256mb",),
}
QUICK_PAIRS = {
    "1b": ("tiny", "--same"),
    "10gb": ("tiny-deep",),
    "20gb": ("tiny-deep",),
    "many": ("many", "--tensors", "500"),
    "many-200k": ("many", "--tensors", "2000"),
    "1mb": ("1mb",),
    "256mb": ("tiny-deep",),
}


def shown(value: float, unit: str) -> str:
    """A figure with its unit, to three digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text + unit if unit == "x" else f"{text} {unit}"


def ratio(mine: Runs, theirs: Runs, commands: tuple[Command, ...], upside_down: bool = False) -> Measured:
    """Median over median: how many times longer mine takes, or theirs where it is upside down."""
    value = theirs.seconds / mine.seconds if upside_down else mine.seconds / theirs.seconds
    return Measured(value, "x", f"{mine.spread} / {theirs.spread}", commands)


def against_cat(*flags: str) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        pair = bench.pair("1b")
        mine, cat = bench.compare(pair, *flags), ["cat", *map(str, pair)]
        return ratio(*bench.versus(mine, cat), (mine, cat))

    return measure


def cold(bench: Bench) -> Measured:
    pair = bench.pair("1b")
    mine, cat = bench.compare(pair), ["cat", *map(str, pair)]
    bench.prime(mine)
    how = bench.drop(pair)
    runs = alternate([mine, cat], [bench.rounds] * 2, partial(bench.drop, pair))
    measured = ratio(runs[0], runs[1], (mine, cat))
    return measured._replace(detail=f"{measured.detail}; {how}")


def against_script(name: str, *modules: str) -> Callable[[Bench], Measured]:
    """A peer that takes a minute runs once; its files are in the page cache all the same."""

    def measure(bench: Bench) -> Measured:
        pair = bench.pair("1b")
        check = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {modules!r})))"
        if subprocess.run([bench.peer_python, "-c", check], check=False).returncode:
            raise MeasureError(f"{', '.join(modules)}: not installed")
        mine, peer = bench.compare(pair), [bench.peer_python, str(HERE / "peers" / name), *map(str, pair)]
        return ratio(*bench.versus(mine, peer, peer_rounds=1), (mine, peer), upside_down=True)

    return measure


def against_gguf(kind: str) -> Callable[[Bench], Measured]:
    """bf16 against its quantization, both scripts warm; the script takes a quarter of a minute and runs once."""

    def measure(bench: Bench) -> Measured:
        pair = bench.gguf(kind)
        mine, peer = bench.compare(pair), [bench.peer_python, str(HERE / "peers" / "gguf_script.py"), *map(str, pair)]
        return ratio(*bench.versus(mine, peer, peer_rounds=1), (mine, peer), upside_down=True)

    return measure


def peak_memory(name: str, *flags: str) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        bench.prime(bench.compare(bench.pair("1b"), *flags))
        mine = bench.compare(bench.pair(name), *flags)
        (runs,) = alternate([mine], [min(bench.rounds, MEMORY_ROUNDS)])
        return Measured(runs.peak_nbytes / 1e6, "MB", f"largest of {len(runs)}", (mine,))

    return measure


def scale(bench: Bench) -> Measured:
    """Time ratio over byte ratio; all runs cold when the large pair does not fit into memory."""
    small, large = bench.pair("1b"), bench.pair("10gb")
    commands = [bench.compare(large), bench.compare(small)]
    is_cold = nbytes(large) > CACHE_SHARE * available_nbytes()
    bench.prime(commands[1])
    if not is_cold:
        warm([*large, *small])
    runs = alternate(commands, [bench.rounds] * 2, partial(bench.drop, [*large, *small]) if is_cold else None)
    bytes_ratio = nbytes(large) / nbytes(small)
    detail = f"{runs[0].spread} / {runs[1].spread}, for {bytes_ratio:.2f}x the bytes; {'cold' if is_cold else 'warm'}"
    return Measured(runs[0].seconds / runs[1].seconds / bytes_ratio, "x", detail, tuple(commands))


def identical(bench: Bench) -> Measured:
    old, _ = bench.pair("1b")
    pair = old, old.with_name("same.safetensors")
    mine, cmp = bench.compare(pair), ["cmp", *map(str, pair)]
    return ratio(*bench.versus(mine, cmp), (mine, cmp))


def wall(*flags: str, pair: str | None = None) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        mine = bench.compare(bench.pair(pair), *flags) if pair else [*bench.diffai, *flags]
        runs = bench.alone(mine)
        return Measured(runs.seconds, "s", runs.spread, (mine,))

    return measure


def against_default(analyses: Callable[[], Sequence[str]]) -> Callable[[Bench], Measured]:
    """More analyses against the default ones, of the same pair."""

    def measure(bench: Bench) -> Measured:
        pair = bench.pair("1b")
        mine, default = bench.compare(pair, *analyses()), bench.compare(pair)
        return ratio(*bench.versus(mine, default), (mine, default))

    return measure


def without_sketches() -> list[str]:
    """The flags of all analyses that ask for no sketch of a pair, but the gates."""
    from diffai_stream.analyses.catalogue import ANALYSES

    rows = [row for row in ANALYSES.values() if row.flag and not (row.is_gate or row.is_opt_in)]
    return [row.flag for row in rows if "sketch" not in row.needs]


def first_record(name: str) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        mine = bench.compare(bench.pair(name), "--output", "ndjson")
        bench.prime(bench.compare(bench.pair("1b"), "--output", "ndjson"))
        runs = Runs(run_until(mine) for _ in range(bench.rounds))
        return Measured(runs.seconds, "s", runs.spread, (mine,))

    return measure


def run_until(command: Command) -> Run:
    return Run(first_line(command, TENSOR), 0)


def compiling(*flags: str, pair: str | None = None) -> Callable[[Bench], Measured]:
    """A run that finds no compiled kernel, once; a quick one does find them."""

    def measure(bench: Bench) -> Measured:
        mine = bench.compare(bench.pair(pair), *flags) if pair else [*bench.diffai, *flags]
        with tempfile.TemporaryDirectory(prefix="kernels-") as empty:
            seconds = run(mine, ENVIRONMENT if bench.is_quick else {**ENVIRONMENT, "NUMBA_CACHE_DIR": empty}).seconds
        return Measured(seconds, "s", "one run, NUMBA_CACHE_DIR empty", (mine,))

    return measure


def nbytes(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def times(limit: float) -> Bar:
    return Bar(limit, "x")


FIGURES = (
    Figure("default", "whole process, warm, default analyses, against `cat`", times(6.5), against_cat()),
    Figure("fast", "the same with `--fast`", times(4), against_cat("--fast")),
    Figure("cold", "whole process, cold, against `cat` cold", times(1.3), cold),
    Figure("torch", "times faster than the torch script", Bar(25, "x", True), against_script("torch_script.py", "torch")),
    Figure("numpy", "times faster than the numpy script", None, against_script("numpy_script.py", "ml_dtypes")),
    Figure("gguf-q4", "bf16 against GGUF Q4_K: times faster than the gguf script", Bar(6, "x", True), against_gguf("Q4_K")),
    Figure("gguf-q8", "bf16 against GGUF Q8_0: times faster than the gguf script", Bar(6, "x", True), against_gguf("Q8_0")),
    Figure("memory", "peak RSS, 2.47 GB a side", Bar(450, "MB"), peak_memory("1b")),
    Figure("memory-10gb", "peak RSS, 10 GB a side", Bar(450, "MB"), peak_memory("10gb")),
    Figure("scale", "10 GB over 2.47 GB: time ratio over byte ratio", times(1.15), scale),
    Figure("analyses", "analyses that need no sketch, against the default ones", times(1.6), against_default(without_sketches)),
    Figure("all-analyses", "`--all-analyses` against the default ones", times(3), against_default(lambda: ["--all-analyses"])),
    Figure("memory-all", "peak RSS with `--all-analyses`", Bar(450, "MB"), peak_memory("1b", "--all-analyses")),
    Figure("identical", "equal files, against `cmp`", times(2), identical),
    Figure("many", "50,000 tensors of 4 KB a side", Bar(15, "s"), wall(pair="many")),
    Figure("help", "`diffai --help`", Bar(0.3, "s"), wall("--help")),
    Figure("small", "1 MB a side", Bar(1.2, "s"), wall(pair="1mb")),
    Figure("first-record", "first tensor record after start, 2.47 GB a side", Bar(2, "s"), first_record("1b")),
    Figure("first-record-10gb", "first tensor record after start, 10 GB a side", Bar(2, "s"), first_record("10gb")),
    Figure("first-run", "1 MB a side, no kernel compiled yet", None, compiling(pair="1mb")),
    Figure("warmup", "`diffai warmup`, no kernel compiled yet", None, compiling("warmup")),
)
