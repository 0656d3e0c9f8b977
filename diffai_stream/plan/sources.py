"""The numbers of an entry, ready for the kernels: contiguous, aligned, in C order, one byte or more an element.

Three layers, each over the one before: the stored bytes laid end to end (mapped, read, or through a codec reader); the stored
tensor in C order (strides gathered, quantized codes decoded); the region of it that a pair compares (a slice, a transpose,
a permutation). Every layer is asked for a range of elements and reads little more than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Decoder, Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.encodings.inspection import Inspection, inspect
from diffai_stream.errors import TensorError
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.plan.gather import Layout, gathered
from diffai_stream.storage.codecs import is_sequential
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.inflate import inflated
from diffai_stream.storage.windows import read_window

Bytes = NDArray[np.uint8]


def scanned_encoding(entry: TensorEntry) -> Encoding:
    """The encoding that the kernels see: float32 where values are decoded or shifted before the scan, else the stored one."""
    stored = ENCODINGS[entry.encoding]
    is_shifted = entry.region is not None and entry.region.offset != 0
    if stored.decoder or (is_shifted and stored.kind < DecodeKind.F64):
        return ENCODINGS["F32"]
    return ENCODINGS["F64"] if is_shifted else stored


_READ_ANYWHERE = (DecodeKind.BF16, DecodeKind.F16)  # by their bytes; members of zip archives lie at odd places


class Source:
    """One side of a slice: reads elements [start, stop) of a tensor entry as raw bytes of the `encoding` to scan."""

    def __init__(self, entry: TensorEntry, stamps: Mapping[str, FileStamp], io: str) -> None:
        self.entry = entry
        self.stored = ENCODINGS[entry.encoding]
        self.encoding = scanned_encoding(entry)
        self.direct = _direct(entry, self.stored)
        self._stamps, self._io = stamps, io
        self._decoder: Decoder | None = None

    @property
    def extents(self) -> Iterator[Extent]:
        """All extents of all components."""
        return (extent for component in self.entry.components.values() for extent in component.extents)

    def read(self, start: int, stop: int) -> Bytes:
        """Raw bytes of real elements [start, stop), read-only; aligned unless kernels read them where they lie.

        Raises CheckpointError.
        """
        parts = self.stored.components
        first, last = start // parts, -(-stop // parts)
        raw = self._of_region(first, last)
        if parts > 1:
            raw = raw[(start - first * parts) * self.encoding.itemsize :][: (stop - start) * self.encoding.itemsize]
        aligned = self.encoding.kind in _READ_ANYWHERE or raw.ctypes.data % self.encoding.itemsize == 0
        return _frozen(raw if aligned else raw.copy())

    def inspect(self) -> Inspection | None:
        """Codes and scales of a quantized tensor that is compared as a whole, else None. Raises CheckpointError."""
        if not self.stored.decoder or self.entry.region is not None:
            return None
        return inspect(self.entry, self._bytes)

    def stream(self, sizes: Iterator[int]) -> Iterator[Bytes]:
        """Raw bytes of consecutive runs of elements of a sequentially compressed tensor."""
        extent = self.entry.components["data"].extents[0]
        nbytes = (size * self.encoding.itemsize for size in sizes)
        for raw in inflated(extent, nbytes, self._stamps.get(extent.path)):
            yield _frozen(raw)

    def _of_region(self, start: int, stop: int) -> Bytes:
        """Bytes of elements [start, stop) of the entry, whole complex numbers."""
        region = self.entry.region
        if region is None:
            return self._of_stored(start, stop)
        itemsize = self._itemsize
        raw = gathered(Layout(region.shape, region.strides, region.start), start, stop, self._of_stored, itemsize)
        if region.offset == 0:
            return raw
        source = ENCODINGS["F32"] if self.stored.decoder else self.stored
        values: NDArray[Any] = decoded(raw, source, stop - start).astype(self.encoding.tile_dtype, copy=False)
        np.add(values, region.offset, out=values)
        return values.view(np.uint8)

    @property
    def _itemsize(self) -> int:
        """Bytes of one element of the stored tensor as `_of_stored` gives it."""
        return 4 if self.stored.decoder else self.stored.itemsize * self.stored.components

    def _of_stored(self, start: int, stop: int) -> Bytes:
        """Bytes of elements [start, stop) of the stored tensor in C order."""
        if self.stored.decoder:
            return self._decoded(start, stop)
        component = self.entry.components["data"]
        if component.strides is not None:
            layout = Layout(component.shape, component.strides, 0)
            return gathered(layout, start, stop, self._plain, self._itemsize)
        return self._plain(start, stop)

    def _plain(self, start: int, stop: int) -> Bytes:
        """Bytes of elements [start, stop) as they lie in the extents, packed codes spread to a byte each."""
        bits = self.stored.bits
        raw = self._bytes("data", start * bits // 8, -(-stop * bits // 8))
        if self.stored.unpack is None:
            return raw
        lead = start - start * bits // 8 * 8 // bits
        return self.stored.unpack(raw, lead + stop - start)[lead:]

    def _decoded(self, start: int, stop: int) -> Bytes:
        """float32 bytes of dequantized elements; whole blocks are decoded, what was not asked for is cut off."""
        if self._decoder is None:
            self._decoder = self.stored.open_decoder(self.entry, self._bytes)
        block, numel = self._decoder.block, prod(self.entry.stored_shape)
        first, last = start // block * block, min(-(-stop // block) * block, numel)
        values = self._decoder.decode(first, last)
        return np.ascontiguousarray(values[start - first : stop - first], np.float32).view(np.uint8)

    def _bytes(self, name: str, start: int, stop: int) -> Bytes:
        """Bytes [start, stop) of a component's extents laid end to end."""
        pieces, position = [], 0
        for extent in self.entry.components[name].extents:
            first, last = max(start - position, 0), min(stop - position, extent.nbytes)
            if first < last:
                pieces.append(read_window(extent, first, last, self._stamps.get(extent.path), self._io))
            position += extent.nbytes
        if not pieces:
            return np.empty(0, np.uint8)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def is_streamed(entry: TensorEntry) -> bool:
    """Whether the bytes are a compressed stream that is read from front to back; in any other order it is spilled to disk."""
    component = entry.components.get("data")
    if component is None or len(component.extents) != 1 or not is_sequential(component.extents[0].codec):
        return False
    return not is_gathered(entry)


def is_gathered(entry: TensorEntry) -> bool:
    """Whether a chunk is put together in memory beside the stored bytes: strides, regions, dequantized values."""
    if entry.region is not None or ENCODINGS[entry.encoding].decoder:
        return True
    for component in entry.components.values():  # noqa: SIM110 - a plain loop: asked of every tensor
        if component.strides is not None:
            return True
    return False


def _direct(entry: TensorEntry, encoding: Encoding) -> tuple[str, int] | None:
    """(path, offset) when the bytes can be scanned where they lie in one file, else None."""
    component = entry.components.get("data")
    if component is None or entry.region is not None or encoding.decoder or encoding.unpack is not None:
        return None
    if len(component.extents) != 1 or component.strides is not None:
        return None
    extent = component.extents[0]
    return (extent.path, extent.offset) if not extent.codec and extent.offset % encoding.itemsize == 0 else None


def _frozen(raw: Bytes) -> Bytes:
    """The array, not writeable: kernels are compiled for read-only bytes."""
    raw.setflags(write=False)
    return raw


def check_size(entry: TensorEntry) -> None:
    """Raise TensorError unless the extents hold as many bytes as the shape and encoding say; decoders check their own."""
    row = ENCODINGS[entry.encoding]
    if row.decoder:
        return
    component: Component = entry.components["data"]
    stored = component.extents[0].nbytes if len(component.extents) == 1 else sum(extent.nbytes for extent in component.extents)
    needed = row.nbytes(prod(entry.stored_shape)) if component.strides is None else _spanned_nbytes(component, row)
    if needed > stored or (needed < stored and component.strides is None):
        raise TensorError(f"holds {stored} bytes where its shape and {entry.encoding} need {needed}", tensor=entry.name)


def _spanned_nbytes(component: Component, row: Encoding) -> int:
    """Bytes from the first to the last element of a strided array."""
    if 0 in component.shape:
        return 0
    span = sum((size - 1) * stride for size, stride in zip(component.shape, component.strides or (), strict=True))
    return row.nbytes(span + 1)
