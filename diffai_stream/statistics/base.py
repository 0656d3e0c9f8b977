"""What a statistic is: numbers to a mergeable state.

The statistics that every comparison needs (moments, extrema, counts, agreement, key histograms) live together in one
state row and are filled by one loop (`scanner.py`). The others implement `Statistic`: they see decoded tiles, in order,
and keep a state of their own. Frozen dataclasses: equal statistics are computed once, whoever asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Encoding
from diffai_stream.encodings.decode import decoded
from diffai_stream.statistics.layout import View

if TYPE_CHECKING:
    from diffai_stream.encodings.inspection import Inspection

S = TypeVar("S")
Floats = NDArray[np.float32] | NDArray[np.float64]


class Stored(Protocol):
    """A side as it is stored."""

    def inspect(self) -> Inspection | None:
        """Its codes and scales; None where it has none, or only a part of it is compared. Raises CheckpointError."""


class Keyed(Protocol):
    """Counted patterns, or pairs of 8-bit codes with new in the high byte: uint16 `keys`, each once, and int64 `counts`."""

    @property
    def keys(self) -> NDArray[np.uint16]: ...  # noqa: D102

    @property
    def counts(self) -> NDArray[np.int64]: ...  # noqa: D102


@dataclass(frozen=True)
class Tile:
    """A run of whole leaves of a pair: raw bytes of both sides (one side twice when alone), decoded when they are asked for.

    `first` is the flat index of the first element, `shape` that of the tensor (complex: one more axis of 2). `stored` are
    what the numbers were read from, where codes and scales can be looked at by themselves.
    """

    raw_old: NDArray[np.uint8]
    raw_new: NDArray[np.uint8]
    encoding_old: Encoding
    encoding_new: Encoding
    first: int
    shape: tuple[int, ...]
    stored: tuple[Stored | None, Stored | None] = (None, None)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.raw_old.size // self.encoding_old.itemsize

    @cached_property
    def old(self) -> Floats:
        """Values of the old side."""
        return values_of(self.raw_old, self.encoding_old, self.numel)

    @cached_property
    def new(self) -> Floats:
        """Values of the new side; those of the old one when they are the same."""
        return self.old if self.is_alone else values_of(self.raw_new, self.encoding_new, self.numel)

    @property
    def is_alone(self) -> bool:
        """Whether both sides are one."""
        return self.raw_old is self.raw_new

    def rows(self, chosen: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """[k, columns] of old and new: the chosen rows of the tile, whose rows are whole; the others are not decoded."""
        columns = self.shape[-1]
        sides = ((self.raw_old, self.encoding_old), (self.raw_new, self.encoding_new))
        picked = [raw.reshape(-1, columns * encoding.itemsize)[chosen].reshape(-1) for raw, encoding in sides]
        found = [values_of(raw, side[1], len(chosen) * columns) for raw, side in zip(picked, sides, strict=True)]
        return found[0].reshape(-1, columns), found[1].reshape(-1, columns)


class Side(NamedTuple):
    """What a kernel reads a side from: the bytes of 16-bit floats, which it decodes on the way, else decoded values."""

    raw: NDArray[np.uint8]
    values: Floats
    kind: int


_DECODED_ON_THE_WAY = (DecodeKind.BF16, DecodeKind.F16)
_NO_BYTES: NDArray[np.uint8] = np.empty(0, np.uint8)


def values_of(raw: NDArray[np.uint8], encoding: Encoding, numel: int) -> Floats:
    """The numbers in raw bytes, in the encoding's tile type; float32 as they lie."""
    return raw.view(np.float32) if encoding.kind == DecodeKind.F32 else decoded(raw, encoding, numel)


def sides_of(tile: Tile, *views: View) -> list[Side]:
    """These sides for a kernel, all in the wider type that one of them needs."""
    stored = [(tile.raw_old, tile.encoding_old, "old"), (tile.raw_new, tile.encoding_new, "new")]
    chosen = [stored[view] for view in views]
    if any(encoding.tile_dtype is np.float64 for _, encoding, _ in chosen):
        with np.errstate(invalid="ignore"):  # widening a signalling NaN
            return [Side(_NO_BYTES, getattr(tile, name).astype(np.float64, copy=False), -1) for _, _, name in chosen]
    return [
        Side(raw, np.empty(0, np.float32), int(encoding.kind))
        if encoding.kind in _DECODED_ON_THE_WAY
        else Side(_NO_BYTES, getattr(tile, name), -1)
        for raw, encoding, name in chosen
    ]


def same_type(tile: Tile) -> tuple[Floats, Floats]:
    """Both sides of a tile in the wider type of the two."""
    dtype = np.result_type(tile.old, tile.new)
    with np.errstate(invalid="ignore"):  # widening a signalling NaN
        return tile.old.astype(dtype, copy=False), tile.new.astype(dtype, copy=False)


@dataclass(frozen=True)
class Statistic(ABC, Generic[S]):
    """A mergeable computation over the tiles of a tensor.

    Laws, held by `testing.StatisticLaws`: `empty` is neutral; `merge` is associative over neighbouring parts; any cut
    into whole leaves gives the same finalized columns, bit for bit.
    """

    view: View

    @property
    def positional(self) -> bool:
        """Whether it needs to know where an element is (rows, order of bytes)."""
        return False

    @property
    def kept(self) -> bool:
        """Whether its columns are kept until the end of the run, for analyses of the whole model; they must be small."""
        return False

    @property
    def uses_blas(self) -> bool:
        """Whether it multiplies matrices with a library that starts threads of its own unless it is kept from it."""
        return False

    def result_nbytes(self, shape: tuple[int, ...], numel: int) -> int:
        """Bytes of the state of a part of `numel` elements of a tensor of this shape, where that is more than a few KB."""
        return 0

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Why it cannot be computed for a tensor of this shape, or None."""
        return None

    @abstractmethod
    def empty(self) -> S:
        """The neutral state."""

    @abstractmethod
    def update(self, state: S, tile: Tile) -> S:
        """Take in the next tile; the state may be changed in place."""

    def of_runs(self, runs: tuple[Keyed, Keyed], encodings: tuple[Encoding, Encoding], shape: tuple[int, ...]) -> S | None:
        """The state of elements whose patterns the scan has counted on both sides; None where the tiles have to be seen.

        Both runs are empty where nothing was counted.
        """
        return None

    def of_pairs(self, pairs: Keyed, encodings: tuple[Encoding, Encoding]) -> S | None:
        """The state of elements whose pairs of 8-bit codes are counted; None where the tiles have to be seen."""
        return None

    @abstractmethod
    def merge(self, left: S, right: S) -> S:
        """The state of two neighbouring parts, `left` being the earlier one."""

    @abstractmethod
    def finalize(self, state: S) -> dict[str, Any]:
        """Columns of a finished tensor: small arrays and numbers, never tensor data."""


@dataclass(frozen=True)
class OneSided(Statistic[S]):
    """A statistic of the old or of the new side; ValueError for another view."""

    def __post_init__(self) -> None:
        if self.view not in (View.OLD, View.NEW):
            raise ValueError(f"{type(self).__name__} is of the old or the new side, not of {self.view.name}")
