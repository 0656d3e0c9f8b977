"""Products of heads against float64, whatever the chunks."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.head_grams import HeadGrams
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles, same_columns


class TestHeadGramsLaws(StatisticLaws):
    statistics = (HeadGrams(size=8, axis=0), HeadGrams(size=4, axis=1), HeadGrams(size=12, axis=0))
    shapes = ((0, 4), (8, 0), (24, 12), (48, 9000), (120, 20_000), (600, 2048))


def grams_of(old: np.ndarray, new: np.ndarray, **layout: int) -> dict[str, np.ndarray]:
    encoding = ENCODINGS["F32" if old.dtype == np.float32 else "F64"]
    raw = [np.frombuffer(side.tobytes(), np.uint8) for side in (old, new)]
    statistic = HeadGrams(**layout)
    return statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(*raw, (encoding, encoding), old.shape)))


def expected_of(old: np.ndarray, new: np.ndarray, size: int, axis: int) -> dict[str, np.ndarray]:
    a, b = (side.astype(np.float64) if axis == 0 else side.astype(np.float64).T for side in (old, new))
    a, b = a.reshape(-1, size, a.shape[1]), b.reshape(-1, size, b.shape[1])
    return {"old": a @ a.transpose(0, 2, 1), "new": b @ b.transpose(0, 2, 1), "cross": a @ b.transpose(0, 2, 1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "size", "axis"), [((96, 700), 32, 0), ((1100, 96), 32, 1), ((64, 9000), 16, 0), ((7, 8), 2, 1)]
)
def test_against_float64(shape, size, axis, dtype):
    random = np.random.default_rng(prod(shape))
    old = random.normal(size=shape).astype(dtype)
    new = (old + 0.3 * random.normal(size=shape)).astype(dtype)
    found, expected = grams_of(old, new, size=size, axis=axis), expected_of(old, new, size, axis)
    for name, gram in expected.items():
        scale = np.sqrt(np.einsum("hii,hjj->hij", expected["old"], expected["new"]))
        assert (abs(found[name] - gram) <= (2e-6 if dtype == np.float32 else 1e-13) * 2 * scale).all(), name


@pytest.mark.parametrize("axis", [0, 1])
def test_equal_sides_have_equal_products(axis):
    values = np.random.default_rng(0).normal(size=(640, 64)).astype(np.float32)
    found = grams_of(values, values, size=32, axis=axis)
    assert same_columns(found["old"], found["new"])
    assert same_columns(found["old"], found["cross"])


def test_what_is_not_finite_counts_as_zero_on_both_sides():
    old = np.random.default_rng(0).normal(size=(16, 300)).astype(np.float32)
    new = old * np.float32(1.5)
    zeroed = [side.copy() for side in (old, new)]
    old[3, 5], new[9, 0] = np.nan, np.inf
    for side in zeroed:
        side[3, 5] = side[9, 0] = 0
    found, expected = grams_of(old, new, size=8, axis=0), expected_of(*zeroed, 8, 0)
    for name, gram in expected.items():
        np.testing.assert_allclose(found[name], gram, rtol=1e-5, atol=1e-3)


def test_squares_beyond_float32():
    old = np.full((4, 6), 1e25, np.float32)
    found = grams_of(old, -old, size=4, axis=0)
    np.testing.assert_allclose(found["cross"], -6e50, rtol=1e-6)


def test_skip_reasons():
    assert HeadGrams(size=8).skip_reason((16, 4)) is None
    assert "whole heads" in HeadGrams(size=8).skip_reason((12, 4))
    assert "whole heads" in HeadGrams(size=8, axis=1).skip_reason((16, 4))
    assert "axes" in HeadGrams().skip_reason((64,))
