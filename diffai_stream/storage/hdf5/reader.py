"""Bytes of chunked HDF5 datasets: codec `hdf5:<bytes of the HDF5 file>:<address of the object>:<its path>`.

The extent's offset is where the HDF5 file begins: 0, or that of a zip member.

The index of chunks is read once a dataset. A chunk is read and unpacked by itself (deflate, shuffle, Fletcher-32 sums), in
any thread, without the library; what that alone can unpack goes through h5py, under its global lock.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import TensorError
from diffai_stream.storage.bands import Grid, Ranges, overlap, places, read_range
from diffai_stream.storage.extent import Extent, FileStamp, stamp_of
from diffai_stream.storage.files import FILES
from diffai_stream.storage.hdf5.chunks import READERS, Piece, chunk_nbytes, read_chunks
from diffai_stream.storage.hdf5.datasets import DEFLATE, FLETCHER32, SHUFFLE, Dataset, Filter, read_dataset
from diffai_stream.storage.hdf5.library import read_box
from diffai_stream.storage.hdf5.objects import read_header
from diffai_stream.storage.hdf5.source import Damaged, Source, Unsupported

OWN_FILTERS = (DEFLATE, SHUFFLE, FLETCHER32)
KEPT_PIECES = 1 << 18
MAX_CHUNK_NBYTES = 1 << 30


class Opened(NamedTuple):
    """A dataset and where its chunks lie."""

    dataset: Dataset
    pieces: dict[tuple[int, ...], Piece]
    key: tuple[Extent, FileStamp]

    def box(self, ranges: Ranges) -> NDArray:
        """A box of the dataset. Raises Damaged, Unsupported, MissingExtraError."""
        if is_own(self.dataset):
            return _box(self, ranges)
        extent = self.key[0]
        _, nbytes, _, path = extent.codec.split(":", 3)
        return read_box(extent, int(nbytes), path, ranges, self.dataset.type.nbytes)


def is_own(dataset: Dataset) -> bool:
    """Whether the chunks are found and unpacked here; else the library does it."""
    own = all(step.number in OWN_FILTERS for step in dataset.filters)
    return own and dataset.chunks is not None and dataset.chunks.kind in READERS


_lock = threading.Lock()
_opened: OrderedDict[tuple[Extent, FileStamp], Opened] = OrderedDict()


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the dataset in C order, little-endian or big-endian as stored. Raises TensorError."""
    try:
        opened = _open(extent)
        dataset = opened.dataset
        assert dataset.chunks is not None
        grid = Grid(dataset.shape, dataset.chunks.shape, dataset.type.nbytes)
        return read_range(grid, opened.key, extent, start, stop, opened.box)
    except (Damaged, Unsupported) as error:
        offset = getattr(error, "offset", None)
        raise TensorError(str(error), path=extent.path, offset=extent.offset if offset is None else offset) from error


def _open(extent: Extent) -> Opened:
    key = extent, stamp_of(extent)
    with _lock:
        if key not in _opened:
            _opened[key] = _read_index(extent, key)
            while len(_opened) > 1 and sum(1 + len(opened.pieces) for opened in _opened.values()) > KEPT_PIECES:
                _opened.popitem(last=False)
        _opened.move_to_end(key)
        return _opened[key]


def _read_index(extent: Extent, key: tuple[Extent, FileStamp]) -> Opened:
    _, nbytes, address, _ = extent.codec.split(":", 3)
    descriptor, _ = FILES.duplicate(extent.path)
    try:
        source = Source(descriptor, extent.offset, int(nbytes))
        dataset = read_dataset(read_header(source, int(address)))
        if chunk_nbytes(dataset) > MAX_CHUNK_NBYTES:
            raise Unsupported(f"one chunk takes {chunk_nbytes(dataset)} bytes; rewrite it with smaller ones (h5repack -l)")
        return Opened(dataset, read_chunks(source, dataset) if is_own(dataset) else {}, key)
    finally:
        os.close(descriptor)


def _box(opened: Opened, ranges: Ranges) -> NDArray:
    """A box of the dataset from the chunks it touches."""
    dataset, (extent, _) = opened.dataset, opened.key
    assert dataset.chunks is not None
    dtype = np.dtype(f"V{dataset.type.nbytes}")
    out = np.empty([last - first for first, last in ranges], dtype)
    descriptor, _ = FILES.duplicate(extent.path)
    try:
        for place in places(ranges, dataset.chunks.shape):
            piece = opened.pieces.get(place)
            inside, outside = overlap(place, dataset.chunks.shape, ranges)
            if piece is None:
                out[outside] = np.frombuffer(dataset.fill, dtype)
            else:
                out[outside] = _unpacked(descriptor, dataset, piece).view(dtype).reshape(dataset.chunks.shape)[inside]
    finally:
        os.close(descriptor)
    return out


def _unpacked(descriptor: int, dataset: Dataset, piece: Piece) -> NDArray[np.uint8]:
    """The bytes of one chunk. Raises Damaged."""
    nbytes = chunk_nbytes(dataset)
    if piece.nbytes > nbytes + (nbytes >> 2) + 4096:
        raise Damaged(f"a chunk of {nbytes} bytes is stored in {piece.nbytes}", piece.offset)
    raw: NDArray[np.uint8] = np.frombuffer(os.pread(descriptor, piece.nbytes, piece.offset), np.uint8)
    for number, step in reversed(list(enumerate(_steps(dataset, piece)))):
        if not piece.mask >> number & 1:
            raw = _undone(step, raw, nbytes, piece)
    if raw.size != nbytes:
        raise Damaged(f"a chunk holds {raw.size} bytes instead of {nbytes}", piece.offset)
    return raw


def _steps(dataset: Dataset, piece: Piece) -> tuple[Filter, ...]:
    chunks = dataset.chunks
    if chunks is not None and chunks.partial_plain:
        ends = ((at + 1) * step for at, step in zip(piece.place, chunks.shape, strict=True))
        if any(end > size for end, size in zip(ends, dataset.shape, strict=True)):
            return ()
    return dataset.filters


def _undone(step: Filter, raw: NDArray[np.uint8], nbytes: int, piece: Piece) -> NDArray[np.uint8]:
    if step.number == DEFLATE:
        return _inflated(raw, nbytes, piece)
    if step.number == SHUFFLE:
        width = step.values[0] if step.values else 1
        return _unshuffled(raw, width) if width > 1 else raw
    if step.number == FLETCHER32:
        return _checked(raw, piece)
    raise Unsupported(f"the filter {step.name or step.number} is not read")


def _inflated(raw: NDArray[np.uint8], nbytes: int, piece: Piece) -> NDArray[np.uint8]:
    """At most a little more than the chunk can take, so that a bomb ends there."""
    stream = zlib.decompressobj()
    try:
        return np.frombuffer(stream.decompress(raw.data, nbytes + 64), np.uint8)
    except zlib.error as error:
        raise Damaged(f"damaged compressed data: {error}", piece.offset) from error


def _checked(raw: NDArray[np.uint8], piece: Piece) -> NDArray[np.uint8]:
    """The bytes before the Fletcher-32 sum that ends them. Raises Damaged when it is not theirs.

    Files of releases before 1.6.3 hold sums with their bytes exchanged in pairs, which the library accepts too.
    """
    content, stored = raw[:-4], raw[-4:].astype(np.uint32)
    found = fletcher32(content)
    for order in ((3, 2, 1, 0), (2, 3, 0, 1)):
        words = int(stored[order[0]] << 8 | stored[order[1]]), int(stored[order[2]] << 8 | stored[order[3]])
        if raw.size >= 4 and (words[0] % 65535, words[1] % 65535) == found:
            return content
    raise Damaged("the checksum of a chunk is not that of its bytes: damaged, fetch or write it again", piece.offset)


def fletcher32(raw: NDArray[np.uint8]) -> tuple[int, int]:
    """(sum of sums, sum) of the bytes as big-endian 16-bit words, modulo 65535 (`H5_checksum_fletcher32`)."""
    second = first = 0
    for start in range(0, raw.size, 1 << 20):
        part = raw[start : start + (1 << 20)]
        words = (part if part.size % 2 == 0 else np.append(part, np.uint8(0))).view(">u2").astype(np.uint64)
        weights = np.arange(words.size, 0, -1, dtype=np.uint64) % np.uint64(65535)
        second = (second + words.size * first + int((weights * words).sum())) % 65535
        first = (first + int(words.sum())) % 65535
    return second, first


def _unshuffled(raw: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """First bytes of all elements, then second ones, ...: interleaved again; what is left over stays at the end."""
    whole = raw.size // width * width
    out = np.empty(raw.size, np.uint8)
    out[:whole].reshape(-1, width)[...] = raw[:whole].reshape(width, -1).T
    out[whole:] = raw[whole:]
    return out
