"""TensorFlow tensors: types, shapes, and `TensorProto` messages as arrays in place.

Fields and types are numbered as in tensor.proto, tensor_shape.proto and types.proto of TensorFlow. A constant lies in
`tensor_content` as it lies in memory, or in the list of its type; a list that is shorter than the shape is continued with
its last number, an empty one means zeros (`Tensor::FromProto`, tensor.cc).
"""

from __future__ import annotations

from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.wire import BYTES, VARINT, Field, Wire, signed
from diffai_stream.formats.wire_values import Values
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.fill import filled

_DTYPE, _SHAPE, _CONTENT = 1, 2, 4
_FLOAT, _DOUBLE, _INT, _COMPLEX, _INT64, _BOOL, _COMPLEX128, _HALF, _UINT32, _UINT64, _FLOAT8 = (
    5,
    6,
    7,
    9,
    10,
    11,
    12,
    13,
    16,
    17,
    18,
)
_LISTS = {_FLOAT, _DOUBLE, _INT, _COMPLEX, _INT64, _BOOL, _COMPLEX128, _HALF, _UINT32, _UINT64, _FLOAT8}
_DIM, _SIZE, _UNKNOWN_RANK = 2, 1, 3
MAX_FILL_NBYTES = 1 << 30  # more numbers than this from one are a claim, not a constant
_MAX_RANK = 64
_REFERENCE = 100  # types of reference edges are this much higher
STRING = 7
NOT_NUMBERS = {STRING: "strings", 20: "a resource handle", 21: "a variant"}


class Kind(NamedTuple):
    """A data type: its encoding, the field of its values where `tensor_content` does not hold them, their type there."""

    encoding: str
    field: int
    dtype: str = ""


KINDS = {
    1: Kind("F32", _FLOAT),
    2: Kind("F64", _DOUBLE),
    3: Kind("I32", _INT, "u4"),
    4: Kind("U8", _INT, "u1"),
    5: Kind("I16", _INT, "u2"),
    6: Kind("I8", _INT, "u1"),
    8: Kind("C64", _COMPLEX),
    9: Kind("I64", _INT64, "u8"),
    10: Kind("BOOL", _BOOL, "u1"),
    11: Kind("I8", _INT, "u1"),
    12: Kind("U8", _INT, "u1"),
    13: Kind("I32", _INT, "u4"),
    14: Kind("BF16", _HALF, "u2"),
    15: Kind("I16", _INT, "u2"),
    16: Kind("U16", _INT, "u2"),
    17: Kind("U16", _INT, "u2"),
    18: Kind("C128", _COMPLEX128),
    19: Kind("F16", _HALF, "u2"),
    22: Kind("U32", _UINT32, "u4"),
    23: Kind("U64", _UINT64, "u8"),
    24: Kind("F8_E5M2", _FLOAT8),
    25: Kind("F8_E4M3", _FLOAT8),
    26: Kind("F8_E4M3FNUZ", _FLOAT8),
    28: Kind("F8_E5M2FNUZ", _FLOAT8),
}
_UNREAD = {27: "float8_e4m3b11fnuz", 29: "int4", 30: "uint4", 31: "int2", 32: "uint2", 33: "float4_e2m1fn"}
_ITEM_NBYTES = {_FLOAT: 4, _COMPLEX: 4, _DOUBLE: 8, _COMPLEX128: 8, _FLOAT8: 1}


class Stored(NamedTuple):
    """A `TensorProto` as it was found from `start` on."""

    name: str
    kind: int
    dims: tuple[int, ...]
    start: int
    content: Field | None
    values: Values | None


def read_tensor(wire: Wire, start: int, stop: int, name: str) -> Stored:
    """The tensor of one message. Raises ValueError when a part of it is implausible."""
    kind, content, dims, values = 0, None, tuple[int, ...](), dict[int, Values]()
    for field in wire.fields(start, stop):
        number, form, at, value = field
        if number == _DTYPE and form == VARINT:
            kind = plain_kind(value)
        elif number == _SHAPE and form == BYTES:
            dims = read_shape(wire, at, at + value)
        elif number == _CONTENT and form == BYTES and value:
            content = field
        elif number in _LISTS:
            values.setdefault(number, Values()).add(wire, field)
    known = values.get(KINDS[kind].field) if kind in KINDS else None
    return Stored(name, kind, dims, start, content, known)


def plain_kind(kind: int) -> int:
    """The data type that a reference type refers to; others as they are."""
    return kind - _REFERENCE if kind > _REFERENCE else kind


def read_shape(wire: Wire, start: int, stop: int) -> tuple[int, ...]:
    """The sizes of a `TensorShapeProto`. Raises ValueError when they are not all known."""
    dims = list[int]()
    for number, form, at, value in wire.fields(start, stop):
        if number == _UNKNOWN_RANK and value:
            raise ValueError("its rank is not known")
        if number == _DIM and form == BYTES and len(dims) <= _MAX_RANK:
            size = wire.last(at, at + value).get(_SIZE)
            dims.append(signed(size[3]) if size and size[1] == VARINT else 0)
    return tuple(dims)


def encoding_of(kind: int) -> str:
    """The encoding of a data type. Raises ValueError for one that has none."""
    if kind in KINDS:
        return KINDS[kind].encoding
    if kind in _UNREAD:  # TensorFlow gives each a byte of its own
        raise ValueError(f"its data type {_UNREAD[kind]} has no encoding here")
    raise ValueError(f"data type {kind} of TensorFlow is not known" if kind else "it declares no data type")


def place(tensor: Stored, path: str) -> Component:
    """The array of a constant. Raises ValueError or TensorError that says why it cannot be read."""
    encoding = encoding_of(tensor.kind)
    numel, itemsize = element_count(tensor.dims), ENCODINGS[encoding].nbytes(1)
    nbytes = numel * itemsize
    extents = _extents(tensor, path, itemsize) if nbytes else ()
    there = sum(extent.nbytes for extent in extents)
    if there > nbytes or (tensor.content and there != nbytes):
        raise ValueError(f"its type and shape take {nbytes} bytes, it has {there}")
    if there == nbytes:
        return Component(extents or (Extent(path, tensor.start, 0),), encoding, tensor.dims)
    if nbytes - there > MAX_FILL_NBYTES:
        raise ValueError(f"{nbytes - there} bytes of one number repeated are not plausible (at most {MAX_FILL_NBYTES})")
    last = extents[-1] if extents else Extent(path, tensor.start, 0)
    return Component((*extents, filled(last, itemsize, nbytes - there)), encoding, tensor.dims)


def _extents(tensor: Stored, path: str, itemsize: int) -> tuple[Extent, ...]:
    """Where the numbers lie that are stored."""
    if tensor.content is not None:
        return (Extent(path, tensor.content[2], tensor.content[3]),)
    if tensor.values is None:
        return ()
    kind = KINDS[tensor.kind]
    if not kind.dtype:
        return tensor.values.fixed(path, _ITEM_NBYTES[kind.field])
    there = tensor.values.count(path, 0)
    return tensor.values.varints(path, kind.dtype, there, there * itemsize) if there else ()
