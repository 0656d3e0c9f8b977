"""Constants of TensorFlow graphs: frozen models (`GraphDef`) and the graph of a SavedModel.

Fields are numbered as in graph.proto, node_def.proto, attr_value.proto, function.proto, meta_graph.proto and
saved_model.proto of TensorFlow. A node of the operator `Const` holds its tensor in the attribute `value`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffai_stream.errors import CheckpointError, TensorError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.inert import Notes, printable
from diffai_stream.formats.small_constants import Scalar, small_constant
from diffai_stream.formats.tensorflow_tensors import NOT_NUMBERS, Stored, place, read_tensor
from diffai_stream.formats.wire import BYTES, Field, Wire

_NODE, _LIBRARY = 1, 2
_NAME, _OP, _ATTRIBUTE, _KEY, _VALUE, _TENSOR = 1, 2, 5, 1, 2, 8
_FUNCTION, _SIGNATURE, _FUNCTION_NODE = 1, 1, 3
_META_GRAPH, _META_INFO, _GRAPH, _VERSION = 2, 1, 2, 5
_NAME_NBYTES = 4096
_SMALL_NBYTES = 256


@dataclass
class Constants:
    """What was found: entries in file order, small constants by name, and how many larger ones lie inside functions."""

    path: str
    real_path: str
    tensors: list[TensorEntry] = field(default_factory=list)
    scalars: dict[str, Scalar] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    errors: list[CheckpointError] = field(default_factory=list)
    nodes: int = 0
    in_functions: int = 0

    def __post_init__(self) -> None:
        self.notes = Notes(self.path)
        self._names: set[str] = set()

    def take(self, wire: Wire, tensor: Stored) -> None:
        """Keep a constant as an entry or a scalar, tell what cannot be read."""
        name = printable(tensor.name)
        if tensor.kind in NOT_NUMBERS:
            return
        if name in self._names:
            self.notes.add("duplicate_name", f"more than one node is named {name!r}, the first counts", name)
            return
        self._names.add(name)
        try:
            component = place(tensor, self.real_path)
            small = small_constant(wire, component)
        except (ValueError, TensorError) as error:
            self.fail(name, str(error), tensor.start)
            return
        if small is not None:
            self.scalars[name] = small
        else:
            self.tensors.append(TensorEntry(name, component.shape, component.dtype, {"data": component}))

    def fail(self, name: str, message: str, offset: int) -> None:
        """Keep why a constant cannot be read."""
        self.errors.append(TensorError(message, path=self.path, tensor=name or None, offset=offset))


def read_graph(wire: Wire, start: int, stop: int, found: Constants, with_functions: bool) -> None:
    """Take the constants of a `GraphDef`; those inside functions are only counted unless asked for."""
    for number, form, at, value in wire.fields(start, stop):
        if form == BYTES and number == _NODE:
            found.nodes += 1
            _read_node(wire, at, at + value, found, "", True)
        elif form == BYTES and number == _LIBRARY:
            _read_library(wire, at, at + value, found, with_functions)


def read_saved_model(wire: Wire, found: Constants) -> None:
    """Take the constants of the graph of a SavedModel, and the version of TensorFlow that wrote it."""
    for number, form, at, value in wire.fields(0, wire.nbytes):
        if number != _META_GRAPH or form != BYTES:
            continue
        for inner, kind, place_, size in wire.fields(at, at + value):
            if inner == _META_INFO and kind == BYTES:
                version = wire.last(place_, place_ + size).get(_VERSION)
                if version and version[1] == BYTES:
                    found.metadata["tensorflow_version"] = _text(wire, version)
            elif inner == _GRAPH and kind == BYTES:
                read_graph(wire, place_, place_ + size, found, with_functions=False)


def _read_library(wire: Wire, start: int, stop: int, found: Constants, wanted: bool) -> None:
    for number, form, at, value in wire.fields(start, stop):
        if number != _FUNCTION or form != BYTES:
            continue
        name = "function"
        for inner, kind, place_, size in wire.fields(at, at + value):
            if inner == _SIGNATURE and kind == BYTES:
                name = _text(wire, wire.last(place_, place_ + size).get(1))
            elif inner == _FUNCTION_NODE and kind == BYTES:
                _read_node(wire, place_, place_ + size, found, f"{name}/", wanted)


def _read_node(wire: Wire, start: int, stop: int, found: Constants, scope: str, wanted: bool) -> None:
    name = op = None
    attributes = []
    for one in wire.fields(start, stop):
        if one[1] != BYTES:
            continue
        if one[0] == _NAME:
            name = one
        elif one[0] == _OP:
            op = one
        elif one[0] == _ATTRIBUTE:
            attributes.append(one)
    if op is None or op[3] != 5 or _text(wire, op) != "Const":
        return
    tensor = next(filter(None, (_tensor_of(wire, one) for one in attributes)), None)
    if tensor is None:
        return
    if scope and (not wanted or tensor[3] < _SMALL_NBYTES):
        found.in_functions += tensor[3] >= _SMALL_NBYTES
        return
    title = scope + _text(wire, name)
    try:
        stored = read_tensor(wire, tensor[2], tensor[2] + tensor[3], title)
    except ValueError as error:
        found.fail(printable(title), str(error), tensor[2])
    else:
        found.take(wire, stored)


def _tensor_of(wire: Wire, attribute: Field) -> Field | None:
    """Where the tensor lies that is the attribute `value` of a node, if it is that one."""
    entry = wire.last(attribute[2], attribute[2] + attribute[3])
    key, value = entry.get(_KEY), entry.get(_VALUE)
    if key is None or value is None or value[1] != BYTES or _text(wire, key) != "value":
        return None
    tensor = wire.last(value[2], value[2] + value[3]).get(_TENSOR)
    return tensor if tensor and tensor[1] == BYTES else None


def _text(wire: Wire, found: Field | None) -> str:
    """A text field, cut to the length that a name can have; "" when there is none."""
    return "" if found is None or found[1] != BYTES else wire.text(found[2], min(found[3], _NAME_NBYTES))
