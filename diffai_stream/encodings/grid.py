"""Rows of codes under a grid of scales: what fp8, int8, packed integers, NVFP4, MXFP4 and MLX have in common.

A tensor is rows of codes, each row of whole bytes; a scale (and perhaps a zero point or a bias) covers a rectangle of
`group_rows` by `group_size` elements, the last ones in each direction partial. W = (q - zero) * scale, or with a bias
W = q * scale + bias; a symmetric integer code has a constant zero, `zero_point`.

Components: `data`; `scales` [rows of groups, groups of a row] of any float type; `zeros` of the same shape, or packed
(`zeros.py`); `biases` of the same shape; `global_scale` of one number or one a matrix; `g_idx` [columns], the group of each.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Decoder, Quantized, Read
from diffai_stream.encodings.decoding import Bytes, Floats, Plane, integer
from diffai_stream.encodings.packed import NO_GROUPS, NO_PLANE, Form, Layout, Planes, codes_of, decode_rows, decode_turned
from diffai_stream.encodings.zeros import packed_zeros
from diffai_stream.errors import TensorError

RowsOf = Callable[[int, int], tuple[Bytes, int]]


class GridDecoder:
    """Decodes rows: `rows_of` gives the bytes of rows [first, last) and the bits that each takes, `planes_of` their planes."""

    block = 1

    def __init__(
        self,
        layout: Layout,
        rows_of: RowsOf,
        planes_of: Callable[[int, int], Planes],
        groups: NDArray[np.int32] = NO_GROUPS,
    ) -> None:
        self.layout, self.groups = layout, groups
        self._rows_of, self._planes_of = rows_of, planes_of

    def decode(self, start: int, stop: int) -> Floats:
        """The values of elements [start, stop), any two numbers."""
        out = np.empty(stop - start, np.float32)
        if out.size:
            columns = self.layout.columns
            first, last = start // columns, -(-stop // columns)
            raw, row_bits = self._rows_of(first, last)
            decode_rows(self.layout, raw, row_bits, start - first * columns, self._planes_of(first, last), self.groups, out)
        return out


class TurnedDecoder:
    """Decodes [matrices, columns, rows] of codes stored as [matrices, rows, columns] (gpt-oss experts)."""

    def __init__(self, entry: Quantized, read: Read) -> None:
        self.columns, self.rows = entry.stored_shape[-2:]
        self.block = self.rows
        self.layout = layout_of(entry, self.columns)
        self.planes = GridPlanes(entry, read, self.rows)
        self._read, self._row_nbytes = read, row_nbytes(entry, prod(entry.stored_shape[:-2]) * self.rows)

    def decode(self, start: int, stop: int) -> Floats:
        """The values of elements [start, stop), multiples of the last axis."""
        out = np.empty(stop - start, np.float32)
        line, last, at = start // max(self.rows, 1), stop // max(self.rows, 1), 0
        while line < last:
            matrix, column = divmod(line, self.columns)
            count = min(self.columns - column, last - line)
            self._strip(matrix * self.rows, column, count, out[at : at + count * self.rows])
            line, at = line + count, at + count * self.rows
        return out

    def _strip(self, first: int, column: int, count: int, out: Floats) -> None:
        """Columns of one matrix, whose rows begin at `first`; only the groups that they touch are read."""
        width, bits = self.layout.width, self.layout.codes.bits
        groups = column // width, -(-(column + count) // width)
        skipped = groups[0] * width
        raw = self._read("data", first * self._row_nbytes + skipped * bits // 8, (first + self.rows) * self._row_nbytes)
        scales, zeros = self.planes.of(first, first + self.rows)
        scales, zeros = (np.ascontiguousarray(plane[:, slice(*groups)]) for plane in (scales, zeros))
        decode_turned(self.layout, raw, 8 * self._row_nbytes, column - skipped, Planes(scales, zeros), out)


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of a tensor whose codes lie row by row in its logical order, or transposed where its metadata says so."""
    if entry.metadata.get("transposed") == "true":
        return TurnedDecoder(entry, read)
    planes = GridPlanes(entry, read, entry.stored_shape[-2] if len(entry.stored_shape) > 1 else 1)
    nbytes = row_nbytes(entry, prod(entry.stored_shape[:-1]))

    def rows_of(first: int, last: int) -> tuple[Bytes, int]:
        return read("data", first * nbytes, last * nbytes), 8 * nbytes

    return GridDecoder(layout_of(entry, entry.stored_shape[-1]), rows_of, planes.of, group_index(entry, read))


def layout_of(entry: Quantized, columns: int) -> Layout:
    """The numbers of a decode, from the metadata and components of an entry."""
    form = Form.ADD if "biases" in entry.components else Form.SUBTRACT if "zeros" in entry.components else Form.MULTIPLY
    shift = float(entry.metadata.get("zero_point", "0")) if form == Form.MULTIPLY else 0.0
    codes = codes_of(entry.metadata["codes"], integer(entry, "bits"))
    return Layout(codes, columns, form, shift, integer(entry, "group_size", max(columns, 1)))


def row_nbytes(entry: Quantized, rows: int) -> int:
    """Bytes of one row of codes."""
    return sum(extent.nbytes for extent in entry.components["data"].extents) // rows if rows else 0


def group_index(entry: Quantized, read: Read) -> NDArray[np.int32]:
    """The group of each column where `g_idx` names it, empty where groups follow each other; TensorError for unknown groups."""
    if "g_idx" not in entry.components:
        return NO_GROUPS
    plane = Plane("g_idx", entry.components["g_idx"], read)
    groups = np.ascontiguousarray(plane.take(0, plane.rows).reshape(-1), np.int32)
    count = Plane("scales", entry.components["scales"], read).columns
    if groups.size and not (groups.min() >= 0 and groups.max() < count):
        raise TensorError(f"g_idx names groups from {groups.min()} to {groups.max()}, there are {count}")
    in_order = np.arange(groups.size) // integer(entry, "group_size", max(groups.size, 1))
    return NO_GROUPS if np.array_equal(groups, in_order) else groups


class GridPlanes:
    """Scales and zeros of rows: row i of matrix e takes scale row i // group_rows of that matrix, or of the only one."""

    def __init__(self, entry: Quantized, read: Read, matrix_rows: int) -> None:
        self.entry, self.read = entry, read
        self.matrix_rows, self.group_rows = max(matrix_rows, 1), integer(entry, "group_rows", 1)
        self.scales = Plane("scales", entry.components["scales"], read)
        self.per_matrix = -(-self.matrix_rows // self.group_rows)
        self.is_shared = self.scales.rows == self.per_matrix
        self.overall = self._overall()
        self.divisor = np.float32(entry.metadata["scale_divisor"]) if "scale_divisor" in entry.metadata else None

    def of(self, first: int, last: int) -> Planes:
        """The planes of rows [first, last), one row each."""
        rows = np.arange(first, last)
        index = self._index(rows)
        low, high = int(index.min()), int(index.max()) + 1
        scales, zeros = self.scales.floats(low, high), self._zeros(low, high)
        if not np.array_equal(index, np.arange(low, high)):
            scales = scales[index - low]
            zeros = zeros[index - low] if zeros.size else zeros
        return Planes(self._overall_applied(scales, rows), zeros)

    def _index(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of scales of each row of codes."""
        within = rows % self.matrix_rows // self.group_rows
        return within if self.is_shared else rows // self.matrix_rows * self.per_matrix + within

    def _zeros(self, low: int, high: int) -> Floats:
        name = next((name for name in ("zeros", "biases") if name in self.entry.components), None)
        if name is None:
            return NO_PLANE
        if "zeros_axis" in self.entry.metadata:
            return packed_zeros(self.entry, self.read, low, high, self.scales.columns)
        zeros = Plane(name, self.entry.components[name], self.read).floats(low, high)
        offset = integer(self.entry, "zero_offset", 0)
        return zeros + np.float32(offset) if offset else zeros

    def _overall(self) -> Floats | None:
        """The factors over all scales, one a matrix or one in all."""
        if "global_scale" not in self.entry.components:
            return None
        return Plane("global_scale", self.entry.components["global_scale"], self.read).vector(0)

    def _overall_applied(self, scales: Floats, rows: NDArray[np.int64]) -> Floats:
        if self.divisor is not None:
            scales = scales / self.divisor
        if self.overall is None:
            return scales
        factors = self.overall[rows // self.matrix_rows % len(self.overall)][:, None]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return scales / factors if self.entry.metadata.get("global_scale") == "divide" else scales * factors
