"""The bytes of batches, read ahead of their scan in plan order, as fast as the scan goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult
from diffai_stream.plan.chunks import Batch, Slice, real_shape
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.read_ahead import Piece, ReadAhead
from diffai_stream.storage.remote.addresses import is_remote

if TYPE_CHECKING:
    from diffai_stream.storage.remote.ahead import RemoteAhead

GAP_NBYTES = 1 << 20  # what lies between two pieces of a file is read along with them up to here


_Range = tuple[str, int, int]
"""A path and where a range in it starts and stops: plain tuples, as there are some for every tensor."""


class Ahead:
    """Reads ahead of a dask scheduler that is given these callbacks, until the context ends."""

    def __init__(self, batches: Sequence[Batch], program: Program) -> None:
        self._reading = ReadAhead((pieces_of(batch), batch.nbytes) for batch in batches)
        self._fetching = _fetching(batches, program)
        self.callbacks = [(None, None, None, self._finished, None)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reading.stop()
        if self._fetching:
            self._fetching.stop()

    def used(self, result: BatchResult) -> None:
        """The bytes of a batch are done with."""
        self._reading.used(result.nbytes)
        if self._fetching:
            self._fetching.used(result.index)

    def _finished(self, key: tuple[str, int], result: BatchResult, *_: Any) -> None:
        if key[0] == "scan":
            self.used(result)


def _fetching(batches: Sequence[Batch], program: Program) -> RemoteAhead | None:
    """What fetches the remote objects of the batches ahead; None when all files are here."""
    if not any(map(is_remote, program.stamps)):
        return None
    from diffai_stream.storage.remote.ahead import RemoteAhead

    return RemoteAhead((batch.index, [p for p in pieces_of(batch) if is_remote(p.path)]) for batch in batches)


def pieces_of(batch: Batch) -> list[Piece]:
    """What a batch reads of plainly stored tensors, neighbours joined."""
    joined: list[_Range] = []
    for path, start, stop in sorted(found for part in batch.slices for found in _ranges(part)):
        if joined and joined[-1][0] == path and start <= joined[-1][2] + GAP_NBYTES:
            joined[-1] = (path, joined[-1][1], max(joined[-1][2], stop))
        else:
            joined.append((path, start, stop))
    return [Piece(path, start, stop - start) for path, start, stop in joined]


def _ranges(part: Slice) -> list[_Range]:
    """The ranges that a slice reads of its files."""
    found: list[_Range] = []
    for entry in (part.old,) if part.new is part.old else (part.old, part.new):
        for component in entry.components.values():
            if part.whole and len(component.extents) == 1:
                ((path, offset, nbytes, codec),) = component.extents
                found += [(path, offset, offset + nbytes)] if nbytes and not codec else []
            else:
                total = max(1, prod(real_shape(entry)))
                found += _share(component.extents, part.start / total, part.stop / total)
    return found


def _share(extents: Sequence[Extent], first: float, last: float) -> Iterator[_Range]:
    """The share [first, last) of extents laid end to end."""
    nbytes = sum(extent.nbytes for extent in extents)
    start, stop, position = int(nbytes * first), int(nbytes * last), 0
    for extent in extents:
        low, high = max(start - position, 0), min(stop - position, extent.nbytes)
        if low < high and not extent.codec:
            yield extent.path, extent.offset + low, extent.offset + high
        position += extent.nbytes
