"""What an encoding is: how many bits an element takes and how its bits become a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import DiffaiError, TensorError
from diffai_stream.plugins import told

T = TypeVar("T")


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


class Quantized(Protocol):
    """What a decoder sees of a tensor entry: the logical shape and, in `metadata`, the parameters of its quantization."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def stored_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def encoding(self) -> str: ...  # noqa: D102

    @property
    def components(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def metadata(self) -> Mapping[str, str]: ...  # noqa: D102


Read = Callable[[str, int, int], NDArray[np.uint8]]
"""Bytes [start, stop) of a component by its name."""


class Decoder(Protocol):
    """Dequantizes one tensor; `block` elements are the least that can be decoded by itself."""

    @property
    def block(self) -> int: ...  # noqa: D102

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """float32[stop - start]: values of elements [start, stop) in C order; both are multiples of `block`, or the end."""


class ForeignDecoder:
    """A decoder of a plug-in: whatever it raises becomes an error of the tensor, and the run goes on."""

    def __init__(self, make: Callable[[], Decoder], entry: Quantized) -> None:
        self._entry = entry
        self._decoder = self._tried(make)

    @property
    def block(self) -> int:
        """That of the decoder."""
        return self._tried(lambda: self._decoder.block)

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """What the decoder gives. Raises TensorError."""
        return self._tried(lambda: self._decoder.decode(start, stop))

    def _tried(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except DiffaiError:
            raise
        except Exception as error:
            message = f"the encoding {self._entry.encoding} of a plug-in failed: {told(error)}"
            raise TensorError(message, tensor=self._entry.name) from error


@dataclass(frozen=True)
class Encoding:
    """One row of the catalogue.

    `bits` an element takes in the file; `kind` the kernel branch; `family` is float, integer, bool or quantized;
    `pattern_bits` is 8 or 16 where the raw code has few enough values to be counted exactly, else 0; `values` gives the table
    of values of an 8-bit code; `unpack` spreads sub-byte codes to one byte each; `components` (2 for complex) real numbers an
    element; `exponent_bits`, `mantissa_bits` and `max_finite` describe floats (0 for integers, whose `max_finite` is their
    limit). A quantized encoding names its `decoder`, `module:function` of (entry, read), and is scanned as float32.
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
    decoder: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    def open_decoder(self, entry: Quantized, read: Read) -> Decoder:
        """The decoder of one tensor. Raises TensorError when its components contradict its shape."""
        module, _, function = self.decoder.partition(":")
        if module.startswith("diffai_stream."):
            return cast(Decoder, getattr(import_module(module), function)(entry, read))
        return ForeignDecoder(lambda: getattr(import_module(module), function)(entry, read), entry)

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
