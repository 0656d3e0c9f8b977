"""Bytes of chunked zarr arrays: codec `zarr:<version>`, the extent's path that of the metadata; `ocdbt:<version>:<prefix>` in
a database, the path that of its manifest.

Chunks and the chunks of shards are unpacked one by one, in any thread; codecs on the list of the library go through zarr.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import MissingExtraError, TensorError
from diffai_stream.storage.bands import Grid, Ranges, overlap, places, read_range
from diffai_stream.storage.extent import Extent, FileStamp, stamp_of
from diffai_stream.storage.zarr.metadata import MAX_METADATA_NBYTES, Shards, ZarrArray, ZarrError, parse_array
from diffai_stream.storage.zarr.stores import Database, Files, Store
from diffai_stream.storage.zarr.unpack import MISSING, checked, unpacked

MAX_CHUNK_NBYTES = 3 << 30
MAX_INDEX_NBYTES = 1 << 26  # four million chunks in one shard
_ABSENT = 2**64 - 1


class Opened(NamedTuple):
    """An array and where its chunks lie."""

    array: ZarrArray
    store: Store
    folder: str

    def box(self, ranges: Ranges) -> NDArray:
        """A box of the array from the chunks it touches. Raises ZarrError, ImportError."""
        array = self.array
        if array.by_library:
            return _by_library(self.folder, array, ranges)
        dtype = np.dtype(f"V{array.itemsize}")
        out = np.empty([last - first for first, last in ranges], dtype)
        for place in places(ranges, array.chunk):
            inside, outside = overlap(place, array.chunk, ranges)
            raw = self.chunk(place)
            if raw is None:
                if array.fill is None:
                    raise ZarrError("a chunk was never written, and its fill value cannot be told")
                out[outside] = np.frombuffer(array.fill, dtype)
            else:
                out[outside] = _arranged(np.frombuffer(raw, dtype), array)[inside]
        return out

    def chunk(self, place: tuple[int, ...]) -> bytes | None:
        """The unpacked bytes of a chunk, None when it was never written."""
        array = self.array
        if array.chunk_nbytes > MAX_CHUNK_NBYTES:
            raise ZarrError(f"one chunk takes {array.chunk_nbytes} bytes, at most {MAX_CHUNK_NBYTES} are unpacked at once")
        if array.shards is None:
            raw = self.store.read(array.key(place), _packed_limit(array.chunk_nbytes))
        else:
            raw = self._of_shard(place)
        try:
            return None if raw is None else unpacked(raw, array.codecs, array.chunk_nbytes)
        except ZarrError as error:
            raise ZarrError(f"the chunk at {list(place)}: {error}") from None

    def _of_shard(self, place: tuple[int, ...]) -> bytes | None:
        """The packed bytes of one chunk of a shard, by the index of the shard."""
        array, shards = self.array, self.array.shards
        assert shards is not None
        counts = [size // step for size, step in zip(shards.shape, array.chunk, strict=True)]
        key = array.key(tuple(at // count for at, count in zip(place, counts, strict=True)))
        index_nbytes = 16 * prod(counts) + shards.checksum_nbytes
        inner = tuple(at % count for at, count in zip(place, counts, strict=True))
        number = int(np.ravel_multi_index(inner, counts)) if counts else 0
        index = _indexes.of(self.store, key, index_nbytes, shards)
        if index is None:
            return None
        entry = index[16 * number : 16 * number + 16]
        offset, nbytes = (int.from_bytes(entry[at : at + 8], "little") for at in (0, 8))
        if (offset, nbytes) == (_ABSENT, _ABSENT):
            return None
        if nbytes > _packed_limit(array.chunk_nbytes) or offset > 1 << 62:
            raise ZarrError(f"the shard {key} has a chunk of {nbytes} bytes at {offset}")
        raw = self.store.part(key, offset, nbytes)
        if raw is None or len(raw) != nbytes:
            raise ZarrError(f"the shard {key} ends before its chunk at {offset}")
        return raw


class _Indexes:
    """The index of the shard that this thread read last, checked: its chunks are asked for one after the other."""

    def __init__(self) -> None:
        self._local = threading.local()

    def of(self, store: Store, key: str, nbytes: int, shards: Shards) -> bytes | None:
        """The entries of a shard, None when it was never written. Raises ZarrError."""
        held = getattr(self._local, "held", None)
        if held is None or held[0] is not store or held[1] != key:
            held = self._local.held = (store, key, _index_of(store, key, nbytes, shards))
        return held[2]


_indexes = _Indexes()


def _index_of(store: Store, key: str, nbytes: int, shards: Shards) -> bytes | None:
    if nbytes > MAX_INDEX_NBYTES:
        raise ZarrError(f"the index of the shard {key} would take {nbytes} bytes, at most {MAX_INDEX_NBYTES} are read")
    index = store.part(key, -nbytes if shards.at_end else 0, nbytes)
    if index is not None and len(index) != nbytes:
        raise ZarrError(f"the shard {key} is shorter than its index")
    return checked(index, f"the index of the shard {key}") if index is not None and shards.checksum_nbytes else index


def _packed_limit(nbytes: int) -> int:
    return nbytes + (nbytes >> 2) + 4096


def _arranged(items: NDArray, array: ZarrArray) -> NDArray:
    """The elements of a chunk in the order of the array's axes."""
    stored = items.reshape([array.chunk[axis] for axis in array.axes])
    return stored.transpose(np.argsort(array.axes)) if array.axes else stored


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the array in C order, in the byte order it is stored in. Raises TensorError."""
    try:
        opened = _open(extent, stamp_of(extent))
        grid = Grid(opened.array.shape, opened.array.chunk, opened.array.itemsize)
        return read_range(grid, (extent, stamp_of(extent)), extent, start, stop, opened.box)
    except ZarrError as error:
        raise TensorError(str(error), path=extent.path) from error
    except ImportError as error:
        raise MissingExtraError(f"its compression needs {error.name}: {MISSING}", path=extent.path) from error


@lru_cache(maxsize=256)
def _open(extent: Extent, stamp: FileStamp) -> Opened:
    word, version, *prefix = extent.codec.split(":", 2)
    folder = os.path.dirname(extent.path)
    store: Store = Files(folder) if word == "zarr" else Database(folder, prefix[0])
    raw = store.read(metadata_name(int(version)), MAX_METADATA_NBYTES)
    if raw is None:
        raise ZarrError("its metadata is gone")
    return Opened(parse_array(raw, int(version)), store, folder)


def metadata_name(version: int) -> str:
    """The key of an array's metadata."""
    return ".zarray" if version == 2 else "zarr.json"


def _by_library(folder: str, array: ZarrArray, ranges: Ranges) -> NDArray:
    """A box through zarr, whose codecs were checked against a list when the metadata was read."""
    import zarr

    try:
        found = zarr.open_array(folder, mode="r", zarr_format=2 if array.version == 2 else 3)
        values = np.asarray(found[tuple(slice(first, last) for first, last in ranges)])
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, MemoryError) as error:
        raise ZarrError(f"zarr cannot read it: {' '.join(str(error).split())[:200]}") from None
    if values.dtype.itemsize != array.itemsize:
        raise ZarrError(f"zarr reads it as {values.dtype}")
    if array.big_endian:
        values = values.astype(values.dtype.newbyteorder(">"))
    return np.ascontiguousarray(values).view(f"V{array.itemsize}").reshape([last - first for first, last in ranges])
