"""The figures of stores and profiles: what a run that was killed costs to finish, what a comparison without old weights."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from figures import CACHE_SHARE, TENSOR, Bar, Bench, Figure, Measured, nbytes, ratio, times
from measure import Command, MeasureError, alternate, available_nbytes, run, warm

KILLED_AT = 0.9  # of the bytes of the old side, by the tensor records that are out


def resumed(bench: Bench) -> Measured:
    """A run that finds what a killed one left, against a whole one. The store is put back before each."""
    pair = bench.pair("10gb")
    full, store, left = bench.compare(pair), bench.folder / "resumed.zarr", bench.folder / "killed.zarr"
    mine = bench.compare(pair, "--store", str(store))
    how = prepared(bench, full, pair)
    for path in (store, left):
        shutil.rmtree(path, ignore_errors=True)
    share = kill_at(KILLED_AT, [*mine, "--output", "ndjson"])
    shutil.move(store, left)

    def before() -> None:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(left, store)
        if how == "cold":
            bench.drop(pair)

    runs = alternate([mine, full], [bench.rounds] * 2, before)
    measured = ratio(runs[0], runs[1], (mine, full))
    return measured._replace(
        detail=f"{measured.detail}; killed with SIGKILL at {100 * share:.0f} % of the tensors' bytes; {how}"
    )


def storing(bench: Bench) -> Measured:
    """A run that keeps what it finishes in a new store, against one that keeps nothing."""
    pair = bench.pair("1b")
    full, store = bench.compare(pair), bench.folder / "new.zarr"
    mine = bench.compare(pair, "--store", str(store))
    bench.prime(full)
    sizes: list[int] = []

    def before() -> None:
        if store.exists():
            sizes.append(disk_nbytes(store))
            shutil.rmtree(store)

    runs = alternate([mine, full], [bench.rounds] * 2, before)
    measured = ratio(runs[0], runs[1], (mine, full))
    return measured._replace(detail=f"{measured.detail}; store of {max(sizes) / 1e6:.2f} MB")


def against_weights(name: str) -> Callable[[Bench], Measured]:
    """A profile in the place of old, against old; cold where the pair does not fit into memory."""

    def measure(bench: Bench) -> Measured:
        pair, profile = bench.pair(name), made(bench, name)
        mine, full = bench.compare((profile, pair[1])), bench.compare(pair)
        how = prepared(bench, full, pair)
        runs = alternate([mine, full], [bench.rounds] * 2, partial(bench.drop, pair) if how == "cold" else None)
        measured = ratio(runs[0], runs[1], (mine, full))
        return measured._replace(detail=f"{measured.detail}; {how}")

    return measure


def profile_size(bench: Bench) -> Measured:
    """Bytes of a profile over those of its checkpoint."""
    old, profile = bench.pair("10gb")[0], made(bench, "10gb")
    size, whole = disk_nbytes(profile), old.stat().st_size
    detail = f"{size / 1e6:.2f} MB / {whole / 1e9:.2f} GB"
    return Measured(1e6 * size / whole, "kB/GB", detail, (profiling(bench, old, profile),))


def made(bench: Bench, name: str) -> Path:
    """The profile of the old side of a pair."""
    profile = bench.folder / f"{name}.profile.zarr"
    run(profiling(bench, bench.pair(name)[0], profile))
    return profile


def profiling(bench: Bench, old: Path, profile: Path) -> Command:
    return [*bench.diffai, "profile", str(old), "--store", str(profile), "--no-progress"]


def prepared(bench: Bench, command: Command, pair: Sequence[Path]) -> str:
    """Whether the runs of a pair are warm, which it then is, or cold, because it does not fit into memory."""
    bench.prime(bench.compare(bench.pair("1b")))
    if nbytes(pair) > CACHE_SHARE * available_nbytes():
        return "cold"
    warm(pair)
    return "warm"


def kill_at(share: float, command: Command) -> float:
    """Kill a command when it has printed tensors with this share of the bytes; the share there was then."""
    seen = total = 0
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not total:
                total = json.loads(line)["old"]["stored_nbytes"]
            elif TENSOR in line:
                seen += json.loads(line)["old"]["stored_nbytes"]
            if total and seen >= share * total:
                process.kill()
                return seen / total
    raise MeasureError("the run ended before it could be killed")


def disk_nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


STORE_FIGURES = (
    Figure("resume", "10 GB pair: a run killed at 90 %, started again, against a whole run", times(0.25), resumed),
    Figure("store", "2.47 GB pair: with `--store`, against without", times(1.05), storing),
    Figure("profile", "2.47 GB a side: profile and new, against old and new", times(0.6), against_weights("1b")),
    Figure("profile-10gb", "10 GB a side: profile and new, against old and new", times(0.6), against_weights("10gb")),
    Figure("profile-size", "profile of 10 GB: its size by that of the checkpoint", Bar(2000, "kB/GB"), profile_size),
)
