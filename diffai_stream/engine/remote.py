"""What runs on the workers of a cluster: a look at what they have, and the scan of a batch, packed for the way back.

A worker is told the program once; a task carries descriptors (paths, offsets), never data.
"""

from __future__ import annotations

import platform
import queue
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from diffai_stream._version import __version__
from diffai_stream.engine.blas import single_threaded_blas
from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult, FailedResult, FinishedResult, PartResult
from diffai_stream.engine.scan import scan_batch
from diffai_stream.plan.chunks import Batch
from diffai_stream.storage.extent import FileStamp
from diffai_stream.storage.read_ahead import Piece, ReadAhead

PACKAGES = ("numpy", "numba")  # what figures are computed with
KEPT_PROGRAMS = 8
_programs: dict[str, Program] = {}


class Untold(NamedTuple):
    """The answer of a worker, at this address, that does not know the program: it was started again."""

    address: str


def versions() -> dict[str, str]:
    """What has to be the same on all machines for all results to be the same."""
    found = {"diffai-stream": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def prepare(token: str, program: Program, expected: Mapping[str, str]) -> str | None:
    """Take the program; or what keeps this worker from doing as the others do."""
    here = versions()
    odd = [f"{name} {here.get(name)}, not {wanted}" for name, wanted in expected.items() if here.get(name) != wanted]
    if odd:
        return f"has {', '.join(odd)}: install there what is installed here"
    if (difference := different_file(tuple(program.stamps.values()))) is not None:
        return difference
    while len(_programs) >= KEPT_PROGRAMS:
        _programs.pop(next(iter(_programs)), None)
    _programs[token] = program
    return None


def different_file(stamps: Sequence[FileStamp]) -> str | None:
    """What is wrong with the first file that this process does not see as stamped; None when all are the same."""
    for stamp in stamps:
        try:
            here = FileStamp.of(stamp.path)
        except OSError as error:
            return f"cannot open {stamp.path} ({error.strerror}); --path-map LOCAL=REMOTE tells where it is there"
        if here.nbytes != stamp.nbytes:
            return f"sees {stamp.path} with {here.nbytes} bytes, not the file of {stamp.nbytes} bytes that is here"
        if here.mtime_ns != stamp.mtime_ns:
            return f"sees {stamp.path} with another modification time: a copy of its own, or a file that was replaced"
    return None


def scan_packed(batch: Batch, token: str, ahead: Sequence[Piece] = ()) -> Any:
    """The results of a batch, with places in it for its slices; Untold when the program has to be told first.

    `ahead` is what a batch reads that comes soon: it is brought into the page cache meanwhile.
    """
    if ahead:
        _reading().put((ahead, 0))
    program = _programs.get(token)
    if program is not None:
        with single_threaded_blas([batch]):
            return packed(scan_batch(batch, program), batch)
    from distributed import get_worker

    return Untold(get_worker().address)


@lru_cache(maxsize=1)
def _reading() -> queue.SimpleQueue[Any]:
    """What the one thread of this worker that reads ahead is told."""
    steps: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ReadAhead(iter(steps.get, None))
    return steps


def packed(result: BatchResult, batch: Batch) -> BatchResult:
    """The result with the places of its slices in the batch: whoever sent the batch has them."""
    places = {id(piece): place for place, piece in enumerate(batch.slices)}
    return result._replace(results=tuple(_with_slices(found, lambda piece: places[id(piece)]) for found in result.results))


def unpacked(result: BatchResult, batch: Batch) -> BatchResult:
    """The result with the slices of the batch again."""
    return result._replace(results=tuple(_with_slices(found, batch.slices.__getitem__) for found in result.results))


def _with_slices(found: Any, told: Any) -> Any:
    if isinstance(found, FinishedResult):
        return found._replace(pieces=tuple(map(told, found.pieces)))
    assert isinstance(found, PartResult | FailedResult)
    return found._replace(piece=told(found.piece))
