"""Arrays in chunks, read as flat ranges: a band is some rows of whole chunks, decoded once and kept for its neighbours.

A slice of a tensor is a flat range that ends wherever it ends; the chunks it touches belong to its neighbours too. Bands are
aligned to the chunks, those decoded last are kept (`KEPT_NBYTES` in all), and two threads that need one band decode it once.
A band that alone is larger (tall chunks side by side) is decoded chunk by chunk into a temporary file instead.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.scratch import scratch_file

KEPT_NBYTES = 64 << 20
KEPT_FILES = 4
BAND_NBYTES = 1 << 20  # small chunks are decoded so many at a time
Bytes = NDArray[np.uint8]
Ranges = tuple[tuple[int, int], ...]
Fetch = Callable[[Ranges], NDArray]


class Grid(NamedTuple):
    """An array of `shape` in chunks of `chunk`, `itemsize` bytes an element."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    itemsize: int


class Cut(NamedTuple):
    """How a grid is cut into bands: `rows` of `axis` at a time, all of the axes behind it, one of those before."""

    axis: int
    rows: int
    inner: int  # elements of one row


def cut_of(grid: Grid) -> Cut:
    """The smallest bands of whole chunks, or more of them until a band has BAND_NBYTES."""
    for axis, step in enumerate(grid.chunk):
        inner = prod(grid.shape[axis + 1 :])
        if step > 1 or inner * grid.itemsize <= BAND_NBYTES or axis == len(grid.chunk) - 1:
            times = BAND_NBYTES // max(1, step * inner * grid.itemsize)
            return Cut(axis, min(step * max(1, times), max(1, grid.shape[axis])), inner)
    return Cut(0, 1, 1)


class _Band:
    """One band, decoded by whoever needs it first."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self._lock = nbytes, threading.Lock()
        self._data: Bytes | None = None

    def get(self, decode: Callable[[], Bytes]) -> Bytes:
        with self._lock:
            if self._data is None:
                self._data = decode()
            return self._data


class Bands:
    """The bands decoded last, by key and number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Band] = OrderedDict()

    def band(self, key: Hashable, nbytes: int) -> _Band:
        """The band of a key, decoded or not; the oldest others are forgotten."""
        with self._lock:
            band = self._kept.setdefault(key, _Band(nbytes))
            self._kept.move_to_end(key)
            self._drop([k for k, b in self._kept.items() if b.nbytes > KEPT_NBYTES], KEPT_FILES, lambda _: 1)
            self._drop([k for k, b in self._kept.items() if b.nbytes <= KEPT_NBYTES], KEPT_NBYTES, lambda b: b.nbytes)
            return band

    def _drop(self, keys: list[Hashable], limit: int, size: Callable[[_Band], int]) -> None:
        """Forget the oldest of these until the rest is within the limit; never the newest."""
        total = sum(size(self._kept[key]) for key in keys)
        for key in keys[:-1]:
            if total <= limit:
                return
            total -= size(self._kept.pop(key))


BANDS = Bands()


def read_range(grid: Grid, key: Hashable, extent: Extent, start: int, stop: int, fetch: Fetch) -> Bytes:
    """Bytes [start, stop) of the array in C order. `fetch(ranges)` gives a box of it, `key` names its content.

    Raises what `fetch` raises, TensorError when a temporary file is needed and cannot be had.
    """
    cut, pieces = cut_of(grid), []
    for number, ranges, first in _bands_of(grid, cut, start // grid.itemsize, -(-stop // grid.itemsize)):
        nbytes = prod(last - begin for begin, last in ranges) * grid.itemsize
        band = BANDS.band((key, number), nbytes)
        decoded = band.get(partial(_decode, grid, ranges, nbytes, extent, fetch))
        offset = first * grid.itemsize
        pieces.append(decoded[max(0, start - offset) : stop - offset])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, np.uint8)])


def _bands_of(grid: Grid, cut: Cut, start: int, stop: int) -> Iterator[tuple[int, Ranges, int]]:
    """Number, box and first flat element of each band that elements [start, stop) touch."""
    if not grid.shape:
        yield 0, (), 0
        return
    size = grid.shape[cut.axis]
    per_axis, flat = -(-size // cut.rows), size * cut.inner
    place = start
    while place < stop:
        outer, row = place // flat, place % flat // cut.inner // cut.rows * cut.rows
        last = min(row + cut.rows, size)
        before = [(int(at), int(at) + 1) for at in np.unravel_index(outer, grid.shape[: cut.axis])] if cut.axis else []
        behind = [(0, length) for length in grid.shape[cut.axis + 1 :]]
        ranges = (*before, (row, last), *behind)
        yield outer * per_axis + row // cut.rows, ranges, outer * flat + row * cut.inner
        place = outer * flat + last * cut.inner


def _decode(grid: Grid, ranges: Ranges, nbytes: int, extent: Extent, fetch: Fetch) -> Bytes:
    if nbytes <= KEPT_NBYTES:
        return _bytes_of(fetch(ranges))
    with scratch_file(nbytes, extent) as file:
        mapping = mmap.mmap(file.fileno(), nbytes)
    out = np.frombuffer(mapping, f"V{grid.itemsize}").reshape([last - first for first, last in ranges])
    for box in _boxes(grid, ranges):
        where = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(box, ranges, strict=True))
        out[where] = _bytes_of(fetch(box)).view(f"V{grid.itemsize}").reshape([b - a for a, b in box])
        mapping.madvise(mmap.MADV_DONTNEED)  # written to the file, out of this process
    return out.reshape(-1).view(np.uint8)


def _boxes(grid: Grid, ranges: Ranges) -> Iterator[Ranges]:
    """A box chunk by chunk."""
    cuts = [
        [(max(a, first), min(a + step, last)) for a in range(first - first % step, last, step)]
        for (first, last), step in zip(ranges, grid.chunk, strict=True)
    ]
    yield from product(*cuts)


def places(ranges: Ranges, chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The places in the grid of the chunks that a box touches."""
    return product(*(range(first // step, -(-last // step)) for (first, last), step in zip(ranges, chunk, strict=True)))


def overlap(place: tuple[int, ...], chunk: tuple[int, ...], ranges: Ranges) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What of a chunk lies in a box: as slices of the chunk and of the box."""
    inside, outside = [], []
    for at, step, (first, last) in zip(place, chunk, ranges, strict=True):
        start = at * step
        begin, end = max(start, first), min(start + step, last)
        inside.append(slice(begin - start, end - start))
        outside.append(slice(begin - first, end - first))
    return tuple(inside), tuple(outside)


def _bytes_of(array: NDArray) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
