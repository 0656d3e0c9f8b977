"""The figures of large checkpoints: 20 GB a side, and 200,000 tensors. What they write they remove at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from figures import Bar, Bench, Figure, Measured, nbytes, ratio, times
from measure import MeasureError, alternate

ROUNDS = 2  # of 40 GB
SPARE_NBYTES = 2 << 30  # of the disk, at least, beside a pair
PAIR_NBYTES = {"20gb": 40 << 30, "many-200k": 2 << 30}


@contextmanager
def passing(bench: Bench, name: str) -> Iterator[tuple[Path, Path]]:
    """A pair that is removed afterwards, if it was not there before. Raises MeasureError when the disk has no room for it."""
    folder = bench.folder / name
    was_there = (folder / "new.safetensors").exists()
    bench.folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(bench.folder).free, PAIR_NBYTES[name] + SPARE_NBYTES
    if not was_there and not bench.is_quick and free < needed:
        raise MeasureError(f"it takes {needed / 1e9:.0f} GB of disk, and {free / 1e9:.0f} GB are free")
    try:
        yield bench.pair(name)
    finally:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)


def cold(bench: Bench) -> tuple[Measured, Measured]:
    """Time of a comparison of 20 GB a side by that of `cat`, each evicted before, and its largest resident set."""
    with passing(bench, "20gb") as pair:
        mine, cat = bench.compare(pair), ["cat", *map(str, pair)]
        bench.prime(bench.compare(bench.pair("1mb")))
        how = bench.drop(pair)
        runs = alternate([mine, cat], [min(bench.rounds, ROUNDS)] * 2, partial(bench.drop, pair))
        size = f"{nbytes(pair) / 1e9:.1f} GB in all"
    measured = ratio(runs[0], runs[1], (mine, cat))
    peak = Measured(runs[0].peak_nbytes / 1e6, "MB", f"largest of {len(runs[0])}, cold", (mine,))
    return measured._replace(detail=f"{measured.detail}; {size}; {how}"), peak


_found: dict[Path, tuple[Measured, Measured]] = {}


def of_cold_runs(place: int) -> Callable[[Bench], Measured]:
    """One of both figures, which the same runs give: writing and reading 40 GB twice would take as long again."""

    def measure(bench: Bench) -> Measured:
        if bench.folder not in _found:
            _found[bench.folder] = cold(bench)
        return _found[bench.folder][place]

    return measure


def a_tensor(bench: Bench) -> Measured:
    """Microseconds a tensor: the time of 200,000 of them less that of a pair of 1 MB."""
    small = bench.compare(bench.pair("1mb"))
    with passing(bench, "many-200k") as pair:
        mine = bench.compare(pair)
        bench.prime(mine)
        many, start = alternate([mine, small], [min(bench.rounds, ROUNDS), bench.rounds])
        count = tensor_count(pair[0])
    detail = f"{many.spread} - {start.spread}, for {count:,} tensors; {many.peak_nbytes / 1e6:.0f} MB"
    return Measured(1e6 * max(0.0, many.seconds - start.seconds) / count, "µs", detail, (mine, small))


def tensor_count(path: Path) -> int:
    """How many tensors the header of a file that pair.py wrote names, beside its metadata."""
    with path.open("rb") as file:
        return len(json.loads(file.read(int.from_bytes(file.read(8), "little")))) - 1


SCALE_FIGURES = (
    Figure("memory-20gb", "peak RSS, 20 GB a side", Bar(500, "MB"), of_cold_runs(1)),
    Figure("cold-20gb", "20 GB a side, cold, against `cat` cold", times(1.2), of_cold_runs(0)),
    Figure("many-200k", "200,000 tensors of 4 KB a side: a tensor, beyond start-up", Bar(80, "µs"), a_tensor),
)
