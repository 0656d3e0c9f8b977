"""Windows of batches to dask graphs: one scan task a batch, one merge task for each aligned run of chunks of a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dask._task_spec import List, Task, TaskRef

from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult, FailedResult, FinishedResult, PartResult
from diffai_stream.engine.scan import merge_results, scan_batch
from diffai_stream.plan.chunks import Batch

Key = tuple[Any, ...]


def window_graph(window: Sequence[Batch], program: Program) -> tuple[dict[Key, Task], list[Key]]:
    """The graph of a window and the keys of its results, in plan order."""
    graph: dict[Key, Task] = {}
    outputs: list[Key] = []
    for run in aligned_runs(window):
        for batch in run:
            key: Key = ("scan", batch.index)
            graph[key] = Task(key, scan_batch, batch, program)
        outputs.append(("scan", run[0].index))
        if len(run) > 1:
            outputs[-1] = ("merge", run[0].index)
            scans = List(*(TaskRef(("scan", batch.index)) for batch in run))
            graph[outputs[-1]] = Task(outputs[-1], merge_batches, scans, program)
    return graph, outputs


def aligned_runs(window: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Runs of 2^k chunks of one tensor that form a node of its tree; every other batch by itself."""
    position = 0
    while position < len(window):
        size = _run_size(window, position)
        yield list(window[position : position + size])
        position += size


def _run_size(window: Sequence[Batch], position: int) -> int:
    head = window[position].slices[0]
    if head.whole:
        return 1
    size = 1
    while head.number % (2 * size) == 0 and _holds(window, position, 2 * size):
        size *= 2
    return size


def _holds(window: Sequence[Batch], position: int, size: int) -> bool:
    """Whether `size` chunks of the same tensor follow from `position` on."""
    if position + size > len(window):
        return False
    head, last = window[position].slices[0], window[position + size - 1].slices[0]
    return (last.pair, last.side, last.number) == (head.pair, head.side, head.number + size - 1) and not last.whole


def merge_batches(results: Sequence[BatchResult], program: Program) -> BatchResult:
    """The chunks of a run as one result."""
    parts: list[PartResult | FinishedResult | FailedResult] = [result for batch in results for result in batch.results]
    merged = merge_results(parts, program)
    return BatchResult(results[0].index, (merged,), sum(batch.nbytes for batch in results))
