"""What is done to a mutated checkpoint: indexed, every tensor scanned, every record composed."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffai_stream.errors import DiffaiError
from diffai_stream.pipeline import inspect
from diffai_stream.report.ndjson import encode
from tests.fuzz.corpus import files_of
from tests.fuzz.mutations import mutated

SECONDS = 5


class HangError(Exception):
    """A file kept the program busy for too long."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raise HangError in the main thread after so many seconds."""

    def stop(number: int, frame: object) -> None:
        raise HangError(f"busy for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged_copy(sound: Path, folder: Path, seed: str) -> Path:
    """A copy of a sound checkpoint in which one file is mutated; companions lie beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    source = sound if sound.is_dir() else sound.parent
    shutil.copytree(source, folder)
    copy = folder if sound.is_dir() else folder / sound.name
    files = list(files_of(copy))
    victim = random.Random(seed).choice(files)
    victim.write_bytes(mutated(victim.read_bytes(), seed))
    return copy


def examine(path: Path) -> str:
    """`read`, `told` when records say that something is wrong, or the clean error; everything else that happens is raised."""
    told = False
    with time_limit():
        try:
            for record in inspect(str(path), stats=True, executor="synchronous"):
                encode(record)
                told |= record["type"] in ("error", "warning")
        except DiffaiError as error:
            return type(error).__name__
    return "told" if told else "read"
