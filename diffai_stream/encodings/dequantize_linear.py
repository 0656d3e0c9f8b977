"""ONNX DequantizeLinear: (x - zero point) * scale, with one scale, one for each index of an axis, or one for blocks of an axis.

Codes lie densely in C order, zero points have their type, scales any float type. The product is kept as
float32; the operator rounds it to its output type. Metadata: `codes` (an encoding of `plain.py`), `axis` and `block_size`
where they count.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Decoder, Quantized, Read
from diffai_stream.encodings.decoding import Floats, as_floats, integer
from diffai_stream.encodings.packed import (
    NO_GROUPS,
    NO_PLANE,
    Codes,
    Form,
    Layout,
    Packing,
    Planes,
    codes_of,
    decode_rows,
    pairs,
)
from diffai_stream.encodings.plain import PLAIN

_PLAIN = {row.name: row for row in PLAIN}
_NUMPY = {"I16": "<i2", "U16": "<u2", "I32": "<i4"}
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ROW_NUMEL = 4096  # elements in a row where all have one scale
_MAX_COLUMNS = 1 << 20
_STEP = 1 << 18


class Grid(NamedTuple):
    """The codes as rows: `columns` each; row r takes row (r // outer) * inner + r % outer // height of the scales.

    Those have `groups` columns, one for `width` columns of codes each.
    """

    columns: int
    outer: int
    inner: int
    height: int
    groups: int
    width: int

    def scale_rows(self, first: int, last: int) -> NDArray[np.int64]:
        """The row of scales of each row in [first, last)."""
        rows = np.arange(first, last)
        return rows // self.outer * self.inner + rows % self.outer // self.height


def grid_of(shape: tuple[int, ...], scales: int, axis: int, block: int) -> Grid:
    """How `scales` scales lie over a shape: one, one an index of `axis`, or one for `block` indices of it."""
    numel = prod(shape)
    if scales == 1 and not block:
        return Grid(min(_ROW_NUMEL, max(numel, 1)), 1, 0, 1, 1, _ROW_NUMEL)
    size, inner = shape[axis], prod(shape[axis + 1 :])
    if inner == 1:
        count = -(-size // block) if block else size
        return Grid(size, 1, 1 if block else 0, 1, count, block or 1)
    if not block:
        return Grid(inner, size, 0, 1, 1, inner)
    return Grid(inner, size, -(-size // block), block, inner, 1)


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of one tensor; its format has checked that scales and zero points fit the shape."""
    shape, kind = tuple(entry.stored_shape), entry.metadata["codes"]
    count = prod(entry.components["scales"].shape)
    grid = grid_of(shape, count, integer(entry, "axis", 0), integer(entry, "block_size", 0))
    codes = _codes(kind)
    if grid.columns > _MAX_COLUMNS:
        return _Elements(entry, read, grid, kind)
    return _Rows(entry, read, grid, codes, kind)


def _codes(kind: str) -> Codes | None:
    """How the loops read a type of codes; None for those they do not know."""
    if kind in ("U8", "U2"):
        return codes_of("bits", int(kind[1:]))
    if kind == "I8":
        return codes_of("signed")
    row = _PLAIN[kind]
    if row.bits == 4:
        return Codes(Packing.PAIRS, 4, pairs(row.table()))
    return codes_of(kind) if row.bits == 8 else None


def numbers(dtype: str, raw: NDArray[np.uint8], lead: int, count: int) -> Floats:
    """float32[count] of stored numbers, `lead` codes into the bytes."""
    row = _PLAIN[dtype]
    if row.unpack is not None:
        return row.table().take(row.unpack(raw, lead + count)[lead:])
    if row.bits == 8:
        return row.table().take(raw)
    if dtype in _NUMPY:
        return raw.view(_NUMPY[dtype]).astype(np.float32)
    return as_floats(dtype, raw.view(_FLOATS[dtype]))


class _Component:
    """A component as one run of numbers, read by ranges."""

    def __init__(self, entry: Quantized, name: str, read: Read, kind: str = "") -> None:
        self.name, self.dtype, self._read = name, kind or entry.components[name].dtype, read
        self.bits = _PLAIN[self.dtype].bits

    def take(self, first: int, last: int) -> Floats:
        """float32 of numbers [first, last)."""
        start = first * self.bits // 8
        raw = np.ascontiguousarray(self._read(self.name, start, -(-last * self.bits // 8)))
        return numbers(self.dtype, raw, first - start * 8 // self.bits, last - first)


class _Scales:
    """Scales and zero points of rows of codes."""

    def __init__(self, entry: Quantized, read: Read, grid: Grid) -> None:
        self.grid = grid
        self.scales = _Component(entry, "scales", read)
        self.zeros = _Component(entry, "zeros", read) if "zeros" in entry.components else None

    def of(self, first: int, last: int) -> Planes:
        """The planes of rows [first, last) of codes."""
        index = self.grid.scale_rows(first, last)
        low, high = int(index.min()), int(index.max()) + 1
        planes = self.rows(low, high)
        if np.array_equal(index, np.arange(low, high)):
            return planes
        return Planes(*(plane[index - low] if plane.size else plane for plane in planes))

    def rows(self, low: int, high: int) -> Planes:
        """Rows [low, high) of the scales and zero points themselves."""
        return Planes(*(self._plane(part, low, high) for part in (self.scales, self.zeros)))

    def _plane(self, part: _Component | None, low: int, high: int) -> Floats:
        if part is None:
            return NO_PLANE
        groups = self.grid.groups
        return np.ascontiguousarray(part.take(low * groups, high * groups).reshape(high - low, groups))


class _Rows:
    """Decodes whole rows at a time; scales that change from column to column are applied by NumPy, row by row of scales."""

    block = 1

    def __init__(self, entry: Quantized, read: Read, grid: Grid, codes: Codes | None, kind: str) -> None:
        self.grid, self.codes, self._read = grid, codes, read
        self.stored = _Component(entry, "data", read, kind)
        self.planes = _Scales(entry, read, grid)
        self.numel = prod(entry.stored_shape)
        self.by_columns = codes is None or (grid.width == 1 and grid.columns > 1)
        self.step = max(8, _STEP // grid.columns // 8 * 8)  # rows; a multiple of what a row of packed codes begins a byte with

    def decode(self, start: int, stop: int) -> Floats:
        """The values of elements [start, stop), any two numbers."""
        columns = self.grid.columns
        if not self.by_columns:
            out = np.empty(stop - start, np.float32)
            if out.size:
                self._unpack(start, stop, out, self.planes.of(start // columns, -(-stop // columns)))
            return out
        first, last = start // columns, -(-stop // columns)
        out = np.empty((last - first) * columns, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # scales of strangers
            for low in range(first, last, self.step):
                high = min(low + self.step, last)
                self._scale(low, high, out[(low - first) * columns : (high - first) * columns])
        return out[start - first * columns : stop - first * columns]

    def _unpack(self, start: int, stop: int, out: Floats, planes: Planes) -> None:
        """Elements [start, stop) under the planes of the rows that they touch."""
        assert self.codes is not None
        columns, bits = self.grid.columns, self.codes.bits
        first, last = start // columns, -(-stop // columns)
        skipped = first
        while skipped * columns * bits % 8:
            skipped -= 1
        if skipped < first:
            planes = Planes(*(np.pad(plane, ((first - skipped, 0), (0, 0))) if plane.size else plane for plane in planes))
        nbytes = -(-min(last * columns, self.numel) * bits // 8)
        raw = self._read("data", skipped * columns * bits // 8, nbytes)
        form = Form.SUBTRACT if planes.zeros.size else Form.MULTIPLY
        layout = Layout(self.codes, columns, form, 0.0, self.grid.width if self.grid.width > 1 else columns)
        decode_rows(layout, raw, columns * bits, start - skipped * columns, planes, NO_GROUPS, out)

    def _scale(self, low: int, high: int, out: Floats) -> None:
        """Rows [low, high), which may end with the tensor."""
        columns, stop = self.grid.columns, min(high * self.grid.columns, self.numel)
        if self.codes is None:
            out[: stop - low * columns] = self.stored.take(low * columns, stop)
        else:
            self._unpack(low * columns, stop, out, Planes(np.ones((high - low, 1), np.float32)))
        rows, index = out.reshape(-1, columns), self.grid.scale_rows(low, high)
        for row in np.unique(index):
            planes = self.planes.rows(int(row), int(row) + 1)
            scales, zeros = (np.repeat(plane, self.grid.width, 1)[:, :columns] if plane.size else plane for plane in planes)
            chosen = np.flatnonzero(index == row)
            consecutive = slice(int(chosen[0]), int(chosen[-1]) + 1)
            if chosen.size == consecutive.stop - consecutive.start:
                if zeros.size:
                    rows[consecutive] -= zeros
                rows[consecutive] *= scales
            else:
                rows[chosen] = (rows[chosen] - zeros if zeros.size else rows[chosen]) * scales


class _Elements:
    """Decodes by the index of every element, where rows are too long to be read whole."""

    block = 1

    def __init__(self, entry: Quantized, read: Read, grid: Grid, kind: str) -> None:
        self.grid, self._codes = grid, _Component(entry, "data", read, kind)
        self.scales = _Component(entry, "scales", read)
        self.zeros = _Component(entry, "zeros", read) if "zeros" in entry.components else None

    def decode(self, start: int, stop: int) -> Floats:
        """The values of elements [start, stop), any two numbers."""
        out = np.empty(stop - start, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(start, stop, _STEP):
                last = min(first + _STEP, stop)
                out[first - start : last - start] = self._piece(first, last)
        return out

    def _piece(self, first: int, last: int) -> Floats:
        values, grid = self._codes.take(first, last), self.grid
        rows, columns = np.divmod(np.arange(first, last), grid.columns)
        scale_rows = rows // grid.outer * grid.inner + rows % grid.outer // grid.height
        index = scale_rows * grid.groups + columns // grid.width
        low, high = int(index.min()), int(index.max()) + 1
        if self.zeros is not None:
            values = values - self.zeros.take(low, high)[index - low]
        scaled: Floats = values * self.scales.take(low, high)[index - low]
        return scaled
