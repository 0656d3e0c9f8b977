"""ONNX: a `ModelProto` message; weights are initializers of its graph and `Constant` nodes, in the file or beside it.

The file is walked, not parsed (`wire.py`): no library loads the model, which would need it all in memory and fails above
2 GiB. What cannot be read is an error by name, everything else is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.formats.external_data import DataFiles
from diffai_stream.formats.inert import collection_paused, open_regular, printable
from diffai_stream.formats.onnx_graph import Model, read_model
from diffai_stream.formats.onnx_tensors import Stored, place
from diffai_stream.formats.wire import BYTES, VARINT, Field, Wire

_VERSION, _GRAPH = 1, 7
_SHAPES = {**dict.fromkeys((1, 5), VARINT), **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)}
_FIRST_KEYS = {number << 3 | wire for number, wire in _SHAPES.items() if number < 16}
_GRAPH_SHAPES = dict.fromkeys((1, 2, 5, 10, 11, 12, 13, 14, 15, 16), BYTES)
_PROBED_FIELDS = 4096
_PROBED_GRAPH_FIELDS = 16


def probe(path: str, head: bytes) -> bool:
    """Whether the fields are those of a model with a version and a graph, in which the file may be cut off."""
    if not head or head[0] not in _FIRST_KEYS:
        return False
    try:
        with open_regular(path) as (file, stamp):
            wire = Wire(file, stamp.nbytes, path, _PROBED_FIELDS)
            found = list(wire.fields(0, stamp.nbytes))
            last = {field[0]: field for field in found}
            is_whole = not wire.damage() or (found and found[-1][0] == _GRAPH)
            is_model = last.keys() >= {_VERSION, _GRAPH} and _fit(found, _SHAPES)
            return bool(is_whole and is_model and _begins_as_graph(wire, last[_GRAPH]))
    except FormatError:
        return False


def _fit(fields: Iterable[Field], shapes: Mapping[int, int]) -> bool:
    return all(shapes.get(number) == form for number, form, _, _ in fields)


def _begins_as_graph(wire: Wire, graph: Field) -> bool:
    _, _, offset, nbytes = graph
    first = list(islice(wire.fields(offset, offset + nbytes), _PROBED_GRAPH_FIELDS))
    return bool(first or not nbytes) and _fit(first, _GRAPH_SHAPES)


def index(path: str) -> Checkpoint:
    """The weights of one model, in the order of the file.

    Raises FormatError when it holds no graph; a tensor that cannot be read is a TensorError in `errors`.
    """
    with open_regular(path) as (file, stamp), collection_paused():
        wire = Wire(file, stamp.nbytes, path)
        model = read_model(wire, frozenset())
    found = _Placed(stamp.path, model)
    return Checkpoint(
        path=path,
        format="onnx",
        tensors=tuple(found.entries()),
        metadata=model.metadata,
        stamps={stamp.path: stamp, **found.files.stamps},
        oddities=model.notes.oddities(),
        errors=(*wire.damage(), *model.errors),
        hyperparameters=model.constants,
    )


class _Placed:
    """The tensors of a model as entries; what cannot be one is told to the model."""

    def __init__(self, real_path: str, model: Model) -> None:
        self.real_path, self.model = real_path, model
        self.files = DataFiles(model.path)
        self._outer = {printable(tensor.name) for tensor in model.tensors if not tensor.scope}
        self._names: set[str] = set()
        self._repeats: dict[str, int] = {}

    def entries(self) -> Iterator[TensorEntry]:
        """The entries, in file order."""
        for tensor in self.model.tensors:
            name = self._unique(tensor)
            if tensor.is_text:
                self.model.notes.add("text_tensor", f"{name!r} holds strings, which are not compared", name)
                continue
            try:
                component = place(tensor, self.real_path, self.files)
            except (ValueError, TensorError) as error:
                self._fail(name, str(error), tensor.start)
            else:
                yield TensorEntry(name, component.shape, component.dtype, {"data": component})

    def _unique(self, tensor: Stored) -> str:
        """The name, with its scope where an outer graph or one before has the same; "#2" where one graph repeats itself."""
        plain = printable(tensor.name) or "unnamed"
        name = f"{tensor.scope}{plain}" if tensor.scope and (plain in self._outer or plain in self._names) else plain
        if name in self._names:
            self.model.notes.add("duplicate_name", f"more than one tensor is named {name!r}", name)
            self._repeats[name] = self._repeats.get(name, 1) + 1
            name = f"{name}#{self._repeats[name]}"
        self._names.add(name)
        return name

    def _fail(self, name: str, message: str, offset: int) -> None:
        self.model.errors.append(TensorError(message, path=self.model.path, tensor=name, offset=offset))
