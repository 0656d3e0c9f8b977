"""What a format gives: an index of tensors, each a list of extents, read from headers only."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple, Protocol

from diffai_stream.errors import CheckpointError
from diffai_stream.storage.extent import Extent, FileStamp

PROFILED = "profile:"  # the codec of what only a profile tells of; the key of its figures follows


class Component(NamedTuple):
    """One stored array of a tensor: `extents` hold its bytes in order, `strides` (in elements) are None for C order."""

    extents: tuple[Extent, ...]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None


class Region(NamedTuple):
    """How a tensor lies in a stored one of another layout: a slice, a transpose, a permutation of rows, an offset.

    In C order over `shape`, element (i, j, ...) is element start + i·strides[0] + j·strides[1] + ... of the stored tensor,
    whose elements are counted in C order over `stored_shape`; `offset` is added to every value.
    """

    stored_shape: tuple[int, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int = 0
    offset: float = 0.0


class TensorEntry(NamedTuple):
    """A tensor as a checkpoint declares it: `shape` and `encoding` say how to read its components as numbers.

    A plain encoding has one component, `data`; a quantized one more (scales, zero points, ...) and its parameters in
    `metadata`. `region` is set where alignment compares only a part of the stored tensor, or all of it in another layout;
    `part` says what kind of state it is in a training checkpoint: weights, ema, optimizer or gradient.
    """

    name: str
    shape: tuple[int, ...]
    encoding: str
    components: Mapping[str, Component]
    metadata: Mapping[str, str] = {}
    region: Region | None = None
    part: str = "weights"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the whole stored tensor."""
        return self.shape if self.region is None else self.region.stored_shape

    @property
    def is_profiled(self) -> bool:
        """Whether only the figures of it are there, not its weights."""
        data = self.components.get("data")
        return data is not None and bool(data.extents) and data.extents[0].codec.startswith(PROFILED)

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar, 0 when a dimension is 0."""
        return prod(self.shape)

    @property
    def stored_nbytes(self) -> int:
        """Bytes in the file, scales and the like included; of a region its share."""
        total = 0
        for component in self.components.values():
            for extent in component.extents:
                total += extent.nbytes
        if self.region is not None:
            total = total * self.numel // max(1, prod(self.region.stored_shape))
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
    were stored once; `identities` path -> content name where equal names mean equal bytes (Hugging Face blobs);
    `hyperparameters` dotted name -> scalar; `unsafe_globals` what a pickle names that no checkpoint needs, never imported;
    `is_profile`: only the figures of its tensors are there, `format` and `container` are those of the checkpoint profiled.
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
    hyperparameters: Mapping[str, str | int | float | bool] = {}
    unsafe_globals: tuple[str, ...] = ()
    is_profile: bool = False


class Format(Protocol):
    """A checkpoint format. A module of this package with these two functions and a row in `catalogue.py` is enough."""

    def probe(self, path: str, head: bytes) -> bool:
        """Whether the path is of this format, judged by its first bytes (up to 4 KiB; b"" for a directory)."""

    def index(self, path: str) -> Checkpoint:
        """Read the headers. Raises FormatError when nothing can be read; what is partly readable goes to `errors`."""
