"""Arrays of a pickle as entries: plain ones where their bytes lie, structured ones field by field."""

from __future__ import annotations

from typing import Any

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.numpy_files import ENCODINGS_OF
from diffai_stream.formats.pickled.arrays import Array, Dtype
from diffai_stream.formats.pickled.entries import Place, contiguous_strides, extent_of
from diffai_stream.formats.pickled.values import Blob
from diffai_stream.storage.swap import swapped

Strides = tuple[int, ...]


def array_entries(name: str, array: Array, place: Place, part: str = "weights") -> list[TensorEntry]:
    """The entries of an array, whose bytes are counted from the start of `place`; one for each field of a structured one.

    Raises ValueError that says why there is none.
    """
    shape, dtype = array.shape, array.dtype
    if not isinstance(shape, tuple) or not isinstance(dtype, Dtype):
        raise ValueError("an array without a shape or a dtype that can be told")
    if dtype.code.startswith("O"):
        raise ValueError("an array of Python objects, which are never loaded")
    if not isinstance(array.data, Blob):
        raise ValueError("an array without data")
    if array.data.offset < 0:
        raise ValueError("its bytes were written as text (protocol 2 or older); save it again with a newer protocol")
    if array.data.nbytes != element_count(shape) * dtype.itemsize:
        raise ValueError(f"{dtype.text[:20]} of shape {str(shape)[:60]} does not take {array.data.nbytes} bytes")
    if dtype.fields:
        return [_field(name, array, field, place, part) for field in dtype.fields]
    strides = _fortran(shape) if array.fortran and len(shape) > 1 else None
    return [_entry(name, shape, dtype, strides, (array.data.offset, array.data.nbytes), place, part)]


def _field(name: str, array: Array, field: Any, place: Place, part: str) -> TensorEntry:
    """One field of a structured array: a strided view of all its records."""
    record, item = array.dtype.itemsize, field.dtype.itemsize
    if not item or record % item or field.dtype.fields or not 0 <= field.offset <= record - item:
        raise ValueError(f"its field {field.name[:40]!r} does not lie at regular steps of its own size")
    steps = _fortran(array.shape) if array.fortran else contiguous_strides(array.shape)
    strides = tuple(step * (record // item) for step in steps)
    numel = element_count(array.shape)
    nbytes = (numel - 1) * record + item if numel else 0
    where = array.data.offset + field.offset, nbytes
    return _entry(f"{name}.{field.name}", array.shape, field.dtype, strides, where, place, part)


def _entry(
    name: str, shape: Any, dtype: Dtype, strides: Strides | None, where: tuple[int, int], place: Place, part: str
) -> TensorEntry:
    encoding = ENCODINGS_OF.get(dtype.code)
    if encoding is None:
        raise ValueError(f"numpy dtype {dtype.text[:20]!r} has no encoding here")
    is_swapped = dtype.order == ">"
    extent = extent_of(place, *where, in_order=strides is None and not is_swapped)
    if is_swapped:
        extent = swapped(extent, ENCODINGS[encoding].itemsize)
    return TensorEntry(name, shape, encoding, {"data": Component((extent,), encoding, shape, strides)}, part=part)


def _fortran(shape: tuple[int, ...]) -> Strides:
    return tuple(element_count(shape[:axis]) for axis in range(len(shape)))
