"""bitsandbytes 4-bit codes: a flat run of blocks, the high nibble first, a table of 16 values, an absmax a block.

With double quantization the absmax are codes themselves: absmax = nested_quant_map[code] * nested_absmax[block // 256] + offset
(bitsandbytes `functional.py`, `dequantize_4bit`).
"""

from __future__ import annotations

from math import prod

import numpy as np

from diffai_stream.encodings.base import Decoder, Quantized, Read
from diffai_stream.encodings.decoding import Bytes, Plane, integer
from diffai_stream.encodings.grid import GridDecoder
from diffai_stream.encodings.packed import Codes, Form, Layout, Packing, Planes, pairs

_FP4 = (0, 0.0625 / 12, 8 / 12, 1, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
VALUES = {
    "BNB_FP4": np.array([*_FP4, *(-value for value in _FP4)], np.float32),
    "BNB_NF4": np.array(_NF4, np.float32),
}
"""float32[16]: the values of the codes, for files that do not store them (`get_4bit_type` of bitsandbytes)."""


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of a tensor whose flat elements lie in blocks; each is a row for the loops."""
    size, numel = integer(entry, "group_size"), prod(entry.stored_shape)
    stored = "quant_map" in entry.components
    values = Plane("quant_map", entry.components["quant_map"], read).vector(0) if stored else VALUES[entry.encoding]
    layout = Layout(Codes(Packing.PAIRS, 4, pairs(values, high_first=True)), size, Form.MULTIPLY, 0.0, size)
    nbytes = -(-numel // 2)
    absmax = AbsMax(entry, read)

    def rows_of(first: int, last: int) -> tuple[Bytes, int]:
        return read("data", first * size // 2, min(last * size // 2, nbytes)), 4 * size

    return GridDecoder(layout, rows_of, absmax.of)


class AbsMax:
    """The absmax of the blocks, dequantized where they are codes."""

    def __init__(self, entry: Quantized, read: Read) -> None:
        self.stored = Plane("scales", entry.components["scales"], read)
        self.is_nested = "nested_scales" in entry.components
        if self.is_nested:
            self.values = Plane("nested_quant_map", entry.components["nested_quant_map"], read).vector(0)
            self.outer = Plane("nested_scales", entry.components["nested_scales"], read)
            self.size, self.offset = integer(entry, "nested_group_size"), np.float32(entry.metadata["nested_offset"])

    def of(self, first: int, last: int) -> Planes:
        """Those of blocks [first, last), as planes of one column."""
        if not self.is_nested:
            return Planes(self.stored.floats(first, last))
        codes = self.stored.take(first, last).reshape(-1)
        index = np.arange(first, last) // self.size
        outer = self.outer.vector(int(index[0]), int(index[-1]) + 1)[index - index[0]]
        return Planes((self.values[codes] * outer + self.offset)[:, None])
