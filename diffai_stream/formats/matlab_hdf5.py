"""What MATLAB 7.3 files write beside their HDF5 datasets, and how they lie: columns first, so shapes are reversed."""

from __future__ import annotations

from collections.abc import Mapping

from diffai_stream.formats.base import TensorEntry
from diffai_stream.storage.hdf5.groups import Value

MATLAB_HEAD = b"MATLAB 7.3 MAT-file"
MATLAB_ATTRIBUTES = ("MATLAB_class", "MATLAB_empty", "MATLAB_sparse")
_NOT_NUMBERS = ("char", "cell", "struct", "function_handle", "FileWrapper__", "canonical empty")


def matlab_view(entry: TensorEntry, values: Mapping[str, Value]) -> TensorEntry | None:
    """The entry in MATLAB's order of axes, None when it holds no numbers (text, cells, arrays of structs, an empty array)."""
    if values.get("MATLAB_class") in _NOT_NUMBERS or values.get("MATLAB_empty") or not values.get("MATLAB_class"):
        return None
    encoding = "BOOL" if values["MATLAB_class"] == "logical" and entry.encoding == "U8" else entry.encoding
    return columns_first(entry._replace(encoding=encoding))


def columns_first(entry: TensorEntry) -> TensorEntry:
    """An entry stored in C order of the reversed shape, as the array of that reversed shape."""
    shape = entry.shape[::-1]
    strides, step = [], 1
    for size in shape:
        strides.append(step)
        step *= size
    needed = tuple(strides) if sum(size > 1 for size in shape) > 1 else None
    component = entry.components["data"]._replace(dtype=entry.encoding, shape=shape, strides=needed)
    return entry._replace(shape=shape, components={"data": component})
