"""Who reads goes away, does not come, is slow."""

from __future__ import annotations

import time

from tests.faults.case import Case, Fault
from tests.faults.judge import check_begun, check_refused, check_same, expect
from tests.faults.process import run, shell

SILENT = ("2>&-", "2>/dev/full", "2> >(true)", "<&-", "<&- 2>&-")
BROKEN_PIPE = 141


def reader_gone(case: Case) -> str:
    """As `| head -N`: 141, silently, and soon."""
    with case.start() as process:
        process.read(case.some())
        process.close()
        ended = process.end()
    check_begun(ended, case.plain)
    expect(ended.status == BROKEN_PIPE, "the exit status is not 141", ended)
    expect(ended.said == "", "it complains", ended)
    return "141"


def no_output(case: Case) -> str:
    """stdout closed at the start: refused before anything is read."""
    check_refused(run(shell('exec "$@" >&-', case.command()), case.pair.folder), "standard output is closed")
    return "refused"


def nobody_listens(case: Case) -> str:
    """stderr (or stdin) closed, full or left: the records and the status are the same, and those of a store kept beside."""
    redirection = case.random.choice(SILENT)
    command = [word for word in case.command("--store", str(case.folder / "store")) if word != "--no-progress"]
    command += ["--progress", "json"]
    for _ in range(2):
        check_same(run(shell(f'"$@" {redirection}', command), case.pair.folder), case.plain)
    return redirection


def slow_reader(case: Case) -> str:
    """Whoever reads stops now and then: the run waits, and loses nothing."""
    with case.start() as process:
        while process.read(case.some()):
            time.sleep(case.random.uniform(0, 0.2))
        check_same(process.end(), case.plain)
    return "waited"


FAULTS = (
    Fault("reader-gone", "stdout closed early, as by head", reader_gone, ("file", "shards", "npz")),
    Fault("no-output", "stdout closed at the start", no_output),
    Fault("nobody-listens", "stderr or stdin closed, full, or left by its reader", nobody_listens),
    Fault("slow-reader", "a reader that stops now and then", slow_reader),
)
