"""A directory of zarr arrays, walked: each array an entry by its path with dots.

Chunks that are stored as they are and are runs of whole rows are extents in their files; a chunk that was never written is its
fill value. Other arrays go through the codec `zarr`. Group metadata is not needed, so trees without it (Orbax) are read too.
"""

from __future__ import annotations

import json
import os
import stat
from math import prod

from diffai_stream.errors import CheckpointError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.inert import Notes, printable
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.fill import constant
from diffai_stream.storage.swap import swapped
from diffai_stream.storage.zarr.metadata import MAX_METADATA_NBYTES, ZarrArray, ZarrError, parse_array
from diffai_stream.storage.zarr.reader import metadata_name
from diffai_stream.storage.zarr.stores import Files

MAX_PIECES = 4096
MAX_DEPTH = 64
MAX_DIRECTORIES = 1 << 20
SPARSE_NBYTES = 1 << 36  # arrays of fill values alone may claim so much
_MAX_RATIO = 1 << 20  # zeros in Zstandard
_MAX_COUNTED = 1 << 16


class Tree:
    """The arrays below a directory."""

    def __init__(self, path: str) -> None:
        self.path, self.notes = path, Notes(path)
        self.tensors: dict[str, TensorEntry] = {}
        self.errors: list[CheckpointError] = []
        self.stamps: dict[str, FileStamp] = {}
        self._seen: set[str] = set()

    def walk(self, folder: str, name: str = "", depth: int = 0) -> None:
        """Add the arrays in a directory; what is an array is not looked into."""
        real = os.path.realpath(folder)
        if real in self._seen or len(self._seen) > MAX_DIRECTORIES or depth > MAX_DEPTH:
            self.notes.add("not_walked", f"{folder!r} is met again, or lies too deep: it is not looked into")
            return
        self._seen.add(real)
        try:
            if (version := array_version(real)) is not None:
                self._add(real, name, version)
                return
            for item in sorted(os.scandir(real), key=lambda item: item.name):
                if item.is_dir() and not item.name.startswith("."):
                    self.walk(item.path, f"{name}.{item.name}" if name else item.name, depth + 1)
        except (ZarrError, OSError) as error:
            message = str(error) if isinstance(error, ZarrError) else f"cannot read it: {error.strerror}"
            self.errors.append(TensorError(message, path=folder, tensor=printable(name) or None))

    def _add(self, folder: str, name: str, version: int) -> None:
        name = printable(name or os.path.basename(folder).removesuffix(".zarr"))
        path = os.path.join(folder, metadata_name(version))
        array = parse_array(Files(folder).read(metadata_name(version), MAX_METADATA_NBYTES) or b"", version)
        if name in self.tensors:
            raise ZarrError("the name occurs twice")
        stamp = FileStamp.of(path)
        self.stamps[path] = stamp._replace(inode=(0, 0))  # its chunks may differ where this file is a hard link of another
        if plain := self._plain(array, folder, path):
            self.tensors[name] = entry_of(array, name, plain, _strides(array))
        else:
            check_claim(array, folder)
            self.tensors[name] = entry_of(array, name, (Extent(path, 0, array.nbytes, f"zarr:{version}"),))

    def _plain(self, array: ZarrArray, folder: str, path: str) -> tuple[Extent, ...]:
        """The chunks as extents where each is a run of whole rows as it is, else nothing."""
        one = all(size <= step for size, step in zip(array.shape, array.chunk, strict=True))
        rows = array.chunk[1:] == array.shape[1:] and array.axes == tuple(range(len(array.shape)))
        exact = array.chunk == array.shape
        count = -(-array.shape[0] // array.chunk[0]) if array.shape else 1
        if array.codecs or array.shards or array.fill is None or not (rows or (one and exact)) or not 0 < count <= MAX_PIECES:
            return ()
        extents = []
        for number in range(count):
            key = array.key((number, *(0,) * (len(array.shape) - 1)) if array.shape else ())
            nbytes = min(array.chunk_nbytes, array.nbytes - number * array.chunk_nbytes)
            extents.append(self._chunk(os.path.join(folder, key), nbytes, array, path))
        return tuple(extents)

    def _chunk(self, path: str, nbytes: int, array: ZarrArray, metadata: str) -> Extent:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return constant(metadata, nbytes, array.fill or b"\0")
        if not stat.S_ISREG(status.st_mode) or status.st_size != array.chunk_nbytes:
            raise ZarrError(f"{os.path.basename(path)} has {status.st_size} bytes, a chunk takes {array.chunk_nbytes}")
        real = os.path.realpath(path)
        self.stamps[real] = FileStamp(real, status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino))
        return Extent(real, 0, nbytes)

    def checkpoint(self, name: str, metadata: dict[str, str] | None = None) -> Checkpoint:
        """The checkpoint of what was found."""
        return Checkpoint(
            path=self.path,
            format=name,
            tensors=tuple(self.tensors.values()),
            metadata=metadata or {},
            stamps=self.stamps,
            oddities=self.notes.oddities(),
            errors=tuple(self.errors),
            container="directory",
        )


def array_version(folder: str) -> int | None:
    """The zarr version of the array that a directory is, None when it is none. Raises ZarrError for damaged metadata."""
    if os.path.lexists(os.path.join(folder, ".zarray")):
        return 2
    raw = Files(folder).read("zarr.json", MAX_METADATA_NBYTES)
    if raw is None:
        return None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise ZarrError("its zarr.json is not JSON") from None
    return 3 if isinstance(found, dict) and found.get("node_type") == "array" else None


def part_of(name: str) -> str:
    """Whether a tensor is a weight or state of the optimizer, by the first part of its name."""
    return "optimizer" if name.partition(".")[0] in ("opt_state", "optimizer", "optimizer_state", "opt_states") else "weights"


def check_claim(array: ZarrArray, folder: str) -> None:
    """Raise ZarrError when an array claims more than the files below a directory can hold."""
    if array.nbytes > SPARSE_NBYTES and array.nbytes > _MAX_RATIO * _stored_nbytes(folder):
        raise ZarrError(f"{array.nbytes} bytes are declared, which its files cannot hold")


def _stored_nbytes(folder: str) -> int:
    """Bytes of the first files below a directory."""
    total, left = 0, _MAX_COUNTED
    for place, _, names in os.walk(folder):
        for name in names[:left]:
            total += os.stat(os.path.join(place, name)).st_size
        left -= len(names)
        if left <= 0:
            break
    return total


def _strides(array: ZarrArray) -> tuple[int, ...] | None:
    """The strides of a single chunk whose axes are stored in another order."""
    if array.axes == tuple(range(len(array.shape))):
        return None
    stored = [array.shape[axis] for axis in array.axes]
    return tuple(prod(stored[array.axes.index(axis) + 1 :]) for axis in range(len(array.shape)))


def entry_of(array: ZarrArray, name: str, extents: tuple[Extent, ...], strides: tuple[int, ...] | None = None) -> TensorEntry:
    """The entry of an array whose bytes lie in these extents."""
    part = array.itemsize // (2 if array.encoding in ("C64", "C128") else 1)
    if array.big_endian:
        extents = tuple(swapped(extent, part) for extent in extents)
    component = Component(extents, array.encoding, array.shape, strides)
    return TensorEntry(name, array.shape, array.encoding, {"data": component}, part=part_of(name))
