"""How scales lie over a weight: per tensor, per row, per column group, per block, read from the two shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from diffai_stream.formats.quantized.base import Refused

USUAL_SIZES = (128, 32, 16, 64, 256, 512, 1024)


class ScaleGrid(NamedTuple):
    """A scale covers `group_rows` by `group_columns` elements; `shape` is that of the scales as a matrix."""

    group_rows: int
    group_columns: int
    shape: tuple[int, int]


def scale_grid(weight: Sequence[int], scales: Sequence[int], block: tuple[int, int] | None = None) -> ScaleGrid:
    """The grid of scales of shape `scales` over a weight [..., out, in]; `block` is what the configuration says.

    Raises Refused when the shapes do not go together.
    """
    *lead, rows, columns = (1, *weight) if len(weight) < 2 else weight
    matrices = prod(lead)
    if prod(scales) == 1:
        return ScaleGrid(max(rows, 1), max(columns, 1), (1, 1))
    down, across = _counts(tuple(weight), tuple(scales), matrices, rows)
    shared = prod(scales) == down * across
    if not shared and prod(scales) != matrices * down * across:
        raise Refused(f"scales of shape {list(scales)} do not lie over a weight of shape {list(weight)}")
    sizes = _sizes(rows, down, columns, across, block)
    if sizes is None:
        said = f" into blocks of {list(block)}" if block else ""
        raise Refused(f"scales of shape {list(scales)} do not divide a weight of shape {list(weight)}{said}")
    return ScaleGrid(*sizes, (down if shared else matrices * down, across))


def _counts(weight: tuple[int, ...], scales: tuple[int, ...], matrices: int, rows: int) -> tuple[int, int]:
    """(scales down, scales across) one matrix."""
    lead = weight[:-2]
    if lead and scales in (lead, (*lead, 1), (*lead, 1, 1)) and (rows != 1 or scales != (*lead, 1)):
        return 1, 1
    if scales[: len(lead)] == lead and len(scales) > len(lead):
        scales = scales[len(lead) :]
    elif prod(scales[: max(len(scales) - 2, 0)]) == 1:
        scales = scales[-2:]
    if len(scales) == 1:
        if scales[0] != rows:
            raise Refused(f"{scales[0]} scales for {rows} rows: perhaps one for each part of a fused layer")
        return rows, 1
    if len(scales) != 2:
        raise Refused(f"scales of shape {list(scales)} do not lie over a weight of shape {list(weight)}")
    return scales[0], scales[1]


def _sizes(rows: int, down: int, columns: int, across: int, block: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns that a scale covers; blocks of several rows and columns are square unless they are configured."""
    if down in (rows, 1) or across in (columns, 1):
        wanted = block or (0, 0)
        group_rows, group_columns = _size(rows, down, wanted[0]), _size(columns, across, wanted[1])
        return (group_rows, group_columns) if group_rows and group_columns else None
    square = [(size, size) for size in USUAL_SIZES]
    candidates = [block] if block else [*square, (rows // down, rows // down)]
    return next((sizes for sizes in candidates if _count(rows, sizes[0]) == down and _count(columns, sizes[1]) == across), None)


def _size(length: int, count: int, wanted: int) -> int | None:
    """How many elements each of `count` scales covers along an axis; None when no size gives that count."""
    if count == length:
        return 1
    if count == 1:
        return max(length, 1)
    exact = (length // count,) if count and length % count == 0 else ()
    return next((size for size in (wanted, *USUAL_SIZES, *exact) if size and _count(length, size) == count), None)


def _count(length: int, size: int) -> int:
    return -(-length // size) if size > 0 else 0
