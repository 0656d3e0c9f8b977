"""Reading the components of a quantized tensor: small ones as matrices of float32, parameters as numbers."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Quantized, Read
from diffai_stream.encodings.plain import PLAIN

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_TABLES = {row.name: row for row in PLAIN}
_NUMPY = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"},
    **{"I64": "<i8", "I32": "<i4", "U32": "<u4", "I16": "<i2", "I8": "i1", "U8": "u1"},
}


class StoredArray(Protocol):
    """A component as decoders see it: `strides` in elements, None for C order."""

    @property
    def dtype(self) -> str:
        """Name of the element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Steps of the axes in elements."""


class Plane(NamedTuple):
    """A small component as a matrix of rows, ready to be read piecewise."""

    name: str
    component: StoredArray
    read: Read

    @property
    def rows(self) -> int:
        """Number of rows: all axes but the last."""
        return prod(self.component.shape[:-1])

    @property
    def columns(self) -> int:
        """Length of the last axis."""
        return self.component.shape[-1] if self.component.shape else 1

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) as they are stored: numbers of a NumPy type, or codes of floats that NumPy has not."""
        dtype = np.dtype(_NUMPY.get(self.component.dtype, "u1"))
        if stop <= start:
            return np.zeros((0, self.columns), dtype)
        down, across = self.component.strides or (self.columns, 1)
        first = start * down * dtype.itemsize
        last = ((stop - 1) * down + (self.columns - 1) * across + 1) * dtype.itemsize
        raw = np.ascontiguousarray(self.read(self.name, first, last))
        steps = (down * dtype.itemsize, across * dtype.itemsize)
        return np.ndarray((stop - start, self.columns), dtype, raw.data, 0, steps)

    def floats(self, start: int, stop: int) -> Floats:
        """Rows [start, stop) as contiguous float32."""
        return as_floats(self.component.dtype, self.take(start, stop))

    def vector(self, start: int, stop: int | None = None) -> Floats:
        """Numbers [start, stop) of a component in C order as float32; all of them from `start` on when no stop is given."""
        dtype = self.component.dtype
        item = np.dtype(_NUMPY.get(dtype, "u1"))
        last = prod(self.component.shape) if stop is None else stop
        raw = self.read(self.name, start * item.itemsize, last * item.itemsize)
        return as_floats(dtype, np.ascontiguousarray(raw).view(item))


def as_floats(dtype: str, stored: NDArray[Any]) -> Floats:
    """Contiguous float32 of numbers or codes of an element type, any shape."""
    with np.errstate(over="ignore", invalid="ignore"):  # float64 scales beyond float32, signalling NaN
        if dtype == "BF16":
            return (np.ascontiguousarray(stored).astype(np.uint32) << 16).view(np.float32)
        if dtype in _NUMPY:
            return np.ascontiguousarray(stored, np.float32)
        return _TABLES[dtype].table().take(stored)


def integer(entry: Quantized, key: str, default: int | None = None) -> int:
    """A parameter of the metadata as an integer."""
    text = entry.metadata.get(key)
    if text is None:
        if default is None:
            raise KeyError(key)
        return default
    return int(text)
