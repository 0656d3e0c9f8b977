"""The executors by name. All give the same results in the same order; they differ in where the work is done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.plan.chunks import Batch

EXECUTORS = ("threads", "synchronous", "distributed")


def executor_name(options: Options) -> str:
    """The executor that the options ask for; a scheduler implies `distributed`. Raises UsageError for an unknown one."""
    name = "distributed" if options.scheduler or options.scheduler_file else options.executor
    if name not in EXECUTORS:
        raise UsageError(f"no executor is called {name!r}; there are {', '.join(EXECUTORS)}")
    return name


def worker_count(options: Options) -> int:
    """How many workers compute at once: as asked, else one a usable core."""
    if executor_name(options) == "synchronous":
        return 1
    return options.workers or len(os.sched_getaffinity(0))


def run(batches: Sequence[Batch], program: Program, options: Options) -> Iterator[BatchResult]:
    """Results of all batches in plan order, as they are known."""
    name = executor_name(options)
    if name == "distributed":
        from diffai_stream.engine.cluster import run_distributed

        return run_distributed(batches, program, options, worker_count(options))
    from diffai_stream.engine.local import run_synchronous, run_threads

    if name == "synchronous":
        return run_synchronous(batches, program)
    return run_threads(batches, program, worker_count(options))
