"""MATLAB files (`.mat`) of levels 4 and 5; version 7.3 is HDF5 (`hdf5.py`).

Numbers that are stored as they are, are mapped; those of a compressed variable are streamed when they are a line and spilled
to a temporary file when they are columns of a matrix. Structs and cells are walked, with dots and numbers in the names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats import matlab_level4, matlab_level5
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, element_count, open_regular, printable, read_exactly
from diffai_stream.formats.matlab_hdf5 import columns_first
from diffai_stream.formats.matlab_level5 import COMPRESSED, MATRIX, Array, Elements
from diffai_stream.formats.matlab_stream import Inflated, Stored
from diffai_stream.storage.extent import FileStamp
from diffai_stream.storage.planar import planar
from diffai_stream.storage.swap import swapped

_HEAD_NBYTES = 128
_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
_Found = tuple[Array, Stored | Inflated, str]


def probe(path: str, head: bytes) -> bool:
    """Whether the version and byte order of level 5 stand in place, or a variable of level 4 at the start."""
    if head[124:128] in _ORDERS:
        return True
    return matlab_level4.header_of(head) is not None and matlab_level4.looks_like_it(head, os.path.getsize(path))


def index(path: str) -> Checkpoint:
    """The numeric arrays in file order. Raises FormatError when it is no such file; what cannot be read is an error by name."""
    notes, errors = Notes(path), list[CheckpointError]()
    with open_regular(path) as (file, stamp), collection_paused():
        head = read_exactly(file, 0, min(_HEAD_NBYTES, stamp.nbytes), path)
        order = _ORDERS.get(head[124:128])
        if order is None and not matlab_level4.looks_like_it(head, stamp.nbytes):
            raise FormatError("neither a MATLAB file of level 5 nor of level 4", path=path, offset=0)
        found = _level5(file, stamp, order, errors) if order else _level4(file, stamp, errors)
        tensors = _entries(found, path, notes, errors)
    return Checkpoint(
        path=path,
        format="matlab",
        tensors=tuple(tensors.values()),
        metadata={},
        stamps={stamp.path: stamp},
        oddities=notes.oddities(),
        errors=tuple(errors),
    )


def _level4(file: FileIO, stamp: FileStamp, errors: list[CheckpointError]) -> Iterator[_Found]:
    stream = Stored(file.fileno(), stamp.path, 0, stamp.nbytes)
    try:
        for array, order in matlab_level4.arrays(stream):
            yield array, stream, order
    except ValueError as error:
        errors.append(FormatError(str(error), path=stamp.path, offset=stream.place))


def _level5(file: FileIO, stamp: FileStamp, order: str, errors: list[CheckpointError]) -> Iterator[_Found]:
    """The arrays of all variables; one that cannot be followed is an error, the next begins where its tag says."""
    place = _HEAD_NBYTES
    while place < stamp.nbytes:
        try:
            tag = Elements(Stored(file.fileno(), stamp.path, place, stamp.nbytes - place), order).tag()
            if place + 8 + tag.nbytes > stamp.nbytes:
                raise ValueError(f"{tag.nbytes} bytes reach beyond the end at {stamp.nbytes}: truncated")
        except ValueError as error:
            errors.append(FormatError(f"a variable cannot be read: {error}", path=stamp.path, offset=place))
            return
        try:
            if tag.kind == COMPRESSED:
                yield from _inflated(file, stamp, place + 8, tag.nbytes, order)
            elif tag.kind == MATRIX:
                inner = Elements(Stored(file.fileno(), stamp.path, place + 8, tag.nbytes), order)
                for array in matlab_level5.arrays(inner, tag.nbytes):
                    yield array, inner.stream, order
        except ValueError as error:
            errors.append(FormatError(f"a variable cannot be read: {error}", path=stamp.path, offset=place))
        place += 8 + tag.nbytes + (0 if tag.kind == COMPRESSED else -tag.nbytes % 8)


def _inflated(file: FileIO, stamp: FileStamp, place: int, nbytes: int, order: str) -> Iterator[_Found]:
    stream = Inflated(file.fileno(), stamp.path, place, nbytes)
    elements = Elements(stream, order)
    tag = elements.tag()
    if tag.kind != MATRIX:
        raise ValueError(f"its stream holds an element of type {tag.kind}, no matrix")
    stream.bound(8 + tag.nbytes)
    for array in matlab_level5.arrays(elements, tag.nbytes):
        yield array, stream, order


def _entries(found: Iterator[_Found], path: str, notes: Notes, errors: list[CheckpointError]) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for array, stream, order in found:
        name = printable(array.name)
        if array.problem and not array.is_number:
            notes.add("not_numeric", f"{name!r} is {array.problem}, not numbers", name)
        elif array.problem:
            errors.append(TensorError(f"{array.problem}: not read", path=path, tensor=name))
        elif name in tensors:
            errors.append(TensorError("the name occurs twice, the first counts", path=path, tensor=name))
        else:
            tensors[name] = _entry(array._replace(name=name), stream, order)
    return tensors


def _entry(array: Array, stream: Stored | Inflated, order: str) -> TensorEntry:
    row = ENCODINGS[array.encoding]
    nbytes = row.nbytes(element_count(array.shape))
    is_line = sum(size > 1 for size in array.shape) <= 1
    if row.components == 2:
        below = stream.extent(array.place, array.distance + nbytes // 2, False)
        extent = planar(swapped(below, row.itemsize) if order == ">" else below, row.itemsize, array.distance, nbytes)
    else:
        extent = stream.extent(array.place, nbytes, is_line and order == "<")
        extent = swapped(extent, row.itemsize) if order == ">" else extent
    shape = array.shape[::-1]  # as C order sees what lies columns first
    return columns_first(TensorEntry(array.name, shape, array.encoding, {"data": Component((extent,), array.encoding, shape)}))
