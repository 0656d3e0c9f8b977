"""ONNX tensors: a `TensorProto` message as an array in place.

Numbers of fields and types: onnx.proto. Bytes lie in `raw_data`, in a file beside the model, or in the field of their
type; floats and doubles are there as they are in memory, integers and all smaller floats as varints.
"""

from __future__ import annotations

from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component
from diffai_stream.formats.external_data import DataFiles
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.wire import BYTES, VARINT, Field, Wire
from diffai_stream.formats.wire_values import Values
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.varints import SIXES

_DIMS, _TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S = 4, 5, 7, 10, 11
_VALUES = (_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S)
STRING = 8
FLOAT, INT64 = 1, 7
_MAX_RANK = 64


class Kind(NamedTuple):
    """A data type of ONNX: its encoding, the field of its values where `raw_data` does not hold them, their type there."""

    encoding: str
    field: int
    dtype: str = ""


KINDS = {
    FLOAT: Kind("F32", _FLOATS),
    2: Kind("U8", _INT32S, "u1"),
    3: Kind("I8", _INT32S, "u1"),
    4: Kind("U16", _INT32S, "u2"),
    5: Kind("I16", _INT32S, "u2"),
    6: Kind("I32", _INT32S, "u4"),
    INT64: Kind("I64", _INT64S, "u8"),
    9: Kind("BOOL", _INT32S, "u1"),
    10: Kind("F16", _INT32S, "u2"),
    11: Kind("F64", _DOUBLES),
    12: Kind("U32", _UINT64S, "u4"),
    13: Kind("U64", _UINT64S, "u8"),
    14: Kind("C64", _FLOATS),
    15: Kind("C128", _DOUBLES),
    16: Kind("BF16", _INT32S, "u2"),
    17: Kind("F8_E4M3", _INT32S, "u1"),
    18: Kind("F8_E4M3FNUZ", _INT32S, "u1"),
    19: Kind("F8_E5M2", _INT32S, "u1"),
    20: Kind("F8_E5M2FNUZ", _INT32S, "u1"),
    21: Kind("U4", _INT32S, "u1"),
    22: Kind("I4", _INT32S, "u1"),
    23: Kind("F4", _INT32S, "u1"),
    24: Kind("F8_E8M0", _INT32S, "u1"),
    25: Kind("U2", _INT32S, "u1"),
    26: Kind("I2", _INT32S, "u1"),
    27: Kind("F6_E2M3", _INT32S, SIXES),
    28: Kind("F6_E3M2", _INT32S, SIXES),
}


class Stored(NamedTuple):
    """A tensor as it was found in bytes [start, stop): a `TensorProto`, or a list of numbers among the attributes of a node.

    `values` are those of the field of its type; `external` is None unless its bytes lie elsewhere.
    """

    name: str
    kind: int
    dims: tuple[int, ...]
    start: int
    stop: int
    raw: Field | None = None
    values: Values | None = None
    external: dict[str, str] | None = None
    segmented: bool = False
    scope: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it holds strings, which are no weights."""
        return self.kind == STRING


def read_tensor(wire: Wire, start: int, stop: int, name: str = "", scope: str = "") -> Stored:
    """The tensor of one message; `name` counts where it has none. Raises ValueError when a part of it is implausible."""
    kind, location, raw, segmented = 0, 0, None, False
    dims, external, values = list[int](), dict[str, str](), dict[int, Values]()
    for field in wire.fields(start, stop):
        number, form, at, value = field
        if number == _DIMS and len(dims) <= _MAX_RANK:
            dims += wire.integers(field, _MAX_RANK)
        elif number == _TYPE and form == VARINT:
            kind = value
        elif number == _NAME and form == BYTES:
            name = wire.text(at, value) or name
        elif number == _RAW and form == BYTES:
            raw = field
        elif number in _VALUES:
            values.setdefault(number, Values()).add(wire, field)
        elif number == _EXTERNAL and form == BYTES:
            key, text = read_pair(wire, at, at + value)
            external[key] = text
        elif number == _LOCATION and form == VARINT:
            location = value
        elif number == _SEGMENT:
            segmented = True
    known = values.get(KINDS[kind].field) if kind in KINDS else None
    return Stored(name, kind, tuple(dims), start, stop, raw, known, external if location == 1 else None, segmented, scope)


def read_pair(wire: Wire, start: int, stop: int) -> tuple[str, str]:
    """Key and value of a `StringStringEntryProto`. Raises ValueError when one is implausibly long."""
    fields = wire.last(start, stop)
    key, value = (fields.get(number) for number in (1, 2))
    return (wire.text(key[2], key[3]) if key else ""), (wire.text(value[2], value[3]) if value else "")


def place(tensor: Stored, path: str, files: DataFiles | None) -> Component:
    """The array of a tensor; `files` may be None for one whose bytes lie in the model.

    Raises ValueError or TensorError that says why it cannot be read.
    """
    if tensor.kind not in KINDS:
        raise ValueError(f"data type {tensor.kind} of ONNX is not known" if tensor.kind else "it declares no data type")
    if tensor.segmented:
        raise ValueError("a segment of a larger tensor, which no version of ONNX reads")
    kind = KINDS[tensor.kind]
    numel = element_count(tensor.dims)
    nbytes = ENCODINGS[kind.encoding].nbytes(numel)
    extents = _extents(tensor, path, files, numel, nbytes)
    there = sum(extent.nbytes for extent in extents)
    if there != nbytes:
        raise ValueError(f"its type and shape take {nbytes} bytes, it has {there}")
    return Component(extents, kind.encoding, tensor.dims)


def _extents(tensor: Stored, path: str, files: DataFiles | None, numel: int, nbytes: int) -> tuple[Extent, ...]:
    if tensor.external is not None and files is not None:
        return (files.extent(tensor.external, nbytes),)
    if tensor.raw is not None:
        return (Extent(path, tensor.raw[2], tensor.raw[3]),)
    if tensor.values is None or not nbytes:
        return (Extent(path, tensor.start, 0),)
    kind = KINDS[tensor.kind]
    if not kind.dtype:
        return tensor.values.fixed(path, 4 if kind.field == _FLOATS else 8)
    count = nbytes if kind.dtype == "u1" else numel  # of 4- and 2-bit codes each value is a byte of several
    return tensor.values.varints(path, kind.dtype, count, nbytes)
