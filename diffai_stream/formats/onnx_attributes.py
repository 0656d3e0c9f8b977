"""Attributes of ONNX nodes, and the small constants that say how a graph computes rather than what it has learned."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from diffai_stream.formats.inert import element_count
from diffai_stream.formats.onnx_tensors import KINDS, Stored, place
from diffai_stream.formats.wire import BYTES, FIXED32, VARINT, Field, Wire, signed
from diffai_stream.formats.wire_values import Values
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window

_NAME, _F, _I, _S, _TENSOR, _GRAPH, _FLOATS, _INTS, _TENSORS, _GRAPHS = 1, 2, 3, 4, 5, 6, 7, 8, 10, 11
_SPARSE, _SPARSES = 22, 23
SMALL_NUMEL = 64
GENERATED = re.compile(r"(?:val|const|constant|cst)_?\d+(?:_\d+)*|onnx::\w+_\d+|_?\d+|.*/Constant(?:_\d+)?_output_0")
"""Names that exporters make up for what they fold: torch.onnx, its newer exporter, onnxscript."""
Scalar = str | int | float | bool
_NUMPY = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BOOL": "?"} | {
    f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)
}


@dataclass
class Attribute:
    """An `AttributeProto`: its number or text, if it is one, and where the messages and lists lie that it holds."""

    name: str = ""
    scalar: Scalar | None = None
    tensors: list[Field] = field(default_factory=list)
    graphs: list[Field] = field(default_factory=list)
    sparse: list[Field] = field(default_factory=list)
    floats: Values = field(default_factory=Values)
    ints: Values = field(default_factory=Values)


def read_attribute(wire: Wire, start: int, stop: int) -> Attribute:
    """The attribute of one message. Raises ValueError when it is implausible."""
    found = Attribute()
    inner = {_TENSOR: found.tensors, _TENSORS: found.tensors, _GRAPH: found.graphs, _GRAPHS: found.graphs}
    inner |= {_SPARSE: found.sparse, _SPARSES: found.sparse}
    for one in wire.fields(start, stop):
        number, form, at, value = one
        if number in inner and form == BYTES:
            inner[number].append(one)
        elif number == _FLOATS:
            found.floats.add(wire, one)
        elif number == _INTS:
            found.ints.add(wire, one)
        elif number == _NAME and form == BYTES:
            found.name = wire.text(at, value)
        elif number == _I and form == VARINT:
            found.scalar = signed(value)
        elif number == _F and form == FIXED32:
            found.scalar = _shown(struct.unpack("<f", wire.read(at, 4))[0])
        elif number == _S and form == BYTES and value <= 1 << 10:
            found.scalar = wire.text(at, value)
    return found


def small_constant(wire: Wire, tensor: Stored) -> Scalar | None:
    """The value of a single number, or of a short list of integers as text: shapes, axes, factors. None for what is weights.

    Raises ValueError or TensorError when it is one but damaged.
    """
    encoding = KINDS[tensor.kind].encoding if tensor.kind in KINDS else ""
    dtype = _NUMPY.get(encoding)
    if dtype is None or tensor.external is not None or len(tensor.dims) > 1 or (tensor.dims and encoding[0] not in "IUB"):
        return None
    if element_count(tensor.dims) > SMALL_NUMEL:
        return None
    extents = place(tensor, wire.path, None).extents
    raw = b"".join(_bytes(wire, extent) for extent in extents)
    values = np.frombuffer(raw, dtype).tolist()
    return str(values) if tensor.dims else _shown(values[0])


def _bytes(wire: Wire, extent: Extent) -> bytes:
    if extent.codec:
        return read_window(extent, 0, extent.nbytes, None).tobytes()
    return wire.read(extent.offset, extent.nbytes)


def _shown(value: Scalar) -> Scalar:
    """The value; as text where JSON has no number for it."""
    return value if not isinstance(value, float) or isfinite(value) else str(value)
