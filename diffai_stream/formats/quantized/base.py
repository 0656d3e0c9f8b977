"""What a family of quantized layouts is shown, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from diffai_stream.formats.base import Component, TensorEntry

MAX_READ_NBYTES = 1 << 16  # of parameters that are stored as tensors: shapes, JSON of a state, a sample of zero points


class Refused(Exception):
    """Why tensors that look like one quantized weight are left as they are stored."""


class Opaque(Refused):
    """A layout that is known by name but not decoded here: its stored tensors are compared as they are."""


class Folded(NamedTuple):
    """The logical tensor, the names of the stored ones it is made of, and perhaps (code, message) of what is odd about it."""

    entry: TensorEntry
    consumed: tuple[str, ...]
    remark: tuple[str, str] | None = None


class Settings(NamedTuple):
    """What lies beside the weights: `method` and `values` of the quantization configuration, the checkpoint's metadata."""

    method: str = ""
    values: Mapping[str, object] = {}
    metadata: Mapping[str, str] = {}

    def integer(self, key: str) -> int | None:
        """A whole number of the configuration, or None."""
        value = self.values.get(key)
        return value if type(value) is int else None

    def text(self, key: str) -> str:
        """A string of the configuration, or ""."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


class Found(NamedTuple):
    """A stored tensor whose name ends as those of a family do: `stem` is its name without that ending."""

    stem: str
    trigger: str
    tensors: Mapping[str, TensorEntry]
    settings: Settings

    @property
    def name(self) -> str:
        """The name of the stored tensor itself."""
        return self.stem + self.trigger

    def get(self, suffix: str) -> TensorEntry | None:
        """The stored tensor of the same stem with another ending, or None."""
        return self.tensors.get(self.stem + suffix)

    def need(self, suffix: str, *encodings: str) -> TensorEntry:
        """The same, of one of these encodings. Raises Refused when it is missing or of another."""
        entry = self.get(suffix)
        if entry is None:
            raise Refused(f"{self.stem + suffix!r} is missing")
        if encodings and entry.encoding not in encodings:
            raise Refused(f"{entry.name!r} is {entry.encoding}, not {' or '.join(encodings)}")
        return entry

    def optional(self, suffix: str, *encodings: str) -> TensorEntry | None:
        """The same for a tensor that may be missing."""
        return self.need(suffix, *encodings) if self.get(suffix) is not None else None


def component(entry: TensorEntry, shape: tuple[int, ...] | None = None, strides: tuple[int, ...] | None = None) -> Component:
    """The stored array of a plain entry, seen as another shape of as many elements, or along other strides."""
    stored = entry.components["data"]
    if stored.strides is not None:
        raise Refused(f"{entry.name!r} is stored with strides")
    if shape is None:
        return stored
    if prod(shape) != entry.numel:
        raise Refused(f"{entry.name!r} of shape {list(entry.shape)} does not hold {list(shape)} numbers")
    return stored._replace(shape=shape, strides=strides)


def expect(entry: TensorEntry, *shape: int) -> None:
    """Raise Refused unless a stored tensor has this shape."""
    if entry.shape != shape:
        raise Refused(f"{entry.name!r} has shape {list(entry.shape)}, {list(shape)} is needed")


def stored_bytes(entry: TensorEntry, limit: int = MAX_READ_NBYTES) -> bytes:
    """The first bytes of a small stored tensor. Raises Refused when they cannot be read as they lie."""
    from diffai_stream.storage.windows import read_window  # loads numpy

    parts, left = [], limit
    for extent in entry.components["data"].extents:
        if extent.codec:
            raise Refused(f"{entry.name!r} is compressed")
        taken = min(left, extent.nbytes)
        parts.append(read_window(extent, 0, taken, None, "pread").tobytes())
        left -= taken
    return b"".join(parts)


def logical(
    name: str, shape: tuple[int, ...], encoding: str, parts: Mapping[str, Component], parameters: Mapping[str, object]
) -> TensorEntry:
    """The entry of a folded weight; parameters become the strings of its metadata, those that are None are left out."""
    metadata = {key: _text(value) for key, value in parameters.items() if value is not None}
    return TensorEntry(name, shape, encoding, parts, metadata)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def words_needed(count: int, bits: int, dense: bool = True) -> int:
    """32-bit words that `count` codes take, packed densely or with as many whole codes a word as fit."""
    return -(-count * bits // 32) if dense else -(-count // (32 // bits))


def group_size(columns: int, groups: int, configured: int | None) -> int:
    """Columns of a group: what is configured when it gives that many groups, else an equal share. Raises Refused."""
    if groups == 1:
        return max(columns, 1)
    if configured is not None and configured > 0 and -(-columns // configured) == groups:
        return configured
    if groups and columns % groups == 0:
        return columns // groups
    raise Refused(f"{groups} groups do not divide {columns} columns")
