"""TensorFlow checkpoints: `PREFIX.index`, a table of entries by name, and `PREFIX.data-00000-of-00001`, the bytes.

Messages are those of tensor_bundle.proto. A name that ends in `/.ATTRIBUTES/VARIABLE_VALUE` is the path to a variable from
the object that was saved; single numbers of the optimizer and of counters are hyperparameters. A partitioned tensor has no
bytes of its own: each slice has an entry, under a key that is made of the name and the place of the slice.
"""

from __future__ import annotations

import re
from io import FileIO
from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.inert import Notes, element_count, open_regular, printable
from diffai_stream.formats.leveldb_table import Item, Table
from diffai_stream.formats.ordered_code import slice_key
from diffai_stream.formats.small_constants import Scalar, small_constant
from diffai_stream.formats.tensorflow_tensors import NOT_NUMBERS, encoding_of, plain_kind, read_shape
from diffai_stream.formats.wire import BYTES, VARINT, Wire, signed
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.swap import swapped

_SHARDS, _ENDIANNESS = 1, 2
_DTYPE, _SHAPE, _SHARD, _OFFSET, _SIZE, _SLICES = 1, 2, 3, 4, 5, 7
_EXTENT, _START, _LENGTH = 1, 1, 2
_MAX_SHARDS = 100_000
_OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"
_OPTIMIZER = re.compile(
    r".*/\.OPTIMIZER_SLOT/.*|_?optimizer/.*|.*/(?:Adam|Adam_1|Momentum|RMSProp|RMSProp_1|Adagrad|Ftrl|Ftrl_1)"
)
_COUNTERS = re.compile(r"_?optimizer/.*|keras_api/metrics/.*|save_counter|global_step|beta[12]_power")


class _Entry(NamedTuple):
    """A `BundleEntryProto`; `slices` are the (start, length) of each axis of each slice, a length of -1 is the whole axis."""

    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    slices: tuple[tuple[tuple[int, int], ...], ...]


class Bundle:
    """One checkpoint: `read` fills tensors, scalars, errors and notes from its index."""

    def __init__(self, prefix: str, shown_path: str) -> None:
        self.prefix = prefix
        self.index_path = f"{prefix}.index"
        self.notes = Notes(shown_path)
        self.tensors: list[TensorEntry] = []
        self.scalars: dict[str, Scalar] = {}
        self.errors: list[CheckpointError] = []
        self.stamps: dict[str, FileStamp] = {}
        self._shards: dict[int, FileStamp | FormatError] = {}
        self._count, self._is_big_endian = 1, False

    def read(self) -> None:
        """Index the checkpoint. Raises FormatError when its index cannot be read from the start."""
        with open_regular(self.index_path) as (file, stamp):
            self.stamps[stamp.path] = stamp
            wire = Wire(file, stamp.nbytes, self.index_path)
            items = self._items(file, stamp.nbytes)
            if b"" not in items:
                raise next(iter(self.errors), FormatError("the index of a checkpoint without a header", path=self.index_path))
            self._read_header(wire, items.pop(b""))
            entries = self._entries(wire, items)
            self.errors += wire.damage()
        used = {slice_key(key, one) for key, entry in entries.items() for one in entry.slices}
        for key, entry in entries.items():
            if key not in used:
                self._take(key, entry, entries)
        self.tensors.sort(key=_place_of)

    def _items(self, file: FileIO, nbytes: int) -> dict[bytes, Item]:
        """The items of the table by key, as far as it is readable."""
        items = {}
        try:
            for item in Table(file, nbytes, self.index_path).items():
                items[item.key] = item
        except FormatError as error:
            self.errors.append(error)
        return items

    def _read_header(self, wire: Wire, item: Item) -> None:
        fields = wire.last(item.offset, item.offset + item.nbytes)
        if _SHARDS in fields:
            self._count = fields[_SHARDS][3]
        self._is_big_endian = _ENDIANNESS in fields and fields[_ENDIANNESS][3] == 1
        if not 0 < self._count <= _MAX_SHARDS:
            raise FormatError(f"{self._count} data files are not plausible", path=self.index_path, offset=item.offset)

    def _entries(self, wire: Wire, items: dict[bytes, Item]) -> dict[bytes, _Entry]:
        entries = {}
        for key, item in items.items():
            if key == _OBJECT_GRAPH:
                continue
            try:
                entries[key] = _read_entry(wire, item)
            except ValueError as error:
                self._fail(_name(key), str(error), item.offset)
        return entries

    def _take(self, key: bytes, entry: _Entry, entries: dict[bytes, _Entry]) -> None:
        """Keep a tensor, whole or in slices."""
        name = _name(key)
        if entry.kind in NOT_NUMBERS:
            what = NOT_NUMBERS[entry.kind]
            self.notes.add("text_tensor", f"{name!r} holds {what}, which is not compared", name)
            return
        try:
            if entry.slices:
                self._join(name, key, entry, entries)
            else:
                self._add(name, entry, (self._extent(entry),))
        except ValueError as error:
            self._fail(name, str(error), None)
        except CheckpointError as error:
            self.errors.append(type(error)(error.message, path=error.path, tensor=name, offset=error.offset))

    def _add(self, name: str, entry: _Entry, extents: tuple[Extent, ...]) -> None:
        encoding = encoding_of(entry.kind)
        component = Component(extents, encoding, entry.shape)
        if not entry.shape and _COUNTERS.fullmatch(name):
            self.scalars[name.replace("/", ".")] = self._scalar(component)
            return
        part = "optimizer" if _OPTIMIZER.fullmatch(name) else "weights"
        self.tensors.append(TensorEntry(name, entry.shape, encoding, {"data": component}, part=part))

    def _scalar(self, component: Component) -> Scalar:
        with open_regular(component.extents[0].path) as (file, stamp):
            value = small_constant(Wire(file, stamp.nbytes, stamp.path), component)
        return value if value is not None else component.dtype

    def _extent(self, entry: _Entry) -> Extent:
        """Where the bytes of an entry lie. Raises ValueError or FormatError when they cannot be there."""
        row = ENCODINGS[encoding_of(entry.kind)]
        nbytes = row.nbytes(element_count(entry.shape))
        if entry.size != nbytes:
            raise ValueError(f"its type and shape take {nbytes} bytes, its entry has {entry.size}")
        stamp = self._shard(entry.shard)
        if not 0 <= entry.offset <= stamp.nbytes - nbytes:
            raise ValueError(f"it ends at byte {entry.offset + nbytes} of a file that has {stamp.nbytes}: truncated?")
        extent = Extent(stamp.path, entry.offset, nbytes)
        return swapped(extent, row.itemsize) if self._is_big_endian else extent

    def _shard(self, number: int) -> FileStamp:
        """The stamp of a data file. Raises FormatError when it cannot be opened."""
        if number not in self._shards:
            self._shards[number] = self._open(number)
        found = self._shards[number]
        if isinstance(found, FormatError):
            raise found
        return found

    def _open(self, number: int) -> FileStamp | FormatError:
        if not 0 <= number < self._count:
            return FormatError(f"data file {number} of {self._count} cannot be", path=self.index_path)
        try:
            with open_regular(f"{self.prefix}.data-{number:05}-of-{self._count:05}") as (_, stamp):
                self.stamps[stamp.path] = stamp
                return stamp
        except FormatError as error:
            return error

    def _join(self, name: str, key: bytes, entry: _Entry, entries: dict[bytes, _Entry]) -> None:
        """A partitioned tensor: one tensor where the slices are cut along the first axis, else each slice by itself."""
        parts = []
        for places in entry.slices:
            part = entries.get(slice_key(key, places))
            if part is None or part.slices:
                raise ValueError(f"its slice {_shown(places)} has no entry of its own")
            ends = _ends(places, entry.shape)
            if part.shape != tuple(stop - start for start, stop in ends) or part.kind != entry.kind:
                raise ValueError(f"its slice {_shown(places)} is of another shape or type")
            parts.append((ends, part))
        parts.sort(key=lambda one: one[0])
        if any(end != (0, size) for ends, _ in parts for end, size in zip(ends[1:], entry.shape[1:], strict=True)):
            self.notes.add("sliced_tensor", f"{name!r} is cut across its rows: its {len(parts)} slices are compared each", name)
            for ends, part in parts:
                self._add(f"{name}[{', '.join(f'{a}:{b}' for a, b in ends)}]", part, (self._extent(part),))
            return
        starts = [ends[0][0] for ends, _ in parts]
        stops = [ends[0][1] for ends, _ in parts]
        if starts != [0, *stops[:-1]] or stops[-1] != entry.shape[0]:
            raise ValueError(f"its {len(parts)} slices do not cover it once")
        self._add(name, entry, tuple(self._extent(part) for _, part in parts))

    def _fail(self, name: str, message: str, offset: int | None) -> None:
        self.errors.append(TensorError(message, path=self.index_path, tensor=name, offset=offset))


def _read_entry(wire: Wire, item: Item) -> _Entry:
    numbers, shape, slices = dict[int, int](), tuple[int, ...](), []
    for number, form, at, value in wire.fields(item.offset, item.offset + item.nbytes):
        if form == VARINT:
            numbers[number] = signed(value)
        elif form == BYTES and number == _SHAPE:
            shape = read_shape(wire, at, at + value)
        elif form == BYTES and number == _SLICES:
            slices.append(_read_slice(wire, at, at + value))
    kind = plain_kind(numbers.get(_DTYPE, 0))
    shard, offset, size = (numbers.get(number, 0) for number in (_SHARD, _OFFSET, _SIZE))
    return _Entry(kind, shape, shard, offset, size, tuple(slices))


def _read_slice(wire: Wire, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """(start, length) of each axis of a `TensorSliceProto`; without a length the axis is taken whole."""
    found = list[tuple[int, int]]()
    for number, form, at, value in wire.fields(start, stop):
        if number == _EXTENT and form == BYTES and len(found) <= 64:
            fields = wire.last(at, at + value)
            first = signed(fields[_START][3]) if _START in fields else 0
            found.append((first, signed(fields[_LENGTH][3]) if _LENGTH in fields else -1))
    return tuple(found)


def _ends(places: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(start, stop) of each axis of a slice. Raises ValueError for one that lies outside."""
    if len(places) != len(shape) or not shape:
        raise ValueError(f"its slice {_shown(places)} has not as many axes as it has itself")
    ends = tuple(
        (0, size) if length < 0 else (start, start + length) for (start, length), size in zip(places, shape, strict=True)
    )
    if any(not 0 <= start <= stop <= size for (start, stop), size in zip(ends, shape, strict=True)):
        raise ValueError(f"its slice {_shown(places)} lies outside of it")
    return ends


def _shown(places: tuple[tuple[int, int], ...]) -> str:
    return ":".join("-" if length < 0 else f"{start},{length}" for start, length in places[:8])


def _name(key: bytes) -> str:
    return printable(key.decode("utf-8", "backslashreplace")).removesuffix(_VARIABLE)


def _place_of(entry: TensorEntry) -> tuple[str, int]:
    extent = entry.components["data"].extents[0]
    return extent.path, extent.offset
