"""TensorFlow: checkpoints (`.index` and `.data-...`), SavedModel directories, frozen graphs (`.pb`).

Everything is read in place, without TensorFlow. A path may be the index or a data file of a checkpoint, its prefix, a
SavedModel directory or the `saved_model.pb` in it, a directory with one checkpoint or with the file `checkpoint` that names
the latest, or a frozen graph.
"""

from __future__ import annotations

import os
import re

from diffai_stream.errors import CheckpointError, FormatError
from diffai_stream.formats.base import Checkpoint, Oddity, TensorEntry
from diffai_stream.formats.inert import collection_paused, listed, open_regular, read_exactly
from diffai_stream.formats.leveldb_table import FOOTER_NBYTES, MAGIC
from diffai_stream.formats.small_constants import Scalar
from diffai_stream.formats.tensorflow_bundle import Bundle
from diffai_stream.formats.tensorflow_graph import Constants, read_graph, read_saved_model
from diffai_stream.formats.wire import BYTES, VARINT, Wire
from diffai_stream.storage.extent import FileStamp

_SAVED_MODEL, _VARIABLES, _STATE = "saved_model.pb", os.path.join("variables", "variables"), "checkpoint"
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)
_LATEST = re.compile(rb'^model_checkpoint_path: "((?:[^"\\]|\\.)*)"', re.MULTILINE)
_GRAPH_FIELDS = {1: BYTES, 2: BYTES, 3: VARINT, 4: BYTES, 5: BYTES}
_SAVED_FIELDS = {1: VARINT, 2: BYTES}
_PROBED_FIELDS = 64
_STATE_NBYTES = 1 << 20


def probe(path: str, head: bytes) -> bool:
    """Whether it is one of the paths that are named above."""
    try:
        if not head:
            return _of_directory(path) is not None
    except FormatError:  # several checkpoints: which of them is for the user to say
        return True
    try:
        return _prefix_of(path) is not None or _is_graph(path, head) or _is_saved_model(path, head)
    except FormatError:
        return False


def index(path: str) -> Checkpoint:
    """The tensors of a checkpoint or the constants of a graph, in the order of their files.

    Raises FormatError when there is nothing to read; a tensor that cannot be read is a TensorError in `errors`.
    """
    if os.path.isdir(path):
        found = _of_directory(path)
        if found is None:
            raise FormatError("no TensorFlow checkpoint and no SavedModel in this directory", path=path)
        return _index_file(path, found)
    return _index_file(path, path)


def _index_file(shown: str, path: str) -> Checkpoint:
    """Index what was found; the `path` of the result is the one the user gave."""
    with collection_paused():
        prefix = _prefix_of(path)
        if prefix is not None:
            return _bundle(shown, prefix)
        if os.path.basename(path) == _SAVED_MODEL:
            return _saved_model(shown, path)
        return _graph(shown, path)


def _bundle(shown: str, prefix: str) -> Checkpoint:
    found = Bundle(prefix, shown)
    found.read()
    return _checkpoint(shown, found.stamps, bundle=found)


def _graph(shown: str, path: str) -> Checkpoint:
    with open_regular(path) as (file, stamp):
        wire = Wire(file, stamp.nbytes, path)
        constants = Constants(path, stamp.path)
        read_graph(wire, 0, stamp.nbytes, constants, with_functions=True)
    if not constants.nodes and not constants.tensors:
        raise next(iter(wire.damage()), FormatError("no TensorFlow graph: it holds no nodes", path=path))
    constants.errors += wire.damage()
    return _checkpoint(shown, {stamp.path: stamp}, constants)


def _saved_model(shown: str, path: str) -> Checkpoint:
    """The variables of a SavedModel and the constants of its graph."""
    with open_regular(path) as (file, stamp):
        wire = Wire(file, stamp.nbytes, path)
        constants = Constants(path, stamp.path)
        read_saved_model(wire, constants)
        constants.errors += wire.damage()
    if constants.in_functions:
        message = f"{constants.in_functions} constants inside its functions are not compared"
        constants.notes.add("function_constants", message)
    prefix = os.path.join(os.path.dirname(path), _VARIABLES)
    bundle = None
    if os.path.lexists(f"{prefix}.index"):
        bundle = Bundle(prefix, shown)
        bundle.read()
    return _checkpoint(shown, {stamp.path: stamp, **(bundle.stamps if bundle else {})}, constants, bundle)


def _checkpoint(
    path: str, stamps: dict[str, FileStamp], constants: Constants | None = None, bundle: Bundle | None = None
) -> Checkpoint:
    tensors, errors = list[TensorEntry](), list[CheckpointError]()
    scalars, oddities = dict[str, Scalar](), list[Oddity]()
    for part in (bundle, constants):
        if part is not None:
            known = {entry.name for entry in tensors}
            tensors += [entry for entry in part.tensors if entry.name not in known]
            scalars |= part.scalars
            errors += part.errors
            oddities += part.notes.oddities()
    return Checkpoint(
        path=path,
        format="tensorflow",
        tensors=tuple(tensors),
        metadata=constants.metadata if constants else {},
        stamps=stamps,
        oddities=tuple(oddities),
        errors=tuple(errors),
        hyperparameters=scalars,
    )


def _of_directory(path: str) -> str | None:
    """The file of a directory to read: a SavedModel, the latest checkpoint, the only one. Raises FormatError for several."""
    for name in (_SAVED_MODEL, f"{_VARIABLES}.index", "variables.index"):
        if os.path.lexists(os.path.join(path, name)):
            return os.path.join(path, name)
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(".index"))
    except OSError:
        return None
    tables = [name for name in names if _is_table(os.path.join(path, name))]
    latest = _latest(path)
    if f"{latest}.index" in tables:
        return os.path.join(path, f"{latest}.index")
    if len(tables) > 1:
        shown = listed([name.removesuffix(".index") for name in tables])
        raise FormatError(f"{len(tables)} TensorFlow checkpoints are in this directory; name one of them: {shown}", path=path)
    return os.path.join(path, tables[0]) if tables else None


def _latest(path: str) -> str:
    """The name of the latest checkpoint by the file `checkpoint`, which may hold the path of another machine; or ""."""
    try:
        with open_regular(os.path.join(path, _STATE)) as (file, stamp):
            found = _LATEST.search(read_exactly(file, 0, min(stamp.nbytes, _STATE_NBYTES), path))
    except FormatError:
        return ""
    return os.path.basename(found[1].decode("utf-8", "replace")) if found else ""


def _prefix_of(path: str) -> str | None:
    """The prefix of the checkpoint that a file belongs to: its index, or one of its data files."""
    data = _DATA.fullmatch(path)
    prefix = data[1] if data else path.removesuffix(".index")
    is_index = prefix != path and not data
    return prefix if (data or is_index) and _is_table(f"{prefix}.index") else None


def _is_table(path: str) -> bool:
    """Whether a file ends as a LevelDB table does."""
    try:
        with open_regular(path) as (file, stamp):
            nbytes = stamp.nbytes
            return nbytes >= FOOTER_NBYTES and read_exactly(file, nbytes - len(MAGIC), len(MAGIC), path) == MAGIC
    except FormatError:
        return False


def _is_graph(path: str, head: bytes) -> bool:
    """Whether the fields are those of a graph, and the first of them a node: its name and its operator are text."""
    if head[0] != 1 << 3 | BYTES:
        return False
    with open_regular(path) as (file, stamp):
        wire = Wire(file, stamp.nbytes, path, 4 * _PROBED_FIELDS)
        found = [field for field, _ in zip(wire.fields(0, stamp.nbytes), range(_PROBED_FIELDS), strict=False)]
        first = wire.last(found[0][2], found[0][2] + found[0][3]) if found else {}
        texts = [first[number] for number in (1, 2) if number in first and first[number][1] == BYTES]
        is_text = len(texts) == 2 and all(wire.read(one[2], min(one[3], 256)).isascii() and one[3] for one in texts)
    return is_text and all(_GRAPH_FIELDS.get(number) == form for number, form, _, _ in found)


def _is_saved_model(path: str, head: bytes) -> bool:
    """Whether it is named and begins as a SavedModel does, with a version and a graph."""
    if os.path.basename(path) != _SAVED_MODEL or head[0] != 1 << 3 | VARINT:
        return False
    with open_regular(path) as (file, stamp):
        wire = Wire(file, stamp.nbytes, path, _PROBED_FIELDS)
        return all(_SAVED_FIELDS.get(number) == form for number, form, _, _ in wire.fields(0, stamp.nbytes))
