"""Bands: whole chunks, decoded once, any range of them."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import pytest

from diffai_stream.storage import bands
from diffai_stream.storage.bands import Bands, Grid, cut_of, read_range
from diffai_stream.storage.extent import Extent

EXTENT = Extent("x", 0, 0)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(bands, "BANDS", Bands())


class Array:
    """An array that notes which boxes are asked of it."""

    def __init__(self, shape, dtype="f4"):
        self.values = np.arange(prod(shape), dtype=dtype).reshape(shape)
        self.asked: list = []

    def fetch(self, ranges):
        self.asked.append(ranges)
        return self.values[tuple(slice(*ends) for ends in ranges)]

    def read(self, chunk, start, stop, key="k"):
        grid = Grid(self.values.shape, chunk, self.values.itemsize)
        return read_range(grid, key, EXTENT, start, stop, self.fetch)


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [
        *[((), ()), ((1,), (1,)), ((1000,), (7,)), ((30, 40), (8, 9)), ((30, 40), (30, 1)), ((3, 4, 50, 6), (1, 1, 8, 6))],
        *[((1, 30, 40), (1, 7, 40)), ((5, 6, 7), (2, 6, 7)), ((5, 6, 7), (5, 6, 7)), ((64, 3), (100, 3))],
    ],
)
@pytest.mark.parametrize("band_nbytes", [1, 300, 1 << 20])
def test_any_range(shape, chunk, band_nbytes, monkeypatch):
    monkeypatch.setattr(bands, "BAND_NBYTES", band_nbytes)
    array, draw = Array(shape), random.Random(5)
    raw = array.values.tobytes()
    cuts = [(0, len(raw)), *(sorted((draw.randrange(len(raw) + 1), draw.randrange(len(raw) + 1))) for _ in range(30))]
    for start, stop in cuts:
        assert array.read(chunk, start, stop).tobytes() == raw[start:stop]
    for ranges in array.asked:
        for (first, last), step, size in zip(ranges, chunk, shape, strict=True):
            assert first % step == 0
            assert last % step == 0 or last == size


def test_slices_next_to_each_other_decode_a_band_once(monkeypatch):
    monkeypatch.setattr(bands, "BAND_NBYTES", 1)
    array = Array((64, 100))
    for start in range(0, 25600, 1000):
        array.read((16, 30), start, min(start + 1000, 25600))
    assert [ranges[0] for ranges in array.asked] == [(0, 16), (16, 32), (32, 48), (48, 64)]


def test_threads_that_need_one_band_decode_it_once():
    array, gate = Array((64, 100)), threading.Barrier(4)

    def read(_):
        gate.wait()
        return array.read((64, 100), 0, 400).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, range(4))) == {array.values.tobytes()[:400]}
    assert len(array.asked) == 1


def test_few_bytes_are_kept(monkeypatch):
    monkeypatch.setattr(bands, "BAND_NBYTES", 1)
    monkeypatch.setattr(bands, "KEPT_NBYTES", 16 * 400 * 2)
    array = Array((64, 100))
    for start in (0, 16, 32, 0, 32):
        array.read((16, 100), start * 400, start * 400 + 4)
    assert [ranges[0][0] for ranges in array.asked] == [0, 16, 32, 0]
    assert sum(band.nbytes for band in bands.BANDS._kept.values()) <= 16 * 400 * 2


def test_a_band_larger_than_what_is_kept_goes_to_disk_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr(bands, "KEPT_NBYTES", 1000)
    array = Array((50, 40))
    raw = array.values.tobytes()
    for start in range(0, 8000, 700):
        assert array.read((50, 3), start, min(start + 700, 8000)).tobytes() == raw[start : start + 700]
    assert len(array.asked) == 14
    assert {ranges[0] for ranges in array.asked} == {(0, 50)}


def test_an_error_is_raised_again_the_next_time():
    def fetch(ranges):
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            read_range(Grid((4,), (4,), 4), "bad", EXTENT, 0, 4, fetch)


def test_small_chunks_are_decoded_many_at_a_time():
    assert cut_of(Grid((100_000, 8), (1, 8), 4)).rows == (1 << 20) // 32
    assert cut_of(Grid((4096, 4096), (256, 256), 4)).rows == 256
    assert cut_of(Grid((8, 4096, 4096), (1, 256, 256), 4)) == (1, 256, 4096)
