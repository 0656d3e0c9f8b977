"""The distributed executor: batches on a dask cluster, a bounded number in flight, results in plan order.

A task carries descriptors (paths, offsets, stamps), never data; workers open the files themselves, so these must lie at
the same paths with the same size and modification time. A batch that a dying worker is blamed for is computed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult
from diffai_stream.engine.scan import scan_batch
from diffai_stream.errors import ChangedFileError, DiffaiError, MissingExtraError, UsageError
from diffai_stream.options import Options
from diffai_stream.plan.chunks import Batch
from diffai_stream.storage.extent import FileStamp

CONNECT_SECONDS = 20
IN_FLIGHT_PER_WORKER = 4


def run_distributed(batches: Sequence[Batch], program: Program, options: Options) -> Iterator[BatchResult]:
    """Batch results in plan order. Raises UsageError when no cluster answers, ChangedFileError when workers see other files."""
    with _client(options) as client:
        check_workers(client, program.stamps.values())
        yield from _in_order(client, batches, program)


@contextmanager
def _client(options: Options) -> Iterator[Any]:
    """A client of the scheduler asked for, or of a cluster on this machine that lives as long as the run."""
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("--executor distributed needs distributed: pip install 'diffai-stream[distributed]'") from error
    if options.scheduler is None and options.scheduler_file is None:
        workers = options.workers or len(os.sched_getaffinity(0))
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    address = options.scheduler or _address(options.scheduler_file or "")
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(f"no scheduler answers at {address}: {error}; is `dask scheduler` running there?") from error
    with client:
        yield client


def _address(path: str) -> str:
    """The address in a scheduler file; distributed itself would wait for a missing file for ever."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--scheduler-file {path}: {error}; it is written by `dask scheduler --scheduler-file`") from error


def check_workers(client: Any, stamps: Any) -> None:
    """Raise unless there are workers and every one sees every file as it was indexed."""
    expected = tuple(stamps)
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise UsageError(f"the cluster has no workers after {CONNECT_SECONDS} s; start `dask worker` there") from error
    for worker, difference in client.run(different_file, expected).items():
        if difference is not None:
            path, what = difference
            raise ChangedFileError(f"worker {worker} {what}; all workers must see the same files at the same paths", path=path)


def different_file(stamps: Sequence[FileStamp]) -> tuple[str, str] | None:
    """(path, what is wrong) of the first file that this process does not see as stamped; None when all are the same."""
    for stamp in stamps:
        try:
            here = FileStamp.of(stamp.path)
        except OSError as error:
            return stamp.path, f"cannot open it ({error.strerror})"
        if (here.nbytes, here.mtime_ns) != (stamp.nbytes, stamp.mtime_ns):
            return stamp.path, f"sees a file of {here.nbytes} bytes that is not the one of {stamp.nbytes} bytes indexed"
    return None


def _in_order(client: Any, batches: Sequence[Batch], program: Program) -> Iterator[BatchResult]:
    """Submit ahead of the consumer, no further than the window; yield each result when all before it are out."""
    from distributed import as_completed

    window = IN_FLIGHT_PER_WORKER * max(1, sum(client.nthreads().values()))
    told = client.scatter(program.elsewhere(), broadcast=True, hash=False)
    waiting: dict[int, BatchResult] = {}
    position: dict[Any, int] = {}
    submitted = done = 0
    completed = as_completed(with_results=True, raise_errors=False)
    while done < len(batches):
        while submitted < len(batches) and submitted < done + window:
            future = client.submit(scan_batch, batches[submitted], told, pure=False, priority=-submitted)
            position[future] = submitted
            completed.add(future)
            submitted += 1
        while done not in waiting:
            future, result = next(completed)
            index = position.pop(future)
            waiting[index] = result if future.status == "finished" else _recomputed(batches[index], program, result)
            future.release()
        yield waiting.pop(done)
        done += 1


def _recomputed(batch: Batch, program: Program, failure: Any) -> BatchResult:
    """The batch computed here, when its worker died or the task was lost."""
    error = failure[1] if isinstance(failure, tuple) and len(failure) > 1 else failure
    if isinstance(error, DiffaiError):
        raise error
    return scan_batch(batch, program)
