"""Little memory: what the control group of the process allows. That is what is resident, mapped pages of files too."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.case import Case, Fault
from tests.faults.judge import check_same, expect, records_of
from tests.faults.pairs import Scale, free_nbytes
from tests.faults.process import ImpossibleError, shell

MB = 1_000_000
LIMIT_NBYTES = 600 * MB
CONTROLLERS = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}  # by the type of the file system


def _hierarchy() -> tuple[Path, str]:
    """Where groups with a memory limit can be made, and the file of the limit. Raises ImpossibleError."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, flags, *_ = line.split()
        root = Path(where)
        if kind == "cgroup" and "memory" in flags.split(",") and os.access(root, os.W_OK):
            return root, CONTROLLERS[kind]
        control = root / "cgroup.subtree_control"
        if kind == "cgroup2" and os.access(root, os.W_OK) and "memory" in control.read_text().split():
            return root, CONTROLLERS[kind]
    raise ImpossibleError("no control group with a memory limit can be made here (root is needed)")


@contextmanager
def limited(nbytes: int) -> Iterator[list[str]]:
    """The beginning of a command that may have so many bytes resident, page cache included. Raises ImpossibleError."""
    root, file = _hierarchy()
    group = root / f"diffai-faults-{os.getpid()}"
    group.mkdir()
    try:
        (group / file).write_text(str(nbytes))
        yield shell(f'echo $$ > "{group}/cgroup.procs" && exec "$@"', [])
    except OSError as error:
        raise ImpossibleError(f"{error.filename}: {error.strerror}") from error
    finally:
        group.rmdir()


def little_memory(case: Case) -> str:
    """Resident memory, page cache included, may not exceed what the header says, or 600 MB for a pair that is much larger."""
    promised = case.plain[0]["plan"]["projected_memory_nbytes"]
    nbytes = LIMIT_NBYTES if case.pair.scale.shape else promised
    with limited(nbytes) as wrap:
        ended = case.run(wrap=wrap)
    expect(ended.status != -signal.SIGKILL, f"killed at {nbytes / MB:.0f} MB, {promised / MB:.0f} MB are promised", ended)
    check_same(ended, case.plain)
    read = records_of(ended)[-1]["read_nbytes"]
    return f"{read / MB:.0f} MB in {nbytes / MB:.0f} MB"


def larger(scale: Scale) -> Scale:
    """A pair that does not fit into what is allowed, page cache included: 10 GB a side if the disk has room for both."""
    if scale.name == "small":
        return Scale("larger", 100, 640, 640, "64KiB", 1)  # 123 MB a side
    return scale._replace(name="huge", chunk="16MiB", shape="llama-10gb" if free_nbytes() > 30e9 else "llama-1b")


FAULTS = (Fault("little-memory", "resident memory is limited", little_memory, scale=larger),)
