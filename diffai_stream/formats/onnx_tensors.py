"""ONNX tensors: a `TensorProto` message as an array in place.

Numbers of fields and types: onnx.proto. Bytes lie in `raw_data`, in a file beside the model, or in the field of their
type; floats and doubles are there as they are in memory, integers and all smaller floats as varints, which are decoded
when they are read (`wire_values.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component
from diffai_stream.formats.external_data import DataFiles
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.wire import BYTES, VARINT, Field, Wire
from diffai_stream.storage.extent import Extent

_DIMS, _TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
FLOATS, INT32S, STRINGS, INT64S, DOUBLES, UINT64S = 4, 5, 6, 7, 10, 11
_VALUES = (FLOATS, INT32S, STRINGS, INT64S, DOUBLES, UINT64S)
STRING = 8
_MAX_RANK = 64


class Kind(NamedTuple):
    """A data type of ONNX: its encoding, and the field that holds its values where `raw_data` does not."""

    encoding: str
    field: int


KINDS = {
    **{1: Kind("F32", FLOATS), 11: Kind("F64", DOUBLES), 14: Kind("C64", FLOATS), 15: Kind("C128", DOUBLES)},
    **{7: Kind("I64", INT64S), 12: Kind("U32", UINT64S), 13: Kind("U64", UINT64S)},
    **{2: Kind("U8", INT32S), 3: Kind("I8", INT32S), 4: Kind("U16", INT32S), 5: Kind("I16", INT32S), 6: Kind("I32", INT32S)},
    **{9: Kind("BOOL", INT32S), 10: Kind("F16", INT32S), 16: Kind("BF16", INT32S), 24: Kind("F8_E8M0", INT32S)},
    **{17: Kind("F8_E4M3", INT32S), 18: Kind("F8_E4M3FNUZ", INT32S)},
    **{19: Kind("F8_E5M2", INT32S), 20: Kind("F8_E5M2FNUZ", INT32S)},
    **{23: Kind("F4", INT32S), 27: Kind("F6_E2M3", INT32S), 28: Kind("F6_E3M2", INT32S)},
}


class Stored(NamedTuple):
    """A `TensorProto` as it was found in bytes [start, stop); `values` are the fields that hold typed values."""

    name: str
    kind: int
    dims: tuple[int, ...]
    start: int
    stop: int
    raw: Field | None
    values: tuple[Field, ...]
    external: dict[str, str] | None
    segmented: bool

    @property
    def is_text(self) -> bool:
        """Whether it holds strings, which are no weights."""
        return self.kind == STRING


def read_tensor(wire: Wire, start: int, stop: int, name: str = "") -> Stored:
    """The tensor of one message; `name` is for those without one. Raises ValueError when a part of it is implausible."""
    kind, location, raw, segmented = 0, 0, None, False
    dims, values, external = list[int](), list[Field](), dict[str, str]()
    for field in wire.fields(start, stop):
        number, form, at, value = field
        if number == _DIMS and len(dims) <= _MAX_RANK:
            dims += wire.integers(field, _MAX_RANK)
        elif number == _TYPE and form == VARINT:
            kind = value
        elif number == _NAME and form == BYTES:
            name = wire.text(at, value)
        elif number == _RAW and form == BYTES:
            raw = field
        elif number in _VALUES and len(values) < 2:  # more than one run is met again when they are decoded
            values.append(field)
        elif number == _EXTERNAL and form == BYTES:
            key, text = read_pair(wire, at, at + value)
            external[key] = text
        elif number == _LOCATION and form == VARINT:
            location = value
        elif number == _SEGMENT:
            segmented = True
    found = external if location == 1 else None
    return Stored(name, kind, tuple(dims), start, stop, raw, tuple(values), found, segmented)


def read_pair(wire: Wire, start: int, stop: int) -> tuple[str, str]:
    """Key and value of a `StringStringEntryProto`."""
    fields = wire.last(start, stop)
    key, value = (fields.get(number) for number in (1, 2))
    return (wire.text(key[2], key[3]) if key else ""), (wire.text(value[2], value[3]) if value else "")


def place(tensor: Stored, path: str, files: DataFiles) -> Component:
    """The array of a tensor. Raises ValueError that says why it cannot be read."""
    if tensor.kind not in KINDS:
        raise ValueError(f"data type {tensor.kind} of ONNX is not known" if tensor.kind else "it declares no data type")
    if tensor.segmented:
        raise ValueError("a segment of a larger tensor, which no version of ONNX reads")
    encoding, field = KINDS[tensor.kind]
    nbytes = ENCODINGS[encoding].nbytes(element_count(tensor.dims))
    extent = _extent(tensor, path, files, nbytes, field)
    return Component((extent,), encoding, tensor.dims)


def _extent(tensor: Stored, path: str, files: DataFiles, nbytes: int, field: int) -> Extent:
    if tensor.external is not None:
        return files.extent(tensor.external, nbytes)
    if tensor.raw is not None:
        _, _, offset, there = tensor.raw
        if there != nbytes:
            raise ValueError(f"its type and shape take {nbytes} bytes, its raw_data has {there}")
        return Extent(path, offset, nbytes)
    runs = [value for value in tensor.values if value[0] == field]
    if not runs and nbytes:
        raise ValueError(f"its type and shape take {nbytes} bytes, it has none")
    if not runs:
        return Extent(path, tensor.start, 0)
    raise ValueError("values in varints are not read yet")
