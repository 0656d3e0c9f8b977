"""What a format gives: an index of tensors, each a list of extents, read from headers only."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple, Protocol

from diffai_stream.errors import CheckpointError
from diffai_stream.storage.extent import Extent, FileStamp


class Component(NamedTuple):
    """One stored array of a tensor: `extents` hold its bytes in order, `strides` (in elements) are None for C order."""

    extents: tuple[Extent, ...]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None


class TensorEntry(NamedTuple):
    """A tensor as a checkpoint declares it: `shape` and `encoding` say how to read its components as numbers."""

    name: str
    shape: tuple[int, ...]
    encoding: str
    components: Mapping[str, Component]
    metadata: Mapping[str, str] = {}

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar, 0 when a dimension is 0."""
        return prod(self.shape)

    @property
    def stored_nbytes(self) -> int:
        """Bytes in the file, scales and the like included."""
        total = 0
        for component in self.components.values():
            for extent in component.extents:
                total += extent.nbytes
        return total  # a plain loop: asked for often, and a generator costs three times as much


class Oddity(NamedTuple):
    """Something readable but odd: becomes a `warning` record with this `code`."""

    code: str
    message: str
    path: str | None = None
    tensor: str | None = None


class Checkpoint(NamedTuple):
    """The index of one checkpoint.

    `path` as the user gave it; `tensors` in file order; `stamps` of every file read, keyed by path; `errors` what could
    not be indexed (each names its tensor or file), never silently dropped; `aliases` name -> name of tied weights that
    were stored once; `identities` path -> content name where equal names mean equal bytes (Hugging Face blobs).
    """

    path: str
    format: str
    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]
    stamps: Mapping[str, FileStamp]
    oddities: tuple[Oddity, ...] = ()
    errors: tuple[CheckpointError, ...] = ()
    aliases: Mapping[str, str] = {}
    identities: Mapping[str, str] = {}
    container: str = "file"


class Format(Protocol):
    """A checkpoint format. A module of this package with these two functions and a row in `catalogue.py` is enough."""

    def probe(self, path: str, head: bytes) -> bool:
        """Whether the path is of this format, judged by its first bytes (up to 4 KiB; b"" for a directory)."""

    def index(self, path: str) -> Checkpoint:
        """Read the headers. Raises FormatError when nothing can be read; what is partly readable goes to `errors`."""
