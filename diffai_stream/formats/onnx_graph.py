"""The graph of an ONNX model: which messages in it are weights.

Weights are initializers, values of `Constant` nodes, tensors and long lists among the attributes of other nodes (the
operators of classical machine learning keep theirs there), in the graph itself, in the graphs inside its nodes (`If`,
`Loop`, `Scan`) and in local functions. Fields are numbered as in onnx.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats.inert import Notes, printable
from diffai_stream.formats.onnx_attributes import GENERATED, Attribute, read_attribute
from diffai_stream.formats.onnx_tensors import FLOAT, INT64, Stored, place, read_pair, read_tensor
from diffai_stream.formats.small_constants import Scalar, small_constant
from diffai_stream.formats.wire import BYTES, MAX_DEPTH, Field, Wire
from diffai_stream.formats.wire_values import Values

_TEXTS = {2: "producer_name", 3: "producer_version", 4: "domain"}
_GRAPH, _METADATA, _TRAINING, _FUNCTION = 7, 14, 20, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_FUNCTION_NAME, _FUNCTION_NODE = 1, 7
_INPUT, _OUTPUT, _NAME, _OP, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_CONSTANT = "Constant"
_LOOKED_INTO = {_CONSTANT, "If", "Loop", "Scan", "SequenceMap"}
_LARGE_NBYTES = 256  # a smaller attribute holds no weights, unless its node is one of those
_NAME_NBYTES = 4096


class Node(NamedTuple):
    """A node whose inputs or attributes say how weights are used; `numbers` are its attributes that are one number or text."""

    op: str
    name: str
    inputs: tuple[str, ...]
    numbers: dict[str, Scalar]


@dataclass
class Model:
    """What was found: tensors in file order, small constants by name (their values, and where they lie), nodes, texts."""

    path: str
    ops: frozenset[str]
    tensors: list[Stored] = field(default_factory=list)
    constants: dict[str, Scalar] = field(default_factory=dict)
    small: dict[str, Stored] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    errors: list[CheckpointError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = Notes(self.path)


def read_model(wire: Wire, ops: frozenset[str]) -> Model:
    """Walk a model; nodes of `ops` are kept. Raises FormatError when there is no graph in it."""
    model, graphs = Model(wire.path, ops), 0
    reader = _Reader(wire, model)
    for number, form, at, value in wire.fields(0, wire.nbytes):
        if form != BYTES:
            continue
        if number == _GRAPH:
            graphs += 1
            reader.graph(at, at + value, "", 0)
        elif number == _FUNCTION:
            reader.function(at, at + value)
        elif number == _TRAINING:
            model.notes.add("training_info", f"what it says of its training, {value} bytes, is not compared")
        elif number == _METADATA or (number in _TEXTS and value):
            reader.describe(number, at, at + value)
    if not graphs:
        raise next(iter(wire.damage()), FormatError("no ONNX model: it holds no graph", path=wire.path))
    return model


class _Reader:
    """Walks graphs and keeps what it finds in a model."""

    def __init__(self, wire: Wire, model: Model) -> None:
        self.wire, self.model = wire, model

    def describe(self, number: int, start: int, stop: int) -> None:
        """Keep a text about the model."""
        try:
            if number == _METADATA:
                key, value = read_pair(self.wire, start, stop)
            else:
                key, value = _TEXTS[number], self.wire.text(start, stop - start)
        except ValueError as error:
            self.model.notes.add("metadata_too_long", str(error))
        else:
            self.model.metadata[key] = value

    def graph(self, start: int, stop: int, scope: str, depth: int) -> None:
        """A `GraphProto`; `scope` says in which attribute of which node it lies."""
        if depth > MAX_DEPTH:
            self.wire.fail(f"graphs lie in graphs, more than {MAX_DEPTH} deep: those below are not read", start)
            return
        for number, form, at, value in self.wire.fields(start, stop):
            if form == BYTES and number == _NODE:
                self.node(at, at + value, scope, depth)
            elif form == BYTES and number == _INITIALIZER:
                self.tensor(at, at + value, "", scope)
            elif form == BYTES and number == _SPARSE:
                self.sparse(at, at + value, "", scope)

    def function(self, start: int, stop: int) -> None:
        """A `FunctionProto`, which is a graph with a name."""
        name = "function"
        for found in self.wire.fields(start, stop):
            if found[0] == _FUNCTION_NAME:
                name = self._text(found)
            elif found[0] == _FUNCTION_NODE and found[1] == BYTES:
                self.node(found[2], found[2] + found[3], f"{name}/", 0)

    def node(self, start: int, stop: int, scope: str, depth: int) -> None:
        """A `NodeProto`: its attributes are looked into where they may hold weights, or say how its inputs are used."""
        parts: dict[int, list[Field]] = {}
        for found in self.wire.fields(start, stop):
            if found[1] == BYTES:
                parts.setdefault(found[0], []).append(found)
        op = self._text(*parts.get(_OP, ())[-1:])
        attributes, wanted = parts.get(_ATTRIBUTE, []), op in self.model.ops
        if not wanted and op not in _LOOKED_INTO:
            attributes = [found for found in attributes if found[3] >= _LARGE_NBYTES]
        if not wanted and not attributes:
            return
        name, output = self._text(*parts.get(_NAME, ())[-1:]), self._text(*parts.get(_OUTPUT, ())[:1])
        title = output if op == _CONSTANT else name or output or op
        numbers = {}
        for found in attributes:
            attribute = self._attribute(found, title)
            self._take(attribute, found, _Site(op, title, scope, depth))
            if attribute.scalar is not None:
                numbers[attribute.name] = attribute.scalar
        if wanted:
            self.model.nodes.append(Node(op, name, tuple(map(self._text, parts.get(_INPUT, ()))), numbers))

    def tensor(self, start: int, stop: int, name: str, scope: str, is_constant: bool = False) -> None:
        """A `TensorProto`; `name` counts where it is the value of a node."""
        try:
            found = read_tensor(self.wire, start, stop)
            found = found._replace(name=name or found.name, scope=scope)
            small = self._small(found) if is_constant or GENERATED.fullmatch(found.name) else None
        except (ValueError, TensorError) as error:
            self._fail(name, str(error), start)
            return
        if small is None:
            self.model.tensors.append(found)
        else:
            self.model.constants[printable(found.name)] = small
            self.model.small[printable(found.name)] = found

    def sparse(self, start: int, stop: int, name: str, scope: str) -> None:
        """A `SparseTensorProto`: what it stores are two tensors, the values that are not zero and their places."""
        fields = self.wire.last(start, stop)
        for number, what in ((1, "values"), (2, "indices")):
            if number in fields and fields[number][1] == BYTES:
                _, _, at, value = fields[number]
                name = name or self._name_of(at, at + value)
                self.tensor(at, at + value, f"{name}.{what}", scope)
        self.model.notes.add(
            "sparse_tensor", f"{name!r} is sparse: its values and its indices are compared by themselves", name
        )

    def _small(self, found: Stored) -> Scalar | None:
        if found.is_text or found.external is not None:
            return None
        return small_constant(self.wire, place(found, self.wire.path, None))

    def _attribute(self, found: Field, title: str) -> Attribute:
        try:
            return read_attribute(self.wire, found[2], found[2] + found[3])
        except ValueError as error:
            self._fail(title, str(error), found[2])
            return Attribute()

    def _take(self, attribute: Attribute, found: Field, site: _Site) -> None:
        """Keep what an attribute holds: of a `Constant` under the name of its value, else under node and attribute."""
        is_constant = site.op == _CONSTANT
        name = site.title if is_constant else f"{site.title}.{attribute.name}"
        for _, _, at, value in attribute.tensors:
            self.tensor(at, at + value, name, site.scope, is_constant)
        for _, _, at, value in attribute.sparse:
            self.sparse(at, at + value, name, site.scope)
        for _, _, at, value in attribute.graphs:
            self.graph(at, at + value, f"{site.scope}{site.title}.{attribute.name}/", site.depth + 1)
        for values, kind in ((attribute.floats, FLOAT), (attribute.ints, INT64)):
            if values.runs and (is_constant or found[3] >= _LARGE_NBYTES):
                self._list(values, kind, name, found, site.scope)
        if is_constant and attribute.scalar is not None:
            self.model.constants[printable(name)] = attribute.scalar

    def _list(self, values: Values, kind: int, name: str, found: Field, scope: str) -> None:
        try:
            count = values.count(self.wire.path, 4 if kind == FLOAT else 0)
        except (ValueError, TensorError) as error:
            self._fail(name, str(error), found[2])
        else:
            start, stop = found[2], found[2] + found[3]
            self.model.tensors.append(Stored(name, kind, (count,), start, stop, values=values, scope=scope))

    def _text(self, found: Field | None = None) -> str:
        """A text field, cut to the length that a name can have; "" when there is none."""
        return "" if found is None else self.wire.text(found[2], min(found[3], _NAME_NBYTES))

    def _name_of(self, start: int, stop: int) -> str:
        return self._text(self.wire.last(start, stop).get(8))

    def _fail(self, name: str, message: str, offset: int) -> None:
        self.model.errors.append(TensorError(message, path=self.wire.path, tensor=printable(name) or None, offset=offset))


class _Site(NamedTuple):
    """Where an attribute stands: the operator, the name of the node or its value, the scope and depth of its graph."""

    op: str
    title: str
    scope: str
    depth: int
