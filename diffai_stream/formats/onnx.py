"""ONNX: a `ModelProto` message; weights are initializers of its graph and `Constant` nodes, in the file or beside it.

The file is walked, not parsed (`wire.py`): no library loads the model, which would need it all in memory and fails above
2 GiB. What cannot be read is an error by name, everything else is compared.
"""

from __future__ import annotations

from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.external_data import DataFiles
from diffai_stream.formats.inert import Notes, collection_paused, open_regular, printable
from diffai_stream.formats.onnx_graph import Graph, read_model
from diffai_stream.formats.onnx_tensors import Stored, place
from diffai_stream.formats.wire import BYTES, VARINT, Wire
from diffai_stream.storage.extent import FileStamp

_GRAPH = 7
_SHAPES = {**dict.fromkeys((1, 5), VARINT), **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)}
_FIRST_KEYS = {number << 3 | wire for number, wire in _SHAPES.items() if number < 16}
_PROBED_FIELDS = 4096


def probe(path: str, head: bytes) -> bool:
    """Whether all top-level fields are those of a model, and one of them is its graph."""
    if not head or head[0] not in _FIRST_KEYS:
        return False
    try:
        with open_regular(path) as (file, stamp):
            wire = Wire(file, stamp.nbytes, path, _PROBED_FIELDS)
            found = {number: form for number, form, _, _ in wire.fields(0, stamp.nbytes)}
    except FormatError:
        return False
    return _GRAPH in found and found.items() <= _SHAPES.items()


def index(path: str) -> Checkpoint:
    """The weights of one model, in the order of the file.

    Raises FormatError when it holds no graph; a tensor that cannot be read is a TensorError in `errors`.
    """
    with open_regular(path) as (file, stamp), collection_paused():
        wire = Wire(file, stamp.nbytes, path)
        model = read_model(wire)
        return _Index(path, stamp, model).checkpoint(wire)


class _Index:
    """The entries of one model, and what went wrong with them."""

    def __init__(self, path: str, stamp: FileStamp, model: Graph) -> None:
        self.path, self.stamp, self.model = path, stamp, model
        self.files, self.notes = DataFiles(path), Notes(path)
        self.errors: list[CheckpointError] = []

    def checkpoint(self, wire: Wire) -> Checkpoint:
        tensors = [entry for stored in self.model.tensors if (entry := self._entry(stored)) is not None]
        return Checkpoint(
            path=self.path,
            format="onnx",
            tensors=tuple(tensors),
            metadata=self.model.metadata,
            stamps={self.stamp.path: self.stamp, **self.files.stamps},
            oddities=self.notes.oddities(),
            errors=(*wire.damage(), *self.errors),
        )

    def _entry(self, stored: Stored) -> TensorEntry | None:
        if stored.is_text:
            self.notes.add("text_tensor", f"{stored.name!r} holds strings, which are not compared", printable(stored.name))
            return None
        try:
            component: Component = place(stored, self.stamp.path, self.files)
        except ValueError as error:
            self.errors.append(TensorError(str(error), path=self.path, tensor=printable(stored.name), offset=stored.start))
            return None
        return TensorEntry(stored.name, component.shape, component.dtype, {"data": component})
