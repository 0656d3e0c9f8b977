"""Measure every figure the project has to reach, as ratios against named peers in one run, and print a Markdown table.

    python bench/run.py [--only ROW]... [--rounds N] [--folder DIR] [--cold] [--quick] [--write]

With --only, --write puts the rows measured now beside those of the same machine, versions and rounds; others are replaced.

The commands of a row alternate (A B A B ...), the figures are medians over whole processes, memory is the largest resident
set the kernel saw. The full run writes pairs of 2.47 GB and 10 GB a side into the folder and needs 28 GB of disk. Measure on a
quiet machine, with a source tree that nobody edits meanwhile: a changed kernel is compiled again inside the run that is timed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import figures
from cluster_figures import CLUSTER_FIGURES
from figures import Bench, Figure, Measured, shown
from format_figures import FORMAT_FIGURES
from measure import Command, MeasureError
from remote_figures import REMOTE_FIGURES
from scale_figures import SCALE_FIGURES
from store_figures import STORE_FIGURES

FIGURES = (*figures.FIGURES, *FORMAT_FIGURES, *STORE_FIGURES, *CLUSTER_FIGURES, *REMOTE_FIGURES, *SCALE_FIGURES)
README = Path(__file__).parent / "README.md"
PROJECT_README = README.parents[1] / "README.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
HEAD = "| row | figure | bar | measured | made of | commands |\n|---|---|---|---|---|---|"
PACKAGES = ("diffai-stream", "numba", "numpy", "dask")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [figure.name for figure in FIGURES]
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command; the scripts run once (default 5)")
    parser.add_argument("--folder", type=Path, help="where the pairs are kept (default: a temporary folder, removed)")
    parser.add_argument("--cold", action="store_true", help="drop the whole page cache for cold runs, not just the pair (root)")
    parser.add_argument("--quick", action="store_true", help="tiny pairs: shows that the programs work, measures nothing")
    parser.add_argument("--write", action="store_true", help="put what was measured into the table of bench/README.md")
    parser.add_argument("--diffai", type=shlex.split, help="the command to measure (default: the one of this Python)")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python of the scripts, with torch and ml_dtypes")
    chosen = parser.parse_args()
    if chosen.write and chosen.quick:
        parser.error("--quick measures nothing that could be written: leave --write or --quick out")
    if chosen.rounds < 1:
        parser.error("--rounds is at least 1")
    return chosen


def installed_command() -> Command:
    """The `diffai` beside this Python, or else the module."""
    script = Path(sys.executable).with_name("diffai")
    return [str(script)] if script.exists() else [sys.executable, "-m", "diffai_stream.cli"]


def machine() -> str:
    """The machine and the versions, in one line."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        model = next((value.strip() for name, _, value in lines if name.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return f"{model}, {cores} cores, {memory:.0f} GiB, {kernel}, Python {platform.python_version()}, {packages}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def row(bench: Bench, figure: Figure) -> str:
    """One line of the table, measured now."""
    bar = str(figure.bar) if figure.bar else ""
    try:
        measured = figure.measure(bench)
    except MeasureError as error:
        return f"| {figure.name} | {figure.title} | {bar} | not measured | {error} | |"
    commands = "; ".join(f"`{readable(command, bench)}`" for command in measured.commands)
    return f"| {figure.name} | {figure.title} | {bar} | {verdict(figure, measured, bench)} | {measured.detail} | {commands} |"


def verdict(figure: Figure, measured: Measured, bench: Bench) -> str:
    """The figure, marked where it misses its bar; the bars are about full sizes."""
    text = shown(measured.value, measured.unit)
    is_missed = figure.bar is not None and not bench.is_quick and not figure.bar.holds(measured.value)
    return f"{text} (missed)" if is_missed else text


def readable(command: Command, bench: Bench) -> str:
    """The command as a user would type it, without the folders of this machine."""
    text = shlex.join(command).replace(f"{bench.folder}/", "")
    text = text.replace(shlex.join(bench.diffai), "diffai").replace(bench.peer_python, "python")
    return text.replace(f"{README.parent}/", "bench/").replace(" --no-progress", "")


def table(bench: Bench, names: list[str] | None) -> Iterator[str]:
    """The lines of the table, each as soon as it is measured."""
    yield from HEAD.splitlines()
    for figure in FIGURES:
        if not names or figure.name in names:
            yield row(bench, figure)
    yield ""
    yield f"Machine: {machine()}. Rounds: {bench.rounds}."


def joined(old: list[str], new: list[str]) -> list[str]:
    """The table `new` with the rows of the table `old` that it lacks, when both end with the same line on the machine."""
    if not old or old[-1] != new[-1]:
        return new
    rows = {name: line for line in (*old, *new) if (name := row_name(line)) is not None}
    return [*HEAD.splitlines(), *(rows[figure.name] for figure in FIGURES if figure.name in rows), *new[-2:]]


def row_name(line: str) -> str | None:
    """The name of the figure a line of the table is about."""
    name = line.removeprefix("| ").partition(" |")[0]
    return name if any(figure.name == name for figure in FIGURES) else None


def brief(lines: list[str]) -> list[str]:
    """The table for the README of the project: what was measured against which bar, without the times and commands."""
    cells = [line.split(" | ")[1:4] for line in lines if row_name(line)]
    rows = [f"| {' | '.join(cell.strip() for cell in row)} |" for row in cells]
    about = f"{lines[-1]} Medians, made of what [bench/README.md](bench/README.md) lists. Rows that miss their bar say so."
    return ["| figure | bar | measured |", "|---|---|---|", *rows, "", about]


def write(lines: list[str]) -> None:
    """Put the lines, and the rows that still hold, between the marks of bench/README.md; their brief form into README.md."""
    table = joined(marked(README), lines)
    fill(README, table)
    fill(PROJECT_README, brief(table))


def marked(path: Path) -> list[str]:
    """The lines between the marks of a file."""
    inside = path.read_text().partition(BEGIN)[2].partition(END)[0]
    return inside.strip().splitlines()


def fill(path: Path, lines: list[str], begin: str = BEGIN, end: str = END) -> None:
    """Put lines between the marks of a file."""
    before, _, rest = path.read_text().partition(begin)
    path.write_text("\n".join([before + begin, *lines, end + rest.partition(end)[2]]))


def main() -> None:
    chosen = arguments()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="diffai-bench-"))
    command = chosen.diffai or installed_command()
    bench = Bench(folder.resolve(), chosen.rounds, command, chosen.peer_python, chosen.quick, chosen.cold)
    lines = []
    try:
        for line in table(bench, chosen.only):
            print(line, flush=True)
            lines.append(line)
    finally:
        if not chosen.folder:
            shutil.rmtree(folder)
    if chosen.write:
        write(lines)


if __name__ == "__main__":
    main()
