"""skops files: scikit-learn models without a pickle.

Layout (`skops/io` of skops-dev/skops): a zip archive with `schema.json`, a tree of nodes that each name their class, loader and
content, and one `.npy` member an array. Only the arrays and plain values of the tree are read; no class is ever looked up.
"""

from __future__ import annotations

import json
from io import FileIO
from typing import Any

import numpy as np

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, open_regular, parse_json
from diffai_stream.formats.npy import member_entries, read_header
from diffai_stream.formats.pickled.arrays import Array
from diffai_stream.formats.pickled.collect import collect
from diffai_stream.formats.pickled.tree import MAX_DEPTH
from diffai_stream.formats.pickled.values import Broken
from diffai_stream.formats.zip_members import Member, read_members

_SCHEMA = "schema.json"
_MAX_SCHEMA_NBYTES = 1 << 26
_MAX_SCALAR_NBYTES = 1 << 12


def probe(path: str, head: bytes) -> bool:
    """Whether it is a zip archive that is named as skops names its files; its members come in any order."""
    return head.startswith(b"PK\x03\x04") and path.lower().endswith(".skops")


def index(path: str) -> Checkpoint:
    """The arrays of one file under the names of the attributes that hold them.

    Raises FormatError when the archive or its schema cannot be read; an array that cannot is a TensorError in `errors`.
    """
    notes = Notes(path)
    with open_regular(path) as (file, stamp), collection_paused():
        members, flaws = read_members(file, stamp.nbytes, path)
        archive = _Archive(file, {member.name: member for member in members}, {flaw.tensor or "": flaw for flaw in flaws}, path)

        def describe(name: str, value: Any, part: str) -> list[TensorEntry]:
            member = archive.member(str(value.data))
            entries = member_entries(file, member._replace(name=f"{name}.npy"), stamp.path, notes)
            return [entry._replace(part=part) for entry in entries]

        found = collect(archive.value(), describe, notes)
    return Checkpoint(
        path=path,
        format="skops",
        tensors=found.tensors,
        metadata={},
        stamps={stamp.path: stamp},
        oddities=notes.oddities(),
        errors=found.errors,
        aliases=found.aliases,
        hyperparameters=found.hyperparameters,
    )


class _Archive:
    """The members of an archive, and the values that its schema describes."""

    def __init__(self, file: FileIO, members: dict[str, Member], flaws: dict[str, TensorError], path: str) -> None:
        self.file, self.members, self.flaws, self.path = file, members, flaws, path

    def member(self, name: str) -> Member:
        """A member by name. Raises ValueError when it is missing or damaged."""
        if name not in self.members:
            flaw = self.flaws.get(name)
            raise ValueError(flaw.message if flaw else f"the archive holds no member {name[:80]!r}")
        return self.members[name]

    def value(self) -> object:
        """What the schema describes, arrays by the name of their member. Raises FormatError."""
        try:
            member = self.member(_SCHEMA)
            if member.nbytes > _MAX_SCHEMA_NBYTES:
                raise ValueError(f"{member.nbytes} bytes are more than the {_MAX_SCHEMA_NBYTES} that are plausible")
            raw = member.content(self.file)
        except ValueError as error:
            raise FormatError(f"its {_SCHEMA} cannot be read: {error}", path=self.path) from None
        return self._value(parse_json(raw, self.path, what=_SCHEMA), 0)

    def _value(self, node: Any, depth: int) -> Any:
        """A node as a mapping, a list, a plain value or an array; None for what is none of these."""
        if not isinstance(node, dict) or depth > MAX_DEPTH:
            return None
        loader, content = node.get("__loader__"), node.get("content")
        if loader == "JsonNode":
            return _plain(content)
        if loader == "NdArrayNode" and node.get("type") == "numpy":
            return self._array(node)
        if loader in ("RandomStateNode", "RandomGeneratorNode"):
            return None
        if loader == "SparseMatrixNode":
            return Broken("a sparse matrix is not compared")
        if isinstance(content, dict) and "__loader__" in content:
            return self._value(content, depth + 1)
        if isinstance(content, dict):
            return {key: self._value(value, depth + 1) for key, value in content.items()}
        items = [self._value(value, depth + 1) for value in content] if isinstance(content, list) else []
        return tuple(items) if loader == "TupleNode" else items

    def _array(self, node: dict[str, Any]) -> Any:
        """An array, or the number that a scalar of numpy is."""
        if node.get("__class__") in ("ndarray", "memmap"):
            return Array(data=str(node.get("file")))
        try:
            raw = self.member(str(node.get("file"))).head(self.file, _MAX_SCALAR_NBYTES)
            header = read_header(raw)
            numbers = np.frombuffer(raw[header.data :][: header.itemsize], header.dtype)
            return numbers[0].item() if header.shape == () and numbers.size == 1 else None
        except ValueError as error:
            return Broken(str(error))


def _plain(content: Any) -> Any:
    """The text, number or truth that a JSON text holds."""
    try:
        found = json.loads(content) if isinstance(content, str) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, str | int | float) else None
