"""What the system gives: the time, open files."""

from __future__ import annotations

from tests.faults.case import Case, Fault
from tests.faults.judge import check_same
from tests.faults.pairs import many_shards

JUMPING = """
import random, time
_random, _time, _jump = random.Random({seed}), time.time, 0.0

def jumping():
    global _jump
    if _random.random() < 0.3:
        _jump += _random.choice((-1, 1)) * 10 ** _random.uniform(-3, 9)
    return {clock}

time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""
CLOCKS = {"jumps": "_time() + _jump", "stands still": "1.6e9", "stands still just now": "_started"}


def clock(case: Case) -> str:
    """The clock of the day jumps back and forth, or stands still; a store is kept and used again."""
    which = case.random.choice(sorted(CLOCKS))
    code = JUMPING.format(seed=case.random.randrange(1000), clock=CLOCKS[which])
    (case.folder / "sitecustomize.py").write_text(f"{code}\n_started = _time()\n")
    case = case.copied()  # files that are new: their times are looked at closely
    environment = {"PYTHONPATH": str(case.folder)}
    store = ("--store", str(case.folder / "store"))
    for _ in range(2):
        check_same(case.run(*store, environment=environment), case.plain)
    return which


def few_files(case: Case) -> str:
    """At most 500 open files, and many more shards."""
    limit = case.random.choice((150, 256, 500))
    check_same(case.run(wrap=("prlimit", f"--nofile={limit}")), case.plain)
    return f"{limit} files"


FAULTS = (
    Fault("clock", "the clock jumps or stands still", clock),
    Fault("few-files", "at most 500 open files, 1,000 shards a side", few_files, ("shards",), lambda s: many_shards(s, 1000)),
)
