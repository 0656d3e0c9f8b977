"""The process that examines mutated files: it may die, and its memory is limited."""

from __future__ import annotations

import multiprocessing
import os
import resource
import traceback
from pathlib import Path

from tests.fuzz.corpus import CORPUS
from tests.fuzz.target import damaged_copy, examine

MEMORY_NBYTES = 1 << 30  # beyond what the worker needs before the first file


def work(names: list[str], seeds: list[int], folder: Path, queue: multiprocessing.Queue) -> None:
    """Examine one mutation of each (name, seed), telling what comes before trying it."""
    sound = {name: CORPUS[name].write(_made(folder / "sound" / name)) for name in dict.fromkeys(names)}
    for path in sound.values():
        examine(path)  # compiled kernels and libraries are loaded before memory is limited
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_NBYTES, resource.RLIM_INFINITY))
    for name, seed in zip(names, seeds, strict=True):
        queue.put(("begin", name, seed, ""))
        try:
            copy = damaged_copy(sound[name], folder / "copy", f"{name}-{seed}")
            queue.put(("end", name, seed, examine(copy)))
        except BaseException:
            queue.put(("finding", name, seed, traceback.format_exc(limit=-4)))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
