"""Codes packed into bytes: the ways they lie, the values they stand for, and the compiled loops that read them."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.decoding import Bytes, Floats
from diffai_stream.encodings.plain import PLAIN
from diffai_stream.native import Entry

MODULE = "diffai_stream.encodings.kernels.grid_entries"
decode_grid = Entry(MODULE, "decode_grid")
decode_grid_turned = Entry(MODULE, "decode_grid_turned")
turn_word_columns = Entry(MODULE, "turn_word_columns")
turn_nibble_columns = Entry(MODULE, "turn_nibble_columns")

NO_PLANE = np.zeros((0, 0), np.float32)
NO_GROUPS = np.zeros(0, np.int32)


class Packing(IntEnum):
    """How codes lie in a row (`kernels/grid.py`)."""

    BITS = 0  # a dense stream, the lowest bit first
    PAIRS = 1  # two 4-bit codes a byte, through a table of the two values of each byte
    TABLE = 2  # one byte, through a table of 256 values
    SIGNED = 3  # one byte, two's complement
    E4M3 = 4
    WORDS = 5  # 32 // bits codes in each 32-bit word, the lowest first, none across words
    E2M1 = 6  # two a byte, the low nibble first


class Form(IntEnum):
    """How a code becomes a value."""

    MULTIPLY = 0  # (q - shift) * scale
    SUBTRACT = 1  # (q - zero) * scale
    ADD = 2  # q * scale + bias


class Codes(NamedTuple):
    """The codes of an encoding; `table` where the packing looks values up."""

    packing: Packing
    bits: int
    table: Floats = np.zeros(1, np.float32)


class Layout(NamedTuple):
    """The numbers that a decode takes beside bytes and planes; `width` is the number of columns of a group."""

    codes: Codes
    columns: int
    form: Form
    shift: float
    width: int


class Planes(NamedTuple):
    """Scales and zeros (or biases), one row for each row of codes; zeros are empty where they are constant."""

    scales: Floats
    zeros: Floats = NO_PLANE


@lru_cache(maxsize=32)
def codes_of(kind: str, bits: int = 8) -> Codes:
    """Codes by name: `bits`, `words`, `signed`, `signed_nibbles`, an 8-bit float of the catalogue, `F4` (low nibble first)."""
    if kind == "signed_nibbles":
        return Codes(Packing.PAIRS, 4, pairs(((np.arange(16) ^ 8) - 8).astype(np.float32)))
    if kind in ("bits", "words", "signed"):
        return Codes(Packing[kind.upper()], bits)
    if kind in ("F8_E4M3", "F4"):
        return Codes(Packing.E4M3, 8) if kind == "F8_E4M3" else Codes(Packing.E2M1, 4)
    return Codes(Packing.TABLE, 8, next(row for row in PLAIN if row.name == kind).table())


def pairs(values: Floats, high_first: bool = False) -> Floats:
    """float32[512]: the two values of each byte by the values of its two 4-bit codes, the low one first unless said."""
    byte = np.arange(256)
    low, high = values[byte & 15], values[byte >> 4]
    return np.ascontiguousarray(np.stack([high, low] if high_first else [low, high], axis=1).reshape(-1), np.float32)


def decode_rows(
    layout: Layout, raw: Bytes, row_bits: int, first: int, planes: Planes, groups: NDArray[np.int32], out: Floats
) -> None:
    """Fill `out` with the elements that begin `first` after the start of the rows in `raw`, which takes `row_bits` for each."""
    decode_grid(raw, *_numbers(layout, row_bits, first), *_tables(layout, planes, groups), out)


def decode_turned(layout: Layout, raw: Bytes, row_bits: int, first: int, planes: Planes, out: Floats) -> None:
    """Fill `out` with columns of the rows in `raw`, from column `first` on, each as a line of its own."""
    tile = np.empty(64 * 65, np.float32)
    decode_grid_turned(raw, *_numbers(layout, row_bits, first), *_tables(layout, planes, NO_GROUPS), tile, out)


def unpacked(raw: Bytes, codes: Codes, row_nbytes: int, columns: int) -> Floats:
    """float32[rows, columns] of the codes themselves."""
    rows = raw.size // row_nbytes if row_nbytes else 0
    out = np.empty((rows, columns), np.float32)
    ones = np.broadcast_to(np.float32(1), (rows, 1)).copy()
    layout = Layout(codes, columns, Form.MULTIPLY, 0.0, max(columns, 1))
    decode_rows(layout, raw, 8 * row_nbytes, 0, Planes(ones), NO_GROUPS, out.reshape(-1))
    return out


def _numbers(layout: Layout, row_bits: int, first: int) -> tuple[int | float, ...]:
    codes = int(layout.codes.packing), layout.codes.bits
    return *codes, row_bits, layout.columns, first, int(layout.form), float(layout.shift), layout.width


def _tables(layout: Layout, planes: Planes, groups: NDArray[np.int32]) -> tuple[NDArray[np.generic], ...]:
    return layout.codes.table, planes.scales, planes.zeros if planes.zeros.size else planes.scales, groups
