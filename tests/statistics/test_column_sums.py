"""Column sums against float64 definitions, and the residual after the best scale of each column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.statistics.column_sums import ColumnField, ColumnSums, fitted_columns
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles
from tests.statistics.strategies import matrix_pairs


class TestColumnSumsLaws(StatisticLaws):
    statistics = (ColumnSums(),)
    shapes = ((0, 4), (4, 0), (5, 3), (300, 512), (70, 4097), (7, 32_768), (40, 20_000))


def columns_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    encoding = ENCODINGS["F32" if old.dtype == np.float32 else "F64"]
    raw = [np.frombuffer(side.tobytes(), np.uint8) for side in (old, new)]
    statistic = ColumnSums()
    return statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(*raw, (encoding, encoding), old.shape)))["columns"]


def expected_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    a, b = old.astype(np.float64), new.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    return np.array([(a * a).sum(0), (b * b).sum(0), (a * b).sum(0)])


@settings(deadline=None, max_examples=40)
@given(matrix_pairs())
def test_against_float64(pair):
    old, new, encodings, shape = pair
    if len(shape) != 2 or 0 in shape:
        return
    statistic = ColumnSums()
    found = statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(old, new, encodings, shape)))["columns"]
    with np.errstate(all="ignore"):
        values = [decoded(raw, e, shape[0] * shape[1]).reshape(shape) for raw, e in zip((old, new), encodings, strict=True)]
        expected = expected_of(*values)
        size = np.sqrt(expected[0] * expected[1])
        assert np.all(abs(found[ColumnField.DOT] - expected[ColumnField.DOT]) <= 1e-12 * size + 1e-300)
        np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("columns", [1, 7, 511, 512, 513, 4096, 32_768])
def test_columns_of_any_number(columns):
    rng = np.random.default_rng(columns)
    old = rng.standard_normal((67, columns)).astype(np.float32)
    new = (old * 1.01).astype(np.float32)
    np.testing.assert_allclose(columns_of(old, new), expected_of(old, new), rtol=1e-12)


def test_non_finite_elements_are_left_out_of_both_sides():
    old = np.ones((200, 3), np.float32)
    new = 2 * old
    old[3, 0], new[150, 0] = np.nan, -np.inf
    assert columns_of(old, new).tolist() == [[198, 200, 200], [792, 800, 800], [396, 400, 400]]


def test_the_best_scale_of_each_column_takes_out_its_factor():
    rng = np.random.default_rng(0)
    old = rng.standard_normal((500, 64))
    factors = rng.uniform(0.2, 3, 64)
    noise = rng.standard_normal((500, 64)) * 1e-3
    fitted = fitted_columns(columns_of(old, old * factors + noise))
    np.testing.assert_allclose(fitted.scales, factors, rtol=1e-3)
    assert fitted.residuals.sum() == pytest.approx((noise**2).sum(), rel=0.01)


def test_a_column_of_zeros_has_no_scale():
    old, new = np.zeros((4, 2)), np.array([[1.0, 0.0]] * 4)
    fitted = fitted_columns(columns_of(old, new))
    assert fitted.scales.tolist() == [0, 0]
    assert fitted.residuals.tolist() == [4, 0]


def test_skip_reasons():
    assert ColumnSums().skip_reason((4, 32_768)) is None
    assert "columns" in ColumnSums().skip_reason((4, 32_769))
    assert "axes" in ColumnSums().skip_reason((7,))
    assert "axes" in ColumnSums().skip_reason((7, 3, 3))
