"""How time and memory grow with bytes, tensors and workers: measured, and fitted by time = a + b·bytes + c·tensors.

    python bench/scale.py [--only POINT]... [--workers N]... [--results FILE] [--folder DIR] [--write]

Every pair is compared cold (evicted from the page cache), where both sides fit into memory warm, and cold through a dask
scheduler and two workers of one thread on this machine. What is in the results file already is not measured again, so that a
long measurement can be made in pieces; pairs that it writes it removes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import run
from cluster_figures import WORKERS, cluster
from figures import CACHE_SHARE
from measure import MeasureError, Runs, alternate, available_nbytes, evict, warm
from measure import run as measure
from scale_figures import tensor_count

HERE = Path(__file__).parent
BEGIN, END = "<!-- scale:begin -->", "<!-- scale:end -->"
SHAPES = {"1gb": "llama-1gb", "2.5gb": "llama-1b", "10gb": "llama-10gb", "20gb": "llama-20gb"}
COUNTS = (100, 1_000, 10_000, 50_000, 200_000)
POINTS: dict[str, list[str]] = {
    **{f"{count:,}": ["--shape", "many", "--tensors", str(count)] for count in COUNTS},
    **{name: ["--shape", shape] for name, shape in SHAPES.items()},
}
QUICK = {
    "100": ["--shape", "many", "--tensors", "100"],
    "1,000": ["--shape", "many", "--tensors", "1000"],
    "1gb": ["--shape", "tiny"],
    "2.5gb": ["--shape", "tiny-deep"],
}
COEFFICIENTS = 3


class Row(NamedTuple):
    """One point as it was measured; bytes are of both sides."""

    point: str
    state: str
    workers: int
    nbytes: int
    tensors: int
    seconds: float
    peak_nbytes: int


class Fit(NamedTuple):
    """time = start + by_byte · bytes + by_tensor · tensors, in seconds; what each row is above it, as a share of its time."""

    start: float
    by_byte: float
    by_tensor: float
    residuals: dict[Row, float]

    def __str__(self) -> str:
        worst = max(map(abs, self.residuals.values()))
        return (
            f"{self.start:.2f} s + {1e9 * self.by_byte:.3f} ns a byte ({1e-9 / self.by_byte:.2f} GB/s) "
            f"+ {1e6 * self.by_tensor:.1f} µs a tensor; residuals up to {100 * worst:.0f} %"
        )


def fitted(rows: list[Row]) -> Fit:
    """The least squares of relative errors: a second matters more to a short run than to a long one."""
    import numpy as np

    terms = np.array([[1.0, row.nbytes, row.tensors] for row in rows])
    seconds = np.array([row.seconds for row in rows])
    scale = np.abs(terms).max(axis=0)
    found = np.linalg.lstsq(terms / scale / seconds[:, None], np.ones(len(rows)), rcond=None)[0] / scale
    above = (seconds - terms @ found) / seconds
    return Fit(*map(float, found), dict(zip(rows, map(float, above), strict=True)))


def measured(point: str, flags: list[str], workers: list[int], folder: Path, rounds: int) -> Iterator[Row]:
    """The rows of a point, cold and, where it fits, warm."""
    home = folder / point.replace(",", "")
    was_there = (home / "new.safetensors").exists()
    try:
        subprocess.run([sys.executable, str(HERE / "pair.py"), str(home), *flags], check=True, stdout=subprocess.DEVNULL)
        pair = home / "old.safetensors", home / "new.safetensors"
        yield from _rows(point, pair, workers, rounds)
        with tempfile.TemporaryDirectory(prefix="scale-") as small:
            yield from _through_cluster(point, pair, Path(small), rounds)
    finally:
        if not was_there:
            shutil.rmtree(home, ignore_errors=True)


def _rows(point: str, pair: tuple[Path, Path], workers: list[int], rounds: int) -> Iterator[Row]:
    nbytes = sum(path.stat().st_size for path in pair)
    commands = [[*run.installed_command(), *map(str, pair), "--no-progress", "--workers", str(n)] for n in workers]
    fits = nbytes <= CACHE_SHARE * available_nbytes()
    for state in ("cold", "warm") if fits else ("cold",):
        if state == "warm":
            warm(pair)
        try:
            runs = alternate(commands, [rounds] * len(commands), (lambda: evict(pair)) if state == "cold" else None)
        except MeasureError as error:
            print(f"{point}: {error}", file=sys.stderr)
            continue
        for count, found in zip(workers, runs, strict=True):
            yield _row(point, state, count, nbytes, pair[0], found)


def _through_cluster(point: str, pair: tuple[Path, Path], small: Path, rounds: int) -> Iterator[Row]:
    """The row of a cluster that is up and has its kernels loaded, by a pair of 1 MB before."""
    subprocess.run([sys.executable, str(HERE / "pair.py"), str(small), "--shape", "1mb"], check=True, stdout=subprocess.DEVNULL)
    try:
        with cluster(sys.executable) as file:
            command = [*run.installed_command(), "--no-progress", "--scheduler-file", str(file)]
            measure([*command, str(small / "old.safetensors"), str(small / "new.safetensors")])
            (runs,) = alternate([[*command, *map(str, pair)]], [rounds], lambda: evict(pair))
    except MeasureError as error:
        print(f"{point}: {error}", file=sys.stderr)
        return
    yield _row(point, "cold, cluster", WORKERS, sum(path.stat().st_size for path in pair), pair[0], runs)


def _row(point: str, state: str, workers: int, nbytes: int, old: Path, runs: Runs) -> Row:
    return Row(point, state, workers, nbytes, tensor_count(old), runs.seconds, runs.peak_nbytes)


HEAD = """| pair | bytes, both sides | tensors | state | workers | time | above the fit | peak RSS |
|---|---|---|---|---|---|---|---|"""


def table(rows: Iterable[Row]) -> list[str]:
    """The rows with what the fits say of them, and the fits."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.state, row.workers, row.nbytes, row.tensors)):
        groups.setdefault((row.state, row.workers), []).append(row)
    fits = {group: fitted(found) for group, found in groups.items() if len(found) > COEFFICIENTS}
    lines = [line(row, fits.get(group)) for group, found in groups.items() for row in found]
    told = [f"- {state}, {workers} worker{'s' * (workers > 1)}: {fit}" for (state, workers), fit in fits.items()]
    return [*HEAD.splitlines(), *lines, "", *told, "", f"Machine: {run.machine()}."]


def line(row: Row, fit: Fit | None) -> str:
    """A row of the Markdown table."""
    above = f"{100 * fit.residuals[row]:+.0f} %" if fit else ""
    size = f"{row.nbytes / 1e9:.2f} GB" if row.nbytes > 1e8 else f"{row.nbytes / 1e6:.2f} MB"
    cells = (row.point, size, f"{row.tensors:,}", row.state, row.workers)
    return f"| {' | '.join(map(str, cells))} | {row.seconds:.2f} s | {above} | {row.peak_nbytes / 1e6:.0f} MB |"


def known(path: Path) -> list[Row]:
    """The rows of a results file, none when there is no file."""
    return [Row(**json.loads(text)) for text in path.read_text().splitlines()] if path.exists() else []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", action="append", choices=list(POINTS), metavar="POINT", help=f"{' '.join(POINTS)}; repeatable")
    add("--workers", type=int, action="append", help="repeatable (default 1 and 2)")
    add("--rounds", type=int, default=3, help="runs of each command (default 3)")
    add("--results", type=Path, help="NDJSON that rows are added to and taken from")
    add("--folder", type=Path, help="where pairs are written; the largest takes 40 GB (default: a temporary folder)")
    add("--quick", action="store_true", help="tiny pairs: shows that the program works, measures nothing")
    add("--write", action="store_true", help="put the table into bench/README.md")
    chosen = parser.parse_args()
    if chosen.write and chosen.quick:
        parser.error("--quick measures nothing that could be written: leave --write or --quick out")
    return chosen


def main() -> None:
    chosen = arguments()
    points, workers = QUICK if chosen.quick else POINTS, chosen.workers or [1, 2]
    with tempfile.TemporaryDirectory(prefix="scale-") as own:
        results = chosen.results or Path(own) / "results"
        have = {(row.point, row.workers) for row in known(results)}
        for point in chosen.only or points:
            missing = [count for count in workers if (point, count) not in have]
            for row in measured(point, points[point], missing, chosen.folder or Path(own), chosen.rounds) if missing else ():
                print(line(row, None), file=sys.stderr, flush=True)
                with results.open("a") as file:
                    file.write(json.dumps(row._asdict()) + "\n")
        lines = table(known(results))
    print(*lines, sep="\n")
    if chosen.write:
        run.fill(run.README, lines, BEGIN, END)


if __name__ == "__main__":
    main()
