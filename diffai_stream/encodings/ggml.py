"""The types of ggml, as GGUF files number them: block sizes, and the decoders of the quantized ones.

Numbers and sizes: `ggml.h` and `ggml-common.h` of ggml-org/ggml. A row of a tensor is a whole number of blocks, so any run of
blocks can be decoded by itself. The lookup types without a loop here go through the `gguf` package, which knows their grids.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Decoder, Encoding, Quantized, Read
from diffai_stream.errors import MissingExtraError, TensorError
from diffai_stream.native import Entry

_MODULE = "diffai_stream.encodings.kernels.ggml_entries"
_OPEN = "diffai_stream.encodings.ggml:open_decoder"
_PACKAGE_BLOCKS = 64  # blocks in one row for the gguf package, which works on 16 rows at a time


class GgmlType(NamedTuple):
    """A type by its number: `nbytes` of a block of `block` elements; `encoding` is empty where nothing decodes it."""

    number: int
    name: str
    block: int
    nbytes: int
    encoding: str = ""

    @property
    def bits_per_weight(self) -> float:
        """Stored bits an element."""
        return 8 * self.nbytes / self.block


def _plain(number: int, name: str, nbytes: int) -> GgmlType:
    return GgmlType(number, name, 1, nbytes, name)


def _coded(number: int, name: str, block: int, nbytes: int, encoding: str = "") -> GgmlType:
    return GgmlType(number, name, block, nbytes, encoding or name)


TYPES: dict[int, GgmlType] = {
    row.number: row
    for row in (
        *(_plain(0, "F32", 4), _plain(1, "F16", 2), _plain(30, "BF16", 2), _plain(28, "F64", 8)),
        *(_plain(24, "I8", 1), _plain(25, "I16", 2), _plain(26, "I32", 4), _plain(27, "I64", 8)),
        *(_coded(2, "Q4_0", 32, 18), _coded(3, "Q4_1", 32, 20), _coded(6, "Q5_0", 32, 22), _coded(7, "Q5_1", 32, 24)),
        *(_coded(8, "Q8_0", 32, 34), _coded(10, "Q2_K", 256, 84), _coded(11, "Q3_K", 256, 110), _coded(12, "Q4_K", 256, 144)),
        *(_coded(13, "Q5_K", 256, 176), _coded(14, "Q6_K", 256, 210), _coded(34, "TQ1_0", 256, 54)),
        *(_coded(35, "TQ2_0", 256, 66), _coded(20, "IQ4_NL", 32, 18), _coded(23, "IQ4_XS", 256, 136)),
        *(_coded(41, "Q1_0", 128, 18), _coded(39, "MXFP4", 32, 17, "GGML_MXFP4"), _coded(40, "NVFP4", 64, 36, "GGML_NVFP4")),
        *(_coded(16, "IQ2_XXS", 256, 66), _coded(17, "IQ2_XS", 256, 74), _coded(22, "IQ2_S", 256, 82)),
        *(_coded(18, "IQ3_XXS", 256, 98), _coded(21, "IQ3_S", 256, 110)),
        *(_coded(19, "IQ1_S", 256, 50), _coded(29, "IQ1_M", 256, 56)),
        GgmlType(15, "Q8_K", 256, 292),
    )
}
_REPACKED = {31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}
OPAQUE = {
    **{number: f"{name}, repacked for one kind of processor" for number, name in _REPACKED.items()},
    **{4: "Q4_2, removed in 2023", 5: "Q4_3, removed in 2023", 9: "Q8_1, an intermediate of products"},
    42: "Q2_0, whose block is 64 or 128 elements depending on who wrote it",
}

_LOOPS = {
    "Q1_0": Entry(_MODULE, "decode_q1_0"),
    "Q4_0": Entry(_MODULE, "decode_q4_0"),
    "Q4_1": Entry(_MODULE, "decode_q4_1"),
    "Q5_0": Entry(_MODULE, "decode_q5_0"),
    "Q5_1": Entry(_MODULE, "decode_q5_1"),
    "Q8_0": Entry(_MODULE, "decode_q8_0"),
    "Q2_K": Entry(_MODULE, "decode_q2_k"),
    "Q3_K": Entry(_MODULE, "decode_q3_k"),
    "Q4_K": Entry(_MODULE, "decode_q4_k"),
    "Q5_K": Entry(_MODULE, "decode_q5_k"),
    "Q6_K": Entry(_MODULE, "decode_q6_k"),
    "TQ1_0": Entry(_MODULE, "decode_tq1_0"),
    "TQ2_0": Entry(_MODULE, "decode_tq2_0"),
    "IQ4_NL": Entry(_MODULE, "decode_iq4_nl"),
    "IQ4_XS": Entry(_MODULE, "decode_iq4_xs"),
    "MXFP4": Entry(_MODULE, "decode_mxfp4"),
    "NVFP4": Entry(_MODULE, "decode_nvfp4"),
}
_BITS = {"MXFP4": 4, "NVFP4": 4, "TQ1_0": 2, "TQ2_0": 2}
_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # E2M1, doubled
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

GGML: tuple[Encoding, ...] = tuple(
    Encoding(
        row.encoding,
        _BITS.get(row.name) or int(row.name.lstrip("IQ")[0]),
        DecodeKind.F32,
        "quantized",
        decoder=_OPEN,
        title=f"GGUF {row.name}: {row.block} in {row.nbytes} bytes{'' if row.name in _LOOPS else ', read by the gguf package'}",
    )
    for row in TYPES.values()
    if row.encoding and row.block > 1
)
_BY_ENCODING = {row.encoding: row for row in TYPES.values() if row.encoding and row.block > 1}


@lru_cache(maxsize=8)
def _values(name: str) -> NDArray[np.float32]:
    """What the 16 codes of a type stand for, then its 256 scales where they are codes too."""
    if name.startswith("IQ4"):
        return np.array(_IQ4, np.float32)
    scales = _halved_exponents() if name == "MXFP4" else _halved_e4m3()
    return np.concatenate([np.array(_FP4, np.float32), scales])


def _halved_exponents() -> NDArray[np.float32]:
    """float32[256]: 2^(e - 128), half of E8M0, for codes that are doubled; ggml has no NaN at 255."""
    exponents: NDArray[np.float32] = np.exp2(np.arange(256) - 128.0).astype(np.float32)
    return exponents


def _halved_e4m3() -> NDArray[np.float32]:
    """float32[256]: half of E4M3 without its sign bit; ggml reads the NaN 0x7F as 0."""
    code = np.arange(256)
    exponent, fraction = code >> 3 & 15, code & 7
    value = np.where(exponent > 0, (1 + fraction / 8) * 2.0 ** (exponent - 7), fraction * 2.0**-9) / 2
    value[0x7F] = 0
    return value.astype(np.float32)


class _Blocks:
    """Reads blocks of one tensor."""

    def __init__(self, kind: GgmlType, entry: Quantized, read: Read) -> None:
        self.kind, self.block = kind, kind.block
        self._name, self._read = entry.name, read

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of elements [start, stop), whole blocks. Raises TensorError when bytes are missing."""
        first, last = start // self.block, -(-stop // self.block)
        raw = self._read("data", first * self.kind.nbytes, last * self.kind.nbytes)
        if raw.size != (last - first) * self.kind.nbytes:
            raise TensorError("has fewer bytes than its shape needs", tensor=self._name)
        return self._values(raw.reshape(last - first, self.kind.nbytes)).reshape(-1)[: stop - start]

    def _values(self, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        out = np.empty((raw.shape[0], self.block), np.float32)
        loop = _LOOPS[self.kind.name]
        if self.kind.name.startswith("IQ") or self.kind.name.endswith("FP4"):
            loop(raw, out, _values(self.kind.name))
        else:
            loop(raw, out)
        return out


class _PackageBlocks(_Blocks):
    """Blocks that the gguf package decodes."""

    def _values(self, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        dequantize, types = _package(self._name)
        whole = raw.shape[0] // _PACKAGE_BLOCKS * _PACKAGE_BLOCKS
        parts = raw[:whole].reshape(-1, _PACKAGE_BLOCKS * self.kind.nbytes), raw[whole:].reshape(1, -1)
        with np.errstate(all="ignore"):  # scales of any bit pattern
            values = [dequantize(part, types(self.kind.number)).reshape(-1) for part in parts if part.size]
        return np.concatenate(values) if values else np.empty(0, np.float32)


def _package(tensor: str) -> tuple[Any, Any]:
    """`dequantize` and the enumeration of types. Raises MissingExtraError when the package is not there."""
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        message = "this GGUF type is read by the gguf package: pip install 'diffai-stream[formats]'"
        raise MissingExtraError(message, tensor=tensor) from error
    return dequantize, GGMLQuantizationType


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of a tensor of ggml blocks. Raises TensorError when its last axis is no whole number of blocks."""
    kind = _BY_ENCODING[entry.encoding]
    shape = entry.stored_shape
    if not shape or shape[-1] % kind.block:
        raise TensorError(f"a last axis of {shape[-1:]} is no whole number of blocks of {kind.block}", tensor=entry.name)
    stored = sum(extent.nbytes for extent in entry.components["data"].extents)
    if stored != prod(shape) // kind.block * kind.nbytes:
        raise TensorError(f"holds {stored} bytes, which is not what its shape and {kind.name} need", tensor=entry.name)
    return (_Blocks if kind.name in _LOOPS else _PackageBlocks)(kind, entry, read)
