"""ONNX: a `ModelProto` message; weights are initializers of its graph and `Constant` nodes, in the file or beside it.

The file is walked, not parsed (`wire.py`): no library loads the model, which would need it all in memory and fails above
2 GiB. What cannot be read is an error by name, everything else is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from diffai_stream.errors import FormatError
from diffai_stream.formats import onnx_names, onnx_quantized
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import collection_paused, open_regular
from diffai_stream.formats.onnx_entries import Entries
from diffai_stream.formats.onnx_graph import read_model
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
        model = read_model(wire, onnx_names.OPS | onnx_quantized.OPS)
        found = Entries(wire, stamp.path, model)
        found.fold()
        found.rename()
    return Checkpoint(
        path=path,
        format="onnx",
        tensors=tuple(found.tensors.values()),
        metadata=model.metadata,
        stamps={stamp.path: stamp, **found.files.stamps},
        oddities=model.notes.oddities(),
        errors=(*wire.damage(), *model.errors),
        hyperparameters=model.constants,
    )
