"""What a task, a tensor and a byte cost on this machine: a short run of one thread, in this process."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pair import write_pair

if TYPE_CHECKING:
    from diffai_stream.session import Session

MATRICES, SMALL_TENSORS = 4, 4000
ROUNDS = 3


class Rates(NamedTuple):
    """Seconds and bytes by the piece: a slice is a tensor or a part of one in a task; the client makes a record of a tensor."""

    read_seconds_per_byte: float
    scheduler_seconds: float
    send_seconds: float
    result_seconds: float
    scan_seconds_per_byte: float
    slice_seconds: float
    record_seconds: float
    result_nbytes: float

    def task_seconds(self, nbytes: int, slices: int) -> float:
        """How long a worker has to do with a task."""
        computing = nbytes * self.scan_seconds_per_byte + slices * self.slice_seconds
        return max(nbytes * self.read_seconds_per_byte, computing)

    def __str__(self) -> str:
        worker = f"{1e9 * self.scan_seconds_per_byte:.3f} ns a byte and {1e6 * self.slice_seconds:.1f} µs a tensor"
        client = f"{1e6 * self.send_seconds:.0f} µs to send a task, {1e6 * self.result_seconds:.0f} µs to take its result"
        return (
            f"A node reads {1e-9 / self.read_seconds_per_byte:.3g} GB/s; a worker takes {worker}; the scheduler "
            f"{1e6 * self.scheduler_seconds:.0f} µs a task; the client {client}, {1e6 * self.record_seconds:.1f} µs for the "
            f"record of a tensor; a result has {self.result_nbytes / 1e3:.0f} kB."
        )


def planned(old: Path, new: Path, chunk_nbytes: int = 0) -> Session:
    """A comparison with the options that it has by default, but for a chunk size other than 0, ready to be run."""
    from diffai_stream.formats.catalogue import open_checkpoint
    from diffai_stream.options import Options
    from diffai_stream.plan.align import align
    from diffai_stream.session import prepare

    left, right = open_checkpoint(str(old)), open_checkpoint(str(new))
    aligned = align(left, right)
    options = Options(chunk_size=chunk_nbytes) if chunk_nbytes else Options()
    return prepare(left, right, aligned.pairs, aligned.oddities, options)


def measured() -> dict[str, float]:
    """The rates that a run can tell, of seeded pairs in a temporary folder; files are in the page cache."""
    with tempfile.TemporaryDirectory(prefix="rates-") as folder:
        large = write_pair(Path(folder) / "large", "experts", MATRICES)
        small = write_pair(Path(folder) / "small", "many", SMALL_TENSORS)
        session = planned(*large)
        nbytes = _result_nbytes(session)
        by_byte = _best(lambda: _scan(session)) / session.read_nbytes
        many = planned(*small)
        scanning = _best(lambda: _scan(many))
        by_slice = max(0.0, scanning - by_byte * many.read_nbytes) / SMALL_TENSORS
        by_record = max(0.0, _best(lambda: _compare(small)) - scanning) / SMALL_TENSORS
    return {
        "scan_seconds_per_byte": by_byte,
        "slice_seconds": by_slice,
        "record_seconds": by_record,
        "result_nbytes": nbytes,
    }


def _scan(session: Session) -> None:
    from diffai_stream.engine.scan import scan_batch

    for batch in session.batches:
        scan_batch(batch, session.program)


def _compare(paths: tuple[Path, Path]) -> None:
    """A whole comparison of many small tensors in this thread, its records made and thrown away."""
    from diffai_stream.pipeline import compare
    from diffai_stream.report.ndjson import encode

    for record in compare(*map(str, paths), executor="synchronous"):
        encode(record)


def _result_nbytes(session: Session) -> float:
    """Bytes of what a task sends back, in the mean; kernels are compiled by this, if they have to be."""
    from diffai_stream.engine.remote import packed
    from diffai_stream.engine.scan import scan_batch

    sizes = [len(pickle.dumps(packed(scan_batch(b, session.program), b))) for b in session.batches]
    return sum(sizes) / len(sizes)


def _best(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of some rounds: whatever disturbs makes it slower."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
