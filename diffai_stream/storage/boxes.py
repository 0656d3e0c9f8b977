"""A tensor stored as boxes in several files: the codec `boxes:<JSON>`, read by ranges of the whole.

The JSON holds `itemsize`, `shape`, `files` (path, size, modification time) and `boxes`: file number, offset of its first byte,
origin and sizes along each axis; each box lies in C order. What is read is what the range touches, box by box.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.windows import read_window

Bytes = NDArray[np.uint8]
_DTYPES = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


class Box(NamedTuple):
    """A box of a tensor: `file` is a number, `offset` where its first element lies there."""

    file: int
    offset: int
    origin: tuple[int, ...]
    sizes: tuple[int, ...]

    def row(self, index: int, itemsize: int) -> Box:
        """The box of one index of the first axis, which it holds."""
        skipped = (index - self.origin[0]) * prod(self.sizes[1:]) * itemsize
        return Box(self.file, self.offset + skipped, self.origin[1:], self.sizes[1:])


class _Layout(NamedTuple):
    itemsize: int
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]


def boxed(itemsize: int, shape: Sequence[int], boxes: Sequence[Box], stamps: Sequence[FileStamp]) -> Extent:
    """The extent of a whole tensor that lies in boxes; `Box.file` counts the stamps."""
    files = [[stamp.path, stamp.nbytes, stamp.mtime_ns] for stamp in stamps]
    text = json.dumps({"itemsize": itemsize, "shape": shape, "files": files, "boxes": boxes}, separators=(",", ":"))
    return Extent(stamps[0].path, 0, prod(shape) * itemsize, f"boxes:{text}")


def read_extent(extent: Extent, start: int, stop: int) -> Bytes:
    """Bytes [start, stop) of the tensor in C order. Raises TensorError, ChangedFileError."""
    layout, stamps = _parsed(extent.codec)
    if start >= stop:
        return np.empty(0, np.uint8)
    first, last = start // layout.itemsize, -(-stop // layout.itemsize)
    out = np.empty((last - first) * layout.itemsize, np.uint8)
    _fill(out, layout, first, last, stamps)
    return out[start - first * layout.itemsize :][: stop - start]


@lru_cache(maxsize=64)
def _parsed(codec: str) -> tuple[_Layout, tuple[FileStamp, ...]]:
    found = json.loads(codec.partition(":")[2])
    boxes = tuple(Box(file, offset, tuple(origin), tuple(sizes)) for file, offset, origin, sizes in found["boxes"])
    stamps = tuple(FileStamp(path, nbytes, mtime_ns, (0, 0)) for path, nbytes, mtime_ns in found["files"])
    return _Layout(found["itemsize"], tuple(found["shape"]), boxes), stamps


def _fill(out: Bytes, layout: _Layout, first: int, last: int, stamps: Sequence[FileStamp]) -> None:
    """Put elements [first, last) into `out`: whole rows of the first axis at once, rows cut at an end by their own parts."""
    inner = prod(layout.shape[1:])
    if len(layout.shape) <= 1 or inner == 0:
        _rows(out, layout, first, last, stamps)
        return
    while first < last:
        row, skipped = divmod(first, inner)
        if skipped or last - first < inner:
            upto = min(last, (row + 1) * inner)
            holding = tuple(box.row(row, layout.itemsize) for box in layout.boxes if 0 <= row - box.origin[0] < box.sizes[0])
            narrowed = _Layout(layout.itemsize, layout.shape[1:], holding)
            _fill(out[: (upto - first) * layout.itemsize], narrowed, skipped, upto - row * inner, stamps)
        else:
            upto = last // inner * inner
            _rows(out[: (upto - first) * layout.itemsize], layout, row, upto // inner, stamps)
        out, first = out[(upto - first) * layout.itemsize :], upto


def _rows(out: Bytes, layout: _Layout, first: int, last: int, stamps: Sequence[FileStamp]) -> None:
    """Put rows [first, last) of the first axis into `out`."""
    item = _DTYPES.get(layout.itemsize, f"V{layout.itemsize}")
    whole = out.view(item).reshape((last - first, *layout.shape[1:]) if layout.shape else ())
    for box in layout.boxes:
        low, high = (max(first, box.origin[0]), min(last, box.origin[0] + box.sizes[0])) if box.origin else (0, 1)
        row_nbytes = prod(box.sizes[1:]) * layout.itemsize
        if low >= high or not row_nbytes:
            continue
        skipped = (low - box.origin[0]) * row_nbytes if box.origin else 0
        stamp, nbytes = stamps[box.file], (high - low) * row_nbytes
        raw = read_window(Extent(stamp.path, box.offset + skipped, nbytes), 0, nbytes, stamp)
        place = [slice(origin, origin + size) for origin, size in zip(box.origin[1:], box.sizes[1:], strict=True)]
        target = whole[(slice(low - first, high - first), *place)] if box.origin else whole
        target[...] = raw.view(item).reshape(target.shape)
