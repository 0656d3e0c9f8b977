"""Tensors put together from boxes, against NumPy."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.errors import ChangedFileError
from diffai_stream.storage.boxes import Box, boxed, read_extent
from diffai_stream.storage.extent import FileStamp


def cut(length: int, cuts: list[int]) -> list[tuple[int, int]]:
    """(origin, size) of the pieces of an axis."""
    edges = sorted({0, length, *(place % (length + 1) for place in cuts)})
    return [(a, b - a) for a, b in pairwise(edges)] or [(0, 0)]


def write(folder: Path, values: np.ndarray, cuts: list[list[int]], file_count: int):
    """The boxes of an array in some files, and the extent of the whole."""
    grids = [cut(length, places) for length, places in zip(values.shape, cuts, strict=True)]
    contents, placed = [bytearray(b"head") for _ in range(file_count)], []
    for number, index in enumerate(np.ndindex(*[len(grid) for grid in grids])):
        origin = tuple(grid[i][0] for grid, i in zip(grids, index, strict=True))
        sizes = tuple(grid[i][1] for grid, i in zip(grids, index, strict=True))
        piece = values[tuple(slice(o, o + s) for o, s in zip(origin, sizes, strict=True))]
        content = contents[number % file_count]
        placed.append(Box(number % file_count, len(content), origin, sizes))
        content += piece.tobytes()
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)
    stamps = [FileStamp.of(str(folder / str(number))) for number in range(file_count)]
    return boxed(values.itemsize, values.shape, placed, stamps)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_range_of_any_boxes(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=0, max_size=4)))
    dtype = data.draw(st.sampled_from(["u1", "<u2", "<f4", "<f8", "<c16"]))
    values = np.arange(prod(shape), dtype=np.int64).astype(dtype).reshape(shape)
    cuts = [data.draw(st.lists(st.integers(0, 6), max_size=2)) for _ in shape]
    raw = values.tobytes()
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))
    with tempfile.TemporaryDirectory() as folder:
        extent = write(Path(folder), values, cuts, data.draw(st.integers(1, 3)))
        assert extent.nbytes == len(raw)
        assert read_extent(extent, start, stop).tobytes() == raw[start:stop]


def test_a_file_that_changed_is_told(tmp_path):
    extent = write(tmp_path, np.arange(12.0).reshape(3, 4), [[], [2]], 2)
    (tmp_path / "1").write_bytes(b"x" * 200)
    with pytest.raises(ChangedFileError):
        read_extent(extent, 0, 96)
