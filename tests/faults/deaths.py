"""The process ends before its work does: killed with a store and started again, interrupted at any moment."""

from __future__ import annotations

import os
import signal
import time

from tests.faults.case import Case, Fault
from tests.faults.judge import check_begun, check_same, expect, records_of
from tests.faults.process import Ended, Running

KILLS = 4  # at most, before it is left to end
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def killed(case: Case) -> str:
    """SIGKILL at random moments, the same command again each time, until it ends."""
    store = ("--store", str(case.folder / "store"))
    longest = _seconds(case)
    read = []
    for number in range(KILLS):
        begun = _cut_off(case, case.random.uniform(0, longest), number, signal.SIGKILL, *store)
        if begun.status != -signal.SIGKILL:
            break
        check_begun(begun, case.plain)
    ended = case.run(*store)
    check_same(ended, case.plain)
    read.append(records_of(ended)[-1]["read_nbytes"])
    again = case.run(*store)
    check_same(again, case.plain)
    expect(records_of(again)[-1]["read_nbytes"] == 0, "a whole store, and yet it reads", again)
    return f"resumed after {number + (begun.status != 1)} kills"


def interrupted(case: Case) -> str:
    """SIGINT or SIGTERM at a random moment: the status of the signal, and an `interrupted` summary when records were begun."""
    number = case.random.choice(list(SIGNALS))
    ended = _cut_off(case, case.random.uniform(0, _seconds(case)), 0, number)
    if ended.status == 1:
        check_same(ended, case.plain)
        return "done before"
    if ended.status == -number and not ended.out:
        return "before the program began"
    expect(ended.status == SIGNALS[number], "not the status of the signal", ended)
    expect("Traceback" not in ended.said, "a traceback", ended)
    records = records_of(ended)
    if records:
        told = records[-1]["type"], records[-1].get("status"), records[-1].get("exit_status")
        expect(told == ("summary", "interrupted", SIGNALS[number]), f"it ends with {told}", ended)
        check_begun(ended._replace(out=b"".join(ended.out.splitlines(True)[:-1])), case.plain)
    return "interrupted"


def _seconds(case: Case) -> float:
    """How long an undisturbed run takes now."""
    started = time.monotonic()
    case.run()
    return time.monotonic() - started


def _cut_off(case: Case, seconds: float, number: int, by: signal.Signals, *flags: str) -> Ended:
    """The comparison, its output in a file, and a signal after so many seconds."""
    path = case.folder / f"out-{number}"
    with path.open("wb") as out, Running(case.command(*flags), case.pair.folder, out.fileno()) as running:
        time.sleep(seconds)
        os.kill(running.process.pid, by)
        ended = running.end()
    return ended._replace(out=path.read_bytes())


FAULTS = (
    Fault("killed", "SIGKILL at random moments with --store, started again until it ends", killed, ("file", "shards", "npz")),
    Fault("interrupted", "SIGINT or SIGTERM at a random moment", interrupted, ("file", "shards", "hdf5")),
)
