"""Integers as protobuf stores them, 1 to 10 bytes each, decoded anywhere: `varint:<stored_nbytes>:<dtype>:<step>`.

Value i is varint (i + 1) * step - 1 of the stored bytes from the extent's offset on: `step` is 1 where values stand packed and
2 where a key stands before each. `dtype` is a NumPy type of up to 64 bits, to which values are cut as C casts them, or `u6`
for 6-bit codes that are packed to four in three bytes. Where the n-th varint begins is only known by counting, which
happens once, by blocks, when the extent is first read.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import TensorError
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.windows import read_window

BLOCK_NBYTES = 1 << 16
_LONGEST = 10
SIXES = "u6"
_lock = threading.Lock()


def packed(path: str, offset: int, stored_nbytes: int, dtype: str, nbytes: int, step: int = 1) -> Extent:
    """The extent of `nbytes` decoded bytes whose varints take `stored_nbytes` bytes from `offset` on."""
    return Extent(path, offset, nbytes, f"varint:{stored_nbytes}:{dtype}:{step}")


def count_varints(path: str, offset: int, stored_nbytes: int) -> int:
    """How many varints there are. Raises TensorError when they are damaged."""
    return int(_counted(path, offset, stored_nbytes).numbers[-1])


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the decoded values. Raises TensorError when there are fewer or they are damaged."""
    _, size, dtype, step = extent.codec.split(":")
    if dtype == SIXES:
        there = count_varints(extent.path, extent.offset, int(size)) // int(step)
        first, last = start // 3 * 4, min(-(-stop // 3) * 4, there)
        raw = _pack_sixes(_values(extent, int(size), int(step), first, last).astype(np.uint8))
        return raw[start - first // 4 * 3 :][: stop - start]
    itemsize = np.dtype(dtype).itemsize
    first, last = start // itemsize, -(-stop // itemsize)
    raw = _values(extent, int(size), int(step), first, last).astype(f"<{dtype}").view(np.uint8)
    return raw[start - first * itemsize :][: stop - start]


def _pack_sixes(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bits = np.unpackbits(codes[:, np.newaxis], axis=1, bitorder="little")[:, :6]
    return np.packbits(bits.reshape(-1), bitorder="little")


class _Blocks(NamedTuple):
    """Where counting stood at each block: byte `places[k]` is where varint `numbers[k]` begins; the last entry is the end."""

    places: NDArray[np.int64]
    numbers: NDArray[np.int64]


def _values(extent: Extent, stored_nbytes: int, step: int, first: int, last: int) -> NDArray[np.uint64]:
    """uint64 values [first, last)."""
    blocks = _counted(extent.path, extent.offset, stored_nbytes)
    begin, end = first * step, last * step
    if blocks.numbers[-1] < end:
        there = int(blocks.numbers[-1]) // step
        raise TensorError(f"{there} values are stored where {last} or more are due", path=extent.path, offset=extent.offset)
    out = np.empty(end - begin, np.uint64)
    block = int(np.searchsorted(blocks.numbers, begin, "right")) - 1
    done = begin
    while done < end:
        raw = _bytes(extent, stored_nbytes, int(blocks.places[block]), int(blocks.places[block + 1]))
        found = decoded(raw)[done - int(blocks.numbers[block]) :][: end - done]
        out[done - begin : done - begin + found.size] = found
        done, block = done + found.size, block + 1
    return out[step - 1 :: step]


def decoded(raw: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 of whole varints that follow one another, none of more than 10 bytes."""
    ends = np.flatnonzero(raw < 128)
    starts = np.concatenate(([0], ends[:-1] + 1)) if ends.size else ends
    lengths = ends - starts + 1
    values = (raw[starts] & 127).astype(np.uint64)
    for place in range(1, int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        values[longer] |= (raw[starts[longer] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values


def _counted(path: str, offset: int, stored_nbytes: int) -> _Blocks:
    stamp = FileStamp.of(path)
    with _lock:
        return _count(Extent(path, offset, stored_nbytes), stamp)


@lru_cache(maxsize=32)
def _count(extent: Extent, stamp: FileStamp) -> _Blocks:
    """One pass over the stored bytes; the stamp is part of the key, so that a file that changed is counted anew."""
    places, numbers = [0], [0]
    for start in range(0, extent.nbytes, BLOCK_NBYTES):
        raw = _bytes(extent, extent.nbytes, start, min(start + BLOCK_NBYTES, extent.nbytes))
        ends = np.flatnonzero(raw < 128) + start
        lengths = np.diff(ends, prepend=places[-1] - 1)
        whole = int(np.argmax(lengths > _LONGEST)) if (lengths > _LONGEST).any() else ends.size
        if whole:
            places.append(int(ends[whole - 1]) + 1)
            numbers.append(numbers[-1] + whole)
        if whole < ends.size or not whole:
            break
    if places[-1] != extent.nbytes:
        place = extent.offset + places[-1]
        raise TensorError("a varint here is cut off or has more than 10 bytes", path=extent.path, offset=place)
    return _Blocks(np.array(places), np.array(numbers))


def _bytes(extent: Extent, stored_nbytes: int, start: int, stop: int) -> NDArray[np.uint8]:
    return read_window(Extent(extent.path, extent.offset, stored_nbytes), start, stop, None)
