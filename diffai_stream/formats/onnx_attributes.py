"""Attributes of ONNX nodes, and the names that exporters make up."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from diffai_stream.formats.small_constants import Scalar, shown
from diffai_stream.formats.wire import BYTES, FIXED32, VARINT, Field, Wire, signed
from diffai_stream.formats.wire_values import Values

_NAME, _F, _I, _S, _TENSOR, _GRAPH, _FLOATS, _INTS, _TENSORS, _GRAPHS = 1, 2, 3, 4, 5, 6, 7, 8, 10, 11
_SPARSE, _SPARSES = 22, 23
GENERATED = re.compile(
    r"(?:val|const|constant|cst)_?\d+(?:_\d+)*|onnx::\w+_\d+|[\w:/]+__\d+|_?\d+|.*/Constant(?:_\d+)?_output_0|.+_reshape_shape"
)
"""Names that exporters make up for what they fold: torch.onnx, its newer exporter, tf2onnx, onnxruntime."""


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
            found.scalar = shown(struct.unpack("<f", wire.read(at, 4))[0])
        elif number == _S and form == BYTES and value <= 1 << 10:
            found.scalar = wire.text(at, value)
    return found
