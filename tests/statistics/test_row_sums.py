"""Row sums against float64 definitions, and what analyses make of them."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.row_sums import (
    MAX_ROWS,
    RowField,
    RowSums,
    dead_rows,
    fitted_scale_residual,
    row_norms,
    worst_row,
)
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles
from tests.statistics import oracles
from tests.statistics.strategies import matrix_pairs


class TestRowSumsLaws(StatisticLaws):
    statistics = (RowSums(),)


def rows_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    encoding = ENCODINGS["F32" if old.dtype == np.float32 else "F64"]
    raw = [np.frombuffer(side.tobytes(), np.uint8) for side in (old, new)]
    statistic = RowSums()
    return statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(*raw, (encoding, encoding), old.shape)))["rows"]


@settings(deadline=None, max_examples=60)
@given(matrix_pairs())
def test_against_float64(pair):
    old, new, encodings, shape = pair
    statistic = RowSums()
    tiles = leaf_tiles(old, new, encodings, shape)
    rows = statistic.finalize(StatisticLaws.state(statistic, tiles))["rows"]
    with np.errstate(all="ignore"):
        values = [
            decoded(raw, e, prod(shape)).astype(np.float64).reshape(-1, shape[-1])
            for raw, e in zip((old, new), encodings, strict=True)
        ]
        expected = np.array([oracles.row(a, b) for a, b in zip(*values, strict=True)]).reshape(-1, 9)
        size = np.sqrt(expected[:, RowField.OLD_SQUARES] * expected[:, RowField.NEW_SQUARES])  # a dot product may cancel
        assert np.all(abs(rows[:, RowField.DOT] - expected[:, RowField.DOT]) <= 1e-12 * size + 1e-300)
        rows[:, RowField.DOT] = expected[:, RowField.DOT]
        np.testing.assert_allclose(rows, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("columns", [1, 7, 64, 129, 32_768, 32_769, 70_001])
def test_rows_of_any_length(columns):
    rng = np.random.default_rng(columns)
    old = rng.standard_normal((3, columns)).astype(np.float32)
    new = (old * 1.01).astype(np.float32)
    expected = [oracles.row(a, b) for a, b in zip(old.astype(np.float64), new.astype(np.float64), strict=True)]
    np.testing.assert_allclose(rows_of(old, new), expected, rtol=1e-12)


def test_non_finite_elements_are_left_out_of_both_sides():
    old = np.ones((2, 200), np.float32)
    new = 2 * old
    old[0, 3], new[0, 150] = np.nan, -np.inf
    rows = rows_of(old, new)
    assert rows[:, RowField.N].tolist() == [198, 200]
    assert rows[:, RowField.NEW_SQUARES].tolist() == [4 * 198, 800]
    assert rows[:, RowField.NEW_ABS_MAX].tolist() == [2, 2]


def test_skip_reasons():
    assert RowSums().skip_reason((4, 4)) is None
    assert "axes" in RowSums().skip_reason((7,))
    assert RowSums().skip_reason((MAX_ROWS, 1)) is None
    assert "1,048,577" in RowSums().skip_reason((MAX_ROWS + 1, 1))


def test_worst_row():
    old = np.array([[3, 4], [0, 0], [1, 0]], np.float32)
    new = np.array([[3, 5], [9, 9], [1, 0.5]], np.float32)
    assert worst_row(rows_of(old, new)) == (2, 0.5)
    assert worst_row(rows_of(old[1:2], new[1:2])) is None
    assert worst_row(np.zeros((0, 9))) is None


def test_fitted_scale_brings_codes_back():
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (4, 300)).astype(np.float32)
    codes[3] = 0
    scales = np.array([0.5, 0.01, 3.0, 1.0])
    old = (codes * scales[:, None]).astype(np.float32)
    noisy = old + rng.standard_normal(old.shape).astype(np.float32) * 1e-3
    fitted = fitted_scale_residual(rows_of(noisy, codes))
    np.testing.assert_allclose(fitted.scales[:3], scales[:3], rtol=1e-3)
    left = noisy.astype(np.float64) - fitted.scales[:, None] * codes
    squares = (noisy.astype(np.float64) ** 2).sum(axis=1)
    assert np.all(abs(fitted.residuals - (left * left).sum(axis=1)) <= 1e-13 * squares)
    assert fitted.scales[3] == 0


def test_dead_rows():
    old = np.ones((5, 8), np.float32)
    old[1], old[3], old[4] = 0, 1e-7, np.nan
    new = np.ones_like(old)
    rows = rows_of(old, new)
    assert dead_rows(row_norms(rows, View.OLD)).tolist() == [1, 3]
    assert dead_rows(row_norms(rows, View.NEW)).tolist() == []
    assert dead_rows(row_norms(np.zeros((0, 9)), View.OLD)).tolist() == []
