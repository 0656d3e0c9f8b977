"""HQQ codes: a matrix of groups whose rows are cut into parts, part p above part p + 1 in the bits of each stored item."""

from __future__ import annotations

from math import prod

import numpy as np

from diffai_stream.encodings.base import Decoder, Quantized, Read
from diffai_stream.encodings.decoding import Floats, Plane, integer
from diffai_stream.native import Entry

PARTS = {"8bit_u8": (1, 1), "4bit_u8": (2, 1), "3bit_32": (10, 4), "2bit_u8": (4, 1), "1bit_u8": (8, 1)}  # parts, item bytes

decode_part = Entry("diffai_stream.encodings.kernels.parts_entries", "decode_part")


class PartsDecoder:
    """Decodes runs that lie in one part each: consecutive items, one shift."""

    block = 1

    def __init__(self, entry: Quantized, read: Read) -> None:
        self._read = read
        self.bits = integer(entry, "bits")
        self.parts, self.itemsize = PARTS[entry.metadata["packing"]]
        numel, size = prod(entry.stored_shape), integer(entry, "group_size")
        self.by_row = integer(entry, "axis") == 1
        self.columns = size if self.by_row else numel // size
        self.depth = -(-(numel // max(self.columns, 1)) // self.parts)
        self.scales, self.zeros = (Plane(name, entry.components[name], read) for name in ("scales", "zeros"))

    def decode(self, start: int, stop: int) -> Floats:
        """The values of elements [start, stop), any two numbers."""
        out = np.empty(stop - start, np.float32)
        run, at = self.depth * self.columns, start
        while at < stop:
            part, first = divmod(at, run)
            count = min(run - first, stop - at)
            self._part(part, first, at, out[at - start : at - start + count])
            at += count
        return out

    def _part(self, part: int, first: int, at: int, out: Floats) -> None:
        """Elements from item `first` on of one part; `at` is the number of the first in the whole tensor."""
        items = self._read("data", first * self.itemsize, (first + out.size) * self.itemsize)
        items = items if items.ctypes.data % self.itemsize == 0 else items.copy()
        row, column = divmod(at, self.columns)
        lines = (row, -(-(at + out.size) // self.columns)) if self.by_row else (0, self.columns)
        scales, zeros = self.scales.vector(*lines), self.zeros.vector(*lines)
        shift = (self.parts - 1 - part) * self.bits
        mask = (1 << self.bits) - 1
        decode_part(items, self.itemsize, shift, mask, self.columns, column, int(self.by_row), scales, zeros, out)


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of an HQQ weight."""
    return PartsDecoder(entry, read)
