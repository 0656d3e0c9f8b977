"""What an encoding is: how many bits an element takes and how its bits become a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class DecodeKind(IntEnum):
    """The branch of the decode kernel that reads an encoding (`kernels/plain.py`)."""

    F32 = 0
    BF16 = 1
    F16 = 2
    CODE8 = 3  # one byte an element, a 256-entry table of values
    I16 = 4
    U16 = 5
    F64 = 6
    I32 = 7
    U32 = 8
    I64 = 9
    U64 = 10


@dataclass(frozen=True)
class Encoding:
    """One row of the catalogue.

    `bits` an element takes in the file; `kind` the kernel branch; `family` is float, integer or bool; `pattern_bits` is 8
    or 16 where the raw code has few enough values to be counted exactly, else 0; `values` gives the table of values of an
    8-bit code; `unpack` spreads sub-byte codes to one byte each; `components` (2 for complex) real numbers an element;
    `exponent_bits`, `mantissa_bits` and `max_finite` describe floats (0 for integers, whose `max_finite` is their limit).
    """

    name: str
    bits: int
    kind: DecodeKind
    family: str
    pattern_bits: int = 0
    exponent_bits: int = 0
    mantissa_bits: int = 0
    min_finite: float = 0.0
    max_finite: float = 0.0
    values: Callable[[], NDArray[np.float32]] | None = None
    unpack: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]] | None = None
    components: int = 1
    title: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def itemsize(self) -> int:
        """Bytes of one real number as the kernels see it, after `unpack`."""
        return max(1, self.bits // 8 // self.components)

    @property
    def tile_dtype(self) -> type[np.float32 | np.float64]:
        """float32 where that holds every value exactly, else float64."""
        return np.float32 if self.kind < DecodeKind.F64 else np.float64

    def nbytes(self, numel: int) -> int:
        """Bytes that `numel` elements take, the last byte of packed ones padded."""
        return -(-numel * self.bits // 8)

    @lru_cache(maxsize=64)  # noqa: B019 - rows live as long as the process
    def table(self) -> NDArray[np.float32]:
        """float32[256] of values for 8-bit codes; one zero for other encodings (the kernels do not look at it)."""
        return self.values() if self.values else np.zeros(1, np.float32)

    def pattern_values(self) -> NDArray[np.float64]:
        """float64 value of every 8- or 16-bit code, for encodings that have so few."""
        if self.pattern_bits == 8:
            return self.table().astype(np.float64)
        codes = np.arange(1 << 16, dtype=np.uint16)
        with np.errstate(invalid="ignore"):  # signalling NaN patterns
            if self.kind == DecodeKind.BF16:
                return (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
            dtype = {DecodeKind.F16: np.float16, DecodeKind.I16: np.int16, DecodeKind.U16: np.uint16}[self.kind]
            return codes.view(dtype).astype(np.float64)
