"""Stored bytes of a slice, ready for the kernels: contiguous, aligned, in C order, one byte or more an element."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import TensorError
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.storage.extent import FileStamp
from diffai_stream.storage.inflate import inflated
from diffai_stream.storage.windows import read_window

Bytes = NDArray[np.uint8]


class Source:
    """One side of a slice: reads elements [start, stop) of a tensor entry as raw bytes."""

    def __init__(self, entry: TensorEntry, stamps: Mapping[str, FileStamp], io: str) -> None:
        self.entry = entry
        self.encoding: Encoding = ENCODINGS[entry.encoding]
        self.component: Component = entry.components["data"]
        self.direct = _direct(self.component, self.encoding)
        self._stamps, self._io = stamps, io

    def read(self, start: int, stop: int) -> Bytes:
        """Raw bytes of real elements [start, stop), read-only and aligned. Raises CheckpointError."""
        if self.component.strides is not None:
            return _frozen(self._gather(start, stop))
        bits = self.encoding.bits // self.encoding.components
        raw = self._bytes(start * bits // 8, -(-stop * bits // 8))
        if self.encoding.unpack is not None:
            raw = self.encoding.unpack(raw, stop - start)
        return _frozen(raw if raw.ctypes.data % self.encoding.itemsize == 0 else raw.copy())

    def stream(self, sizes: Iterator[int]) -> Iterator[Bytes]:
        """Raw bytes of consecutive runs of elements of a compressed tensor."""
        extent = self.component.extents[0]
        nbytes = (size * self.encoding.itemsize for size in sizes)
        for raw in inflated(extent, nbytes, self._stamps.get(extent.path)):
            yield _frozen(raw)

    def _bytes(self, start: int, stop: int) -> Bytes:
        pieces, position = [], 0
        for extent in self.component.extents:
            first, last = max(start - position, 0), min(stop - position, extent.nbytes)
            if first < last:
                pieces.append(read_window(extent, first, last, self._stamps.get(extent.path), self._io))
            position += extent.nbytes
        if not pieces:
            return np.empty(0, np.uint8)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _gather(self, start: int, stop: int) -> Bytes:
        """Elements of a strided tensor in C order: whole rows by slices, anything else one element at a time."""
        component, itemsize = self.component, self.encoding.bits // 8
        stored = self._bytes(0, sum(extent.nbytes for extent in component.extents))
        strides = tuple(stride * itemsize for stride in component.strides or ())
        items = np.lib.stride_tricks.as_strided(stored.view(f"V{itemsize}"), component.shape, strides, writeable=False)
        parts = self.encoding.components
        first, last = start // parts, -(-stop // parts)
        columns = component.shape[-1] if component.shape else 1
        if items.ndim == 2 and first % columns == 0 and last % columns == 0:
            gathered = np.ascontiguousarray(items[first // columns : last // columns])
        else:
            gathered = items.flat[first:last]
        real = itemsize // parts
        lead = (start % parts) * real
        return gathered.reshape(-1).view(np.uint8)[lead : lead + (stop - start) * real]


def _direct(component: Component, encoding: Encoding) -> tuple[str, int] | None:
    """(path, offset) when the bytes can be scanned where they lie in one file, else None."""
    if len(component.extents) != 1 or component.strides is not None or encoding.unpack is not None:
        return None
    extent = component.extents[0]
    return (extent.path, extent.offset) if not extent.codec and extent.offset % encoding.itemsize == 0 else None


def _frozen(raw: Bytes) -> Bytes:
    """The array, not writeable: kernels are compiled for read-only bytes."""
    raw.setflags(write=False)
    return raw


def check_size(entry: TensorEntry) -> None:
    """Raise TensorError unless the extents hold as many bytes as the shape and encoding say."""
    needed, stored = ENCODINGS[entry.encoding].nbytes(prod(entry.shape)), entry.stored_nbytes
    if needed != stored:
        raise TensorError(f"holds {stored} bytes where its shape and {entry.encoding} need {needed}", tensor=entry.name)
