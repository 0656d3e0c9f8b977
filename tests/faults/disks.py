"""Disks that are full: where finished tensors are kept, where the records go, where tensors are unpacked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from tests.faults.case import Case, Fault
from tests.faults.judge import check_begun, check_refused, check_same, expect, records_of
from tests.faults.process import Ended, ImpossibleError, run, shell

KIB = 1024
ON_SMALL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99
shift 2
"""
"""Arguments of a script that begins so: the bytes of the disk, where it is, a command."""


def namespace() -> list[str]:
    """The beginning of a command that may mount what vanishes with it. Raises ImpossibleError."""
    begin = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    try:
        done = subprocess.run([*begin, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ImpossibleError(f"no unshare: {error.strerror}") from error
    if done.returncode:
        raise ImpossibleError(f"no disk can be mounted: {done.stderr.strip()}")
    return begin


def on_small_disk(case: Case, nbytes: int, script: str, command: Sequence[str], **how: str) -> Ended:
    """Run a script with the command as "$@", where `disk` in the folder of the case has so many bytes."""
    disk = case.folder / "disk"
    disk.mkdir(exist_ok=True)
    line = [*namespace(), *shell(ON_SMALL_DISK + script, [str(nbytes), str(disk), *command])]
    return run(line, case.pair.folder, environment=how)


def store_full(case: Case) -> str:
    """The store's disk is full at some moment: told once, the comparison goes on; with room it is resumed."""
    nbytes = case.random.choice((4, 16, 64, 256, 1024)) * KIB
    again = f'mount -o remount,size=1g "{case.folder}/disk"; "$@" > "{case.folder}/again"; echo $? > "{case.folder}/status"'
    command = case.command("--store", str(case.folder / "disk" / "store"))
    ended = on_small_disk(case, nbytes, f'"$@"; status=$?; {again}; exit $status', command)
    resumed = Ended(int((case.folder / "status").read_text()), (case.folder / "again").read_bytes(), ended.said)
    check_same(resumed, case.plain)
    if not ended.out:
        check_refused(ended, "--store", "No space left on device")
        return "refused at once"
    return _check_not_kept(ended, case)


def store_limited(case: Case) -> str:
    """No file may grow beyond a limit: as a full disk, where nothing can be mounted."""
    limit = case.random.choice((0, 200, 1024, 16 * KIB))
    ended = case.run("--store", str(case.folder / "store"), wrap=("prlimit", f"--fsize={limit}"))
    if not ended.out:
        check_refused(ended, "--store", "File too large")
        return "refused at once"
    told = _check_not_kept(ended, case)
    check_same(case.run("--store", str(case.folder / "store")), case.plain)
    return told


def _check_not_kept(ended: Ended, case: Case) -> str:
    """The records are those of an undisturbed run, with at most one warning more: the store is full."""
    records = records_of(ended)
    lines = ended.out.splitlines(keepends=True)
    told = [number for number, record in enumerate(records) if record.get("code") == "store_full"]
    expect(len(told) <= 1, "it is told more than once that the store is full", ended)
    if not told:
        check_same(ended, case.plain)
        return "all kept"
    expect("No space" in records[told[0]]["message"] or "too large" in records[told[0]]["message"], "no reason", ended)
    before = ended._replace(out=b"".join(lines[: told[0]]))
    check_begun(before, case.plain)
    after = b"".join(
        line.replace(b'"seq":%d,' % (i + 1), b'"seq":%d,' % i, 1) for i, line in enumerate(lines[told[0] + 1 :], told[0])
    )
    check_same(ended._replace(out=before.out + after), case.plain)
    return "told that the store is full"


def printing_full(case: Case) -> str:
    """Nothing can be printed from some moment on: status 2, and what is there is how the records begin."""
    store = ("--store", str(case.folder / "store"))
    nbytes = case.random.choice((0, 4, 32)) * KIB
    if nbytes:
        script = f'"$@" > "{case.folder}/disk/out"; status=$?; cat "{case.folder}/disk/out"; exit $status'
        ended = on_small_disk(case, nbytes, script, case.command(*store))
        check_begun(ended, case.plain)
    else:
        ended = run(shell('exec "$@" > /dev/full', case.command(*store)), case.pair.folder)
    expect(ended.status == 2, "the exit status is not 2", ended)
    right = "diffai: error: cannot write to standard output: No space left on device\n"
    expect(ended.said == right, "not the one line that says so", ended)
    check_same(case.run(*store), case.plain)
    return "told"


FAULTS = (
    Fault("store-full", "the disk of --store is full at some moment, then has room", store_full, ("file", "shards")),
    Fault("store-limited", "files may not grow beyond a limit, then may", store_limited),
    Fault("printing-full", "the disk of the records is full at some moment", printing_full, ("file", "npz")),
)
