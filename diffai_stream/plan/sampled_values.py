"""Numbers of a few places of two entries, to tell whether one is the other in another layout before all of it is read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.decode import decoded
from diffai_stream.errors import DiffaiError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.plan.sources import Source, is_streamed
from diffai_stream.storage.extent import FileStamp

WINDOWS = 8
WINDOW_NUMEL = 512
CLIP = 4.0


class Sampler:
    """Reads the same places of two entries of one shape; a place is read once for every way of seeing an entry."""

    def __init__(self, stamps: Mapping[str, FileStamp]) -> None:
        self._stamps = stamps
        self._kept: tuple[TensorEntry, NDArray[np.float64]] | None = None  # what several views are compared with

    def distance(self, old: TensorEntry, new: TensorEntry) -> float | None:
        """Σ(new - old)² / Σold² over the samples: about 2 for unrelated tensors of one scale; None when it cannot be told.

        No element counts for more than four mean squares, so that a few planted or exploded ones do not hide a fit. Both shapes
        hold equally many elements; pairs with a number that is not finite are left out.
        """
        if is_streamed(old) or is_streamed(new):
            return None
        try:
            if self._kept is None or self._kept[0] is not old:
                self._kept = old, self._numbers(old)
            a, b = self._kept[1], self._numbers(new)
        except DiffaiError:
            return None
        with np.errstate(all="ignore"):
            keep = np.isfinite(a) & np.isfinite(b)
            squares = a[keep] ** 2
            if not squares.any():
                return None if keep.size and b[keep].any() else 0.0
            return float(np.minimum((b[keep] - a[keep]) ** 2, CLIP * squares.mean()).sum() / squares.sum())

    def _numbers(self, entry: TensorEntry) -> NDArray[np.float64]:
        source = Source(entry, self._stamps, "auto")
        parts: list[NDArray[Any]] = []
        for start, stop in windows(entry.numel):
            raw = source.read(start * source.stored.components, stop * source.stored.components)
            parts.append(decoded(raw, source.encoding, raw.size // source.encoding.itemsize))
        return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


def windows(numel: int) -> list[tuple[int, int]]:
    """Ranges of elements to look at, the same for every tensor of this size; all of it when that is little."""
    if numel <= WINDOWS * WINDOW_NUMEL:
        return [(0, numel)] if numel else []
    generator = random.Random(numel)
    starts = sorted(generator.randrange(numel - WINDOW_NUMEL + 1) for _ in range(WINDOWS))
    return [(start, start + WINDOW_NUMEL) for start in starts]
