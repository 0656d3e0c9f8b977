"""The bytes of batches, read ahead of their scan in plan order, as fast as the scan goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from types import TracebackType
from typing import Any, Self

from diffai_stream.engine.results import BatchResult
from diffai_stream.plan.chunks import Batch, Slice, real_shape
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.read_ahead import Piece, ReadAhead

GAP_NBYTES = 1 << 20  # what lies between two pieces of a file is read along with them up to here


class Ahead:
    """Reads ahead of a dask scheduler that is given these callbacks, until the context ends."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._reading = ReadAhead((pieces_of(batch), batch.nbytes) for batch in batches)
        self.callbacks = [(None, None, None, self._finished, None)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reading.stop()

    def used(self, result: BatchResult) -> None:
        """The bytes of a batch are done with."""
        self._reading.used(result.nbytes)

    def _finished(self, key: tuple[str, int], result: BatchResult, *_: Any) -> None:
        if key[0] == "scan":
            self.used(result)


def pieces_of(batch: Batch) -> list[Piece]:
    """What a batch reads of plainly stored tensors, neighbours joined."""
    pieces: list[Piece] = []
    for piece in sorted(piece for part in batch.slices for piece in _pieces(part)):
        last = pieces[-1] if pieces else None
        if last and last.path == piece.path and piece.offset <= last.offset + last.nbytes + GAP_NBYTES:
            end = max(last.offset + last.nbytes, piece.offset + piece.nbytes)
            pieces[-1] = last._replace(nbytes=end - last.offset)
        else:
            pieces.append(piece)
    return pieces


def _pieces(part: Slice) -> Iterator[Piece]:
    for entry in (part.old,) if part.new is part.old else (part.old, part.new):
        total = max(1, prod(real_shape(entry)))
        for component in entry.components.values():
            yield from _share(component.extents, part.start / total, part.stop / total)


def _share(extents: Sequence[Extent], first: float, last: float) -> Iterator[Piece]:
    """The share [first, last) of extents laid end to end."""
    nbytes = sum(extent.nbytes for extent in extents)
    start, stop, position = int(nbytes * first), int(nbytes * last), 0
    for extent in extents:
        low, high = max(start - position, 0), min(stop - position, extent.nbytes)
        if low < high and not extent.codec:
            yield Piece(extent.path, extent.offset + low, high - low)
        position += extent.nbytes
