"""Quantized tensors of torch: whole codes under a scale and a zero point for the tensor, or for each index of one axis.

W = (code - zero point) * scale, as `torch.dequantize` computes it: in float32 with one scale, which is in the metadata
(`scale`, `zero_point`), in float64 with several, components `scales` and `zeros` along `axis`. Codes may be strided.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Decoder, Quantized, Read
from diffai_stream.encodings.decoding import Floats, integer

_CODES = {"I8": "i1", "U8": "u1", "I32": "<i4"}


class AffineDecoder:
    """Decodes any range of elements; `block` is a row of the first axis where the codes are strided, which are read by rows."""

    def __init__(self, entry: Quantized, read: Read) -> None:
        data = entry.components["data"]
        self.shape, self.strides = tuple(entry.stored_shape), data.strides
        self.dtype, self._read = np.dtype(_CODES[data.dtype]), read
        self.block = prod(self.shape[1:]) if self.strides is not None else 1
        self.axis = integer(entry, "axis", -1)
        if self.axis < 0:
            self.scales: NDArray[Any] = np.array([float(entry.metadata["scale"])], np.float32)
            self.zeros: NDArray[Any] = np.array([float(entry.metadata["zero_point"])], np.float32)
        else:
            self.scales, self.zeros = (_numbers(name, entry, read) for name in ("scales", "zeros"))

    def decode(self, start: int, stop: int) -> Floats:
        """The values of elements [start, stop), multiples of the block."""
        codes = self._codes(start, stop).astype(self.scales.dtype)
        index: Any = 0
        if self.axis >= 0:
            index = np.arange(start, stop) // prod(self.shape[self.axis + 1 :]) % self.shape[self.axis]
        codes -= self.zeros[index]
        codes *= self.scales[index]
        return codes.astype(np.float32, copy=False)

    def _codes(self, start: int, stop: int) -> NDArray[Any]:
        size = self.dtype.itemsize
        if self.strides is None:
            return np.ascontiguousarray(self._read("data", start * size, stop * size)).view(self.dtype)
        first, last = start // max(self.block, 1), stop // max(self.block, 1)
        if last <= first:
            return np.empty(0, self.dtype)
        shape = (last - first, *self.shape[1:])
        span = 1 + sum((length - 1) * stride for length, stride in zip(shape, self.strides, strict=True))
        begin = first * self.strides[0]
        raw = np.ascontiguousarray(self._read("data", begin * size, (begin + span) * size)).view(self.dtype)
        steps = tuple(stride * size for stride in self.strides)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(raw, shape, steps, writeable=False)).reshape(-1)


def _numbers(name: str, entry: Quantized, read: Read) -> NDArray[np.float64]:
    component = entry.components[name]
    item = np.dtype({"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4"}[component.dtype])
    return np.ascontiguousarray(read(name, 0, prod(component.shape) * item.itemsize)).view(item).astype(np.float64)


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of a quantized tensor of torch."""
    return AffineDecoder(entry, read)
