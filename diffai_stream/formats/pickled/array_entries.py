"""Arrays of a pickle as entries, read where their bytes lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffai_stream.formats import npy
from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.pickled.arrays import Dtype
from diffai_stream.formats.pickled.values import Blob
from diffai_stream.storage.extent import Extent

LocateBytes = Callable[[int, int], Extent]
"""The extent of `nbytes` bytes from an offset in the pickle on."""


def array_entries(name: str, array: Any, locate: LocateBytes, part: str = "weights") -> list[TensorEntry]:
    """The entries of an array, one for each field of a structured one. Raises ValueError that says why there is none."""
    shape, dtype, data = array.shape, array.dtype, array.data
    if not isinstance(shape, tuple) or not isinstance(dtype, Dtype) or not isinstance(data, Blob):
        raise ValueError("an array whose shape, dtype or data cannot be told")
    if data.offset < 0:
        raise ValueError("its bytes were written as text (protocol 2 or older); save it again with a newer protocol")
    fields = tuple(npy.Field(field.name, field.dtype.text, field.offset) for field in dtype.fields)
    header = npy.Header(f"|V{dtype.itemsize}" if fields else dtype.text, array.fortran, shape, 0, fields)
    needed = header.itemsize * element_count(shape)
    if data.nbytes != needed:
        raise ValueError(f"{dtype.text[:20]} of shape {str(shape)[:60]} takes {needed} bytes, not {data.nbytes}")
    return npy.array_entries(name, header, lambda first, nbytes: locate(data.offset + first, nbytes), part)
