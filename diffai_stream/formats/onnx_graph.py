"""The graph of an ONNX model: which messages in it are weights.

`ModelProto` and `GraphProto` as onnx.proto numbers their fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffai_stream.errors import FormatError
from diffai_stream.formats.onnx_tensors import Stored, read_pair, read_tensor
from diffai_stream.formats.wire import BYTES, Wire

_GRAPH, _METADATA = 7, 14
_TEXTS = {2: "producer_name", 3: "producer_version", 4: "domain"}
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15


@dataclass
class Graph:
    """What was found of a model: its tensors in file order, and the texts that describe it."""

    tensors: list[Stored] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def read_model(wire: Wire) -> Graph:
    """Walk a model. Raises FormatError when there is no graph in it."""
    model, graphs = Graph(), 0
    for number, form, at, value in wire.fields(0, wire.nbytes):
        if form != BYTES:
            continue
        if number == _GRAPH:
            graphs += 1
            _read_graph(wire, at, at + value, model)
        elif number in _TEXTS and value:
            model.metadata[_TEXTS[number]] = wire.text(at, value)
        elif number == _METADATA:
            key, text = read_pair(wire, at, at + value)
            model.metadata[key] = text
    if not graphs:
        raise next(iter(wire.damage()), FormatError("no ONNX model: it holds no graph", path=wire.path))
    return model


def _read_graph(wire: Wire, start: int, stop: int, model: Graph) -> None:
    for number, form, at, value in wire.fields(start, stop):
        if number == _INITIALIZER and form == BYTES:
            model.tensors.append(read_tensor(wire, at, at + value))
