"""Strided views in bounded memory: any range of a view's elements, from a source that gives ranges of what it looks at.

Strides are those of NumPy, in elements and not negative. A range is cut at the outermost axis it does not fit into, so
that little more than what it covers is fetched; where an axis strides far (a transpose), its steps are fetched in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Fetch = Callable[[int, int], Bytes]
SPREAD = 4  # fetch a box at once while it spans no more than this many times its elements
GROUP_NUMEL = 1 << 20  # elements that one group of far steps may span
_DTYPES = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


class Layout(NamedTuple):
    """Element (i, j, ...) of a view of this shape is element start + i·strides[0] + j·strides[1] + ... of the source."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int

    @property
    def span(self) -> int:
        """Elements from the first to the last one looked at; the shape holds no 0."""
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def at(self, index: int) -> Layout:
        """The view of one index of the first axis."""
        return Layout(self.shape[1:], self.strides[1:], self.start + index * self.strides[0])

    def rows(self, first: int, last: int) -> Layout:
        """The view of indices [first, last) of the first axis."""
        return self._replace(shape=(last - first, *self.shape[1:]), start=self.start + first * self.strides[0])


def gathered(layout: Layout, start: int, stop: int, fetch: Fetch, itemsize: int) -> Bytes:
    """Bytes of elements [start, stop) of the view in C order; `fetch(first, last)` gives elements of the source.

    Raises what `fetch` raises.
    """
    if stop <= start:
        return np.empty(0, np.uint8)
    layout = simplified(layout)
    out = np.empty((stop - start) * itemsize, np.uint8)
    at = 0
    for box, first, last in _boxes(layout, start, stop):
        count = (last - first) * itemsize
        _copy(box, first, last, fetch, itemsize, out[at : at + count])
        at += count
    return out


def simplified(layout: Layout) -> Layout:
    """The same view with axes of one element left out and axes that lie end to end joined."""
    shape: list[int] = []
    strides: list[int] = []
    for size, stride in zip(layout.shape, layout.strides, strict=True):
        if size == 1:
            continue
        if strides and strides[-1] == size * stride:
            shape[-1] *= size
            strides[-1] = stride
        else:
            shape.append(size)
            strides.append(stride)
    return Layout(tuple(shape), tuple(strides), layout.start)


def _boxes(layout: Layout, start: int, stop: int) -> Iterator[tuple[Layout, int, int]]:
    """Boxes in order, and the range of each that is wanted: whole rows of the first axis that is not split."""
    if not layout.shape:
        yield layout, 0, 1
        return
    inner = prod(layout.shape[1:])
    first, last = start // inner, -(-stop // inner)
    if len(layout.shape) > 1 and last - first == 1:
        yield from _boxes(layout.at(first), start - first * inner, stop - first * inner)
    elif len(layout.shape) > 1 and last - first == 2:  # two partial rows: neither is fetched whole
        yield from _boxes(layout, start, (first + 1) * inner)
        yield from _boxes(layout, (first + 1) * inner, stop)
    else:
        yield layout.rows(first, last), start - first * inner, stop - first * inner


def _copy(box: Layout, first: int, last: int, fetch: Fetch, itemsize: int, out: Bytes) -> None:
    """Put elements [first, last) of the box into `out`."""
    numel = prod(box.shape)
    if box.span <= max(SPREAD * numel, GROUP_NUMEL):
        items = _strided(fetch(box.start, box.start + box.span), box, itemsize)
        if first == 0 and last == numel:
            _viewed(out, itemsize).reshape(box.shape)[...] = items
        else:
            out[:] = np.ascontiguousarray(items).reshape(-1)[first:last].view(np.uint8)
        return
    whole = _in_groups(box, fetch, itemsize)
    out[:] = whole.reshape(-1)[first:last].view(np.uint8)


def _in_groups(box: Layout, fetch: Fetch, itemsize: int) -> NDArray:
    """The whole box, fetched by groups of steps along its farthest axis."""
    axis = int(np.argmax(box.strides))
    whole = np.empty(box.shape, _dtype(itemsize))
    moved = np.moveaxis(whole, axis, 0)
    far = Layout(
        (box.shape[axis], *box.shape[:axis], *box.shape[axis + 1 :]),
        (box.strides[axis], *box.strides[:axis], *box.strides[axis + 1 :]),
        box.start,
    )
    step = max(1, GROUP_NUMEL // max(1, far.strides[0]))
    for index in range(0, far.shape[0], step):
        group = far.rows(index, min(index + step, far.shape[0]))
        moved[index : index + step] = _strided(fetch(group.start, group.start + group.span), group, itemsize)
    return whole


def _strided(raw: Bytes, box: Layout, itemsize: int) -> NDArray:
    strides = tuple(stride * itemsize for stride in box.strides)
    return np.lib.stride_tricks.as_strided(_viewed(raw, itemsize), box.shape, strides, writeable=False)


def _dtype(itemsize: int) -> str:
    return _DTYPES.get(itemsize, f"V{itemsize}")


def _viewed(raw: Bytes, itemsize: int) -> NDArray:
    return raw.view(_dtype(itemsize))
