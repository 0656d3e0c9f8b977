"""The tree of an HDF5 file, walked: each dataset of numbers an entry, each object once.

Contiguous data and unfiltered chunks of whole rows are extents in place; other chunks go through the codec `hdf5`. Names are
the paths with dots, as `keras_names.py` and `matlab_hdf5.py` refine them. Links to other files, external and virtual data are
named and never followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO
from math import prod
from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.inert import Notes, printable
from diffai_stream.formats.keras_names import keras_name, part_of
from diffai_stream.formats.matlab_hdf5 import MATLAB_ATTRIBUTES, MATLAB_HEAD, matlab_view
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.fill import constant
from diffai_stream.storage.hdf5.chunks import READERS, read_chunks
from diffai_stream.storage.hdf5.datasets import Dataset, is_dataset, read_dataset
from diffai_stream.storage.hdf5.groups import Value, attributes, is_group, links
from diffai_stream.storage.hdf5.objects import Header, read_header
from diffai_stream.storage.hdf5.source import Damaged, Source, Unsupported
from diffai_stream.storage.hdf5.types import ARRAY, BITS, COMPLEX, ENUM, FLOAT, INTEGER, OPAQUE
from diffai_stream.storage.spill import spilled
from diffai_stream.storage.swap import swapped

MAX_PIECES = 4096  # extents of one tensor
MAX_DEPTH = 64
MAX_RATIO = 1032  # elements a byte of file may stand for: no deflate stream does better
SPILLED_NBYTES = 32 << 20  # packed tensors of another order than C are spilled from here on
_DECLARED = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}  # opaque to HDF5, told by Keras
_ATTRIBUTES = ("dtype", *MATLAB_ATTRIBUTES)
_NUMERIC = (INTEGER, FLOAT, ENUM, COMPLEX, OPAQUE, BITS, ARRAY)


class Place(NamedTuple):
    """An HDF5 file: all of `stamp.path`, or the `nbytes` bytes from `start` on of an archive."""

    stamp: FileStamp
    start: int
    nbytes: int


class Found:
    """What a walk has found so far."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.tensors: dict[str, TensorEntry] = {}
        self.aliases: dict[str, str] = {}
        self.errors: list[CheckpointError] = []
        self.notes = Notes(path)

    def fail(self, name: str, error: Exception) -> None:
        """Note that a tensor or group cannot be read."""
        self.errors.append(
            TensorError(str(error), path=self.path, tensor=printable(name), offset=getattr(error, "offset", None))
        )

    def unique(self, name: str, path: str) -> str:
        """The name, or the path from the root on where another tensor has the name already (`a/b` beside `a.b`)."""
        return name if name not in self.tensors and name not in self.aliases else f"/{path}"


def checkpoint_of(found: Found, name: str, stamps: dict[str, FileStamp], metadata: dict[str, str] | None = None) -> Checkpoint:
    """The checkpoint of what was found."""
    return Checkpoint(
        path=found.path,
        format=name,
        tensors=tuple(found.tensors.values()),
        metadata=metadata or {},
        stamps=stamps,
        oddities=found.notes.oddities(),
        errors=tuple(found.errors),
        aliases=found.aliases,
    )


def read_file(file: FileIO, place: Place, found: Found) -> None:
    """Add the datasets of one HDF5 file. Raises FormatError when its root group cannot be read."""
    try:
        source = Source(file.fileno(), place.start, place.nbytes)
        root = read_header(source, source.superblock.root)
        if source.superblock.end > place.nbytes:
            message = f"it should have {source.superblock.end} bytes and has {place.nbytes}: truncated or written in part"
            found.notes.add("truncated", message)
        walk = _Walk(source, place, found)
        walk.group("", root, 0)
        walk.soft_links()
        ordered = sorted(walk.offsets, key=walk.offsets.__getitem__)
        for name in ordered:
            found.tensors[name] = found.tensors.pop(name)
    except (Damaged, Unsupported) as error:
        offset = getattr(error, "offset", None)
        raise FormatError(f"not a readable HDF5 file: {error}", path=found.path, offset=offset) from None


class _Walk:
    """The walk over one file: each object once, by its address."""

    def __init__(self, source: Source, place: Place, found: Found) -> None:
        self.source, self.place, self.found = source, place, found
        self.groups: set[int] = {source.superblock.root}
        self.datasets: dict[int, str] = {}
        self.names: dict[str, str] = {}
        self.soft: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        self.is_matlab = source.superblock.base > 0 and source.cursor(-source.superblock.base, 8).raw == MATLAB_HEAD[:8]

    def group(self, path: str, header: Header, depth: int) -> None:
        for link in sorted(links(header), key=lambda link: link.name):  # large groups keep them by hash
            inner = f"{path}/{link.name}" if path else link.name
            if link.is_soft:
                self.soft[inner] = link.target.strip("/") if link.target.startswith("/") else f"{path}/{link.target}".strip("/")
            elif link.address is None:
                message = f"{inner!r} is a link to {link.target!r}, which is not followed"
                self.found.notes.add("link", message, printable(inner))
            elif not (self.is_matlab and not path and link.name.startswith("#")):  # what cells point at
                self.child(inner, link.address, depth)

    def child(self, path: str, address: int, depth: int) -> None:
        if address in self.groups:
            return
        try:
            if address in self.datasets:
                self.alias(path, address)
                return
            header = read_header(self.source, address)
            if is_dataset(header):
                self.dataset(path, address, header)
            elif is_group(header):
                self.groups.add(address)
                if depth >= MAX_DEPTH:
                    raise Damaged(f"groups nest deeper than {MAX_DEPTH}")
                self.inner_group(path, header, depth)
        except (Damaged, Unsupported) as error:
            self.found.fail(self.name(path), error)

    def inner_group(self, path: str, header: Header, depth: int) -> None:
        if self.is_matlab and "MATLAB_sparse" in attributes(header, MATLAB_ATTRIBUTES):
            raise Unsupported("a sparse matrix; save it full")
        self.group(path, header, depth + 1)

    def name(self, path: str) -> str:
        return printable(keras_name(path))

    def alias(self, path: str, address: int) -> None:
        name = self.found.unique(self.name(path), path)
        if self.datasets[address] and name != self.datasets[address]:
            self.found.aliases[name] = self.datasets[address]

    def dataset(self, path: str, address: int, header: Header) -> None:
        self.datasets[address] = ""
        dataset, values = read_dataset(header), attributes(header, _ATTRIBUTES)
        name = self.found.unique(self.name(path), path)
        encoding = encoding_of(dataset, values)
        if encoding is None:
            self.found.notes.add("not_numeric", f"{name!r} holds {dataset.type.title}, not numbers", name)
            return
        if dataset.nbytes > MAX_RATIO * max(self.place.nbytes, 1 << 20):
            raise Damaged(f"{dataset.nbytes} bytes are declared in a file of {self.place.nbytes}: no file holds that")
        entry = self.entry(name, encoding, dataset, f"{self.place.nbytes}:{address}:{path}")
        if self.is_matlab:
            seen = matlab_view(entry, values)
            if seen is None:
                self.found.notes.add("not_numeric", f"{name!r} is a MATLAB {values.get('MATLAB_class')}, not numbers", name)
                return
            entry = seen
        self.found.tensors[name] = entry._replace(part=part_of(path))
        self.datasets[address] = self.names[path] = name
        self.offsets[name] = address if dataset.place is None else dataset.place

    def soft_links(self) -> None:
        """Links by path to a dataset of this file are other names of it."""
        for path, target in self.soft.items():
            if target in self.names:
                self.found.aliases[self.found.unique(self.name(path), path)] = self.names[target]
            else:
                self.found.notes.add("link", f"{path!r} is a link to {target!r}, which is no dataset here", printable(path))

    def entry(self, name: str, encoding: str, dataset: Dataset, codec: str) -> TensorEntry:
        extents = tuple(self.extents(dataset, f"hdf5:{codec}"))
        if dataset.type.big_endian:
            extents = tuple(swapped(extent, dataset.type.part_nbytes) for extent in extents)
        return TensorEntry(name, dataset.shape, encoding, {"data": Component(extents, encoding, dataset.shape)})

    def extents(self, dataset: Dataset, codec: str) -> Iterator[Extent]:
        """Where the bytes lie, in C order; a single coded extent where that takes decoding."""
        path = self.place.stamp.path
        if dataset.place is not None and dataset.nbytes:
            yield Extent(path, dataset.place, dataset.nbytes)
        elif dataset.chunks is None:
            yield constant(path, dataset.nbytes, dataset.fill)
        elif (rows := self.whole_rows(dataset)) is not None:
            yield from rows
        else:
            packed = Extent(path, self.place.start, dataset.nbytes, codec)
            is_turned = self.is_matlab and len(dataset.shape) > 1 and dataset.nbytes >= SPILLED_NBYTES
            yield spilled(packed) if is_turned else packed

    def whole_rows(self, dataset: Dataset) -> list[Extent] | None:
        """The chunks as extents, where they are stored as they are and each is a run of whole rows."""
        chunks = dataset.chunks
        if chunks is None or dataset.filters or chunks.shape[1:] != dataset.shape[1:] or chunks.kind not in READERS:
            return None
        count = -(-dataset.shape[0] // chunks.shape[0])
        if count > MAX_PIECES:
            return None
        nbytes = prod(chunks.shape) * dataset.type.nbytes
        pieces, path, found = read_chunks(self.source, dataset), self.place.stamp.path, list[Extent]()
        for number in range(count):
            size, piece = min(nbytes, dataset.nbytes - number * nbytes), pieces.get((number, *(0,) * (len(dataset.shape) - 1)))
            if piece is not None and piece.nbytes < size:
                raise Damaged(f"a chunk of {nbytes} bytes is stored in {piece.nbytes}", piece.offset)
            last = found[-1] if found else None
            if piece is None:
                found.append(constant(path, size, dataset.fill))
            elif last is not None and not last.codec and last.offset + last.nbytes == piece.offset:
                found[-1] = last._replace(nbytes=last.nbytes + size)
            else:
                found.append(Extent(path, piece.offset, size))
        return found


def encoding_of(dataset: Dataset, values: dict[str, Value]) -> str | None:
    """The encoding of a dataset's elements, None for what is no number. Raises Unsupported for numbers of an unknown kind."""
    kind, declared = dataset.type, values.get("dtype")
    name = _DECLARED.get(declared) if isinstance(declared, str) else None
    if name is not None and ENCODINGS[name].bits == 8 * kind.nbytes:
        return name
    if kind.encoding in ENCODINGS:
        return kind.encoding
    if kind.kind == OPAQUE:
        raise Unsupported(f"{kind.title} do not say which numbers they are; an attribute dtype, such as bfloat16, would")
    if kind.kind in _NUMERIC:
        raise Unsupported(f"{kind.title} have no encoding here")
    return None
