"""Some rows of a matrix, chosen by its shape alone: the same rows in every checkpoint, whatever the chunks."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.base import Floats, Tile


@lru_cache(maxsize=256)
def chosen_rows(rows: int, count: int) -> NDArray[np.int64]:
    """The numbers of `count` rows of so many, ascending; all of them where there are no more."""
    chosen = np.array(sorted(random.Random(rows).sample(range(rows), min(count, rows))), np.int64)
    chosen.setflags(write=False)
    return chosen


def chosen_of(tile: Tile, count: int) -> tuple[Floats, Floats] | None:
    """[k, columns] of old and new: the chosen rows that lie in a tile of a matrix; None when there are none."""
    columns = tile.shape[-1] if len(tile.shape) == 2 else 0
    if not columns or not tile.numel:
        return None
    first, rows = tile.first // columns, chosen_rows(tile.shape[0], count)
    here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + tile.numel // columns)]
    return tile.rows(here - first) if here.size else None
