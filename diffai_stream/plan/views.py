"""Views of a stored tensor built step by step: slices, splits and transposes, as shape, strides and start.

Nothing is read here: a view is a Region in the making, and `seen` turns it into an entry that the engine reads like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from diffai_stream.formats.base import Region, TensorEntry


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of an array in C order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


class View(NamedTuple):
    """Element (i, j, ...) is element start + i·strides[0] + j·strides[1] + ... of the stored tensor, counted in C order."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int = 0

    @classmethod
    def of(cls, entry: TensorEntry) -> View:
        """The whole of an entry, or what its region shows."""
        region = entry.region
        return cls(entry.shape, contiguous(entry.shape)) if region is None else cls(region.shape, region.strides, region.start)

    def rows(self, first: int, last: int, step: int = 1) -> View:
        """Indices first, first + step, ... below last of the first axis."""
        count = len(range(first, last, step))
        strides = (self.strides[0] * step, *self.strides[1:])
        return View((count, *self.shape[1:]), strides, self.start + first * self.strides[0])

    def at(self, index: int, axis: int = 0) -> View:
        """One index of an axis, which is gone from the view."""
        shape, strides = list(self.shape), list(self.strides)
        del shape[axis], strides[axis]
        return View(tuple(shape), tuple(strides), self.start + index * self.strides[axis])

    def split(self, *sizes: int) -> View:
        """The first axis as several, whose sizes multiply to its own."""
        outer = tuple(self.strides[0] * stride for stride in contiguous(sizes))
        return View((*sizes, *self.shape[1:]), (*outer, *self.strides[1:]), self.start)

    def transposed(self, order: Sequence[int] | None = None) -> View:
        """The axes in another order, reversed when none is given."""
        axes = tuple(order) if order is not None else tuple(reversed(range(len(self.shape))))
        return View(tuple(self.shape[a] for a in axes), tuple(self.strides[a] for a in axes), self.start)

    @property
    def numel(self) -> int:
        """Elements of the view."""
        return prod(self.shape)


def seen(entry: TensorEntry, view: View, shape: tuple[int, ...], offset: float = 0.0) -> TensorEntry:
    """The entry as a tensor of `shape`, its elements those of the view in C order, `offset` added to each."""
    region = Region(entry.stored_shape, view.shape, view.strides, view.start, offset)
    return entry._replace(shape=shape, region=region)
