"""Files that change, go away or may no longer be read, while they are read or before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.case import Case, Fault
from tests.faults.judge import check_refused, check_same, check_told
from tests.faults.process import Ended, ImpossibleError

TOO_LATE = "all was read before"  # which decoded formats are soon: small tensors share a task
ALL_KINDS = ("file", "shards", "npz", "hdf5", "torch")
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


def truncated(path: Path, random: Random) -> None:
    """Cut it off somewhere."""
    os.truncate(path, random.randrange(path.stat().st_size))


def replaced(path: Path, random: Random) -> None:
    """Put another one of the same size in its place, as safe writers do."""
    other = path.with_name("other")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    other.write_bytes(raw)
    other.replace(path)


def replaced_with_time(path: Path, random: Random) -> None:
    """The same by a program that keeps modification times, as `cp -p`, `rsync -t` and `tar` do."""
    status = path.stat()
    replaced(path, random)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def overwritten(path: Path, random: Random) -> None:
    """Write into it."""
    with path.open("r+b") as file:
        file.seek(random.randrange(path.stat().st_size))
        file.write(b"damage")


def touched(path: Path, random: Random) -> None:
    """Give it another time."""
    os.utime(path)


def removed(path: Path, random: Random) -> None:
    """Delete it."""
    path.unlink()


def changed(case: Case, change: Callable[[Path, Random], None]) -> str:
    """One file of either side changes after some records: tensors that were not read yet are errors that name it."""
    case = case.copied()
    victim = case.random.choice(sorted(case.pair.files))
    with case.start() as process:
        process.read(case.some())
        change(case.pair.folder / victim, case.random)
        ended = process.end()
    return _check(ended, case, {victim})


def _check(ended: Ended, case: Case, victims: Collection[str]) -> str:
    """Either all was read before it happened, or what was not is told."""
    if ended.status == 1:
        check_same(ended, case.plain)
        return TOO_LATE
    harmed = set().union(*(case.pair.files[path] for path in victims))
    return f"{check_told(ended, case.plain, harmed, victims)} errors"


def rights() -> tuple[str, ...]:
    """The beginning of a command that permissions bind: nothing, but for root. Raises ImpossibleError."""
    if os.geteuid():
        return ()
    try:
        done = subprocess.run([*WITHOUT_RIGHTS, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ImpossibleError(f"root may read everything, and there is no setpriv: {error.strerror}") from error
    if done.returncode:
        raise ImpossibleError(f"root may read everything, and setpriv fails: {done.stderr.strip()}")
    return WITHOUT_RIGHTS


def forbidden(case: Case) -> str:
    """Permission is lost after some records: of a file, or of the folder it lies in. What is open stays readable."""
    case = case.copied()
    victim = case.random.choice(sorted(case.pair.files))
    target = case.pair.folder / victim
    if case.random.random() < 0.5:
        target = target.parent
    with case.start(wrap=rights()) as process:
        process.read(case.some())
        mode = target.stat().st_mode
        target.chmod(0)
        try:
            ended = process.end()
        finally:
            target.chmod(mode)
    files = [path for path in case.pair.files if (case.pair.folder / path).is_relative_to(target)]
    return _check(ended, case, files)


def forbidden_before(case: Case) -> str:
    """One file may not be read at all: refused, naming it; of many the others are compared."""
    case = case.copied()
    victim = case.random.choice(sorted(case.pair.files))
    (case.pair.folder / victim).chmod(0)
    ended = case.run(wrap=rights())
    if not ended.out:
        check_refused(ended, victim, "no permission")
        return "refused"
    return _check(ended, case, {victim})


CHANGES = {
    "truncated": (truncated, "an input is cut off while it is read"),
    "replaced": (replaced, "an input is replaced by another file of the same size"),
    "replaced-with-time": (replaced_with_time, "the same, and the other file has the time of the first"),
    "overwritten": (overwritten, "an input is written into while it is read"),
    "touched": (touched, "an input gets another time"),
    "removed": (removed, "an input is deleted while it is read"),
}
FAULTS = (
    *(Fault(name, title, partial(changed, change=change), ALL_KINDS) for name, (change, title) in CHANGES.items()),
    Fault("forbidden", "permission to read an input is lost while it is read", forbidden, ALL_KINDS),
    Fault("forbidden-before", "an input may not be read", forbidden_before, ALL_KINDS),
)
