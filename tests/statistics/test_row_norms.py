"""Norms of rows against float64, and what has none."""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.row_norms import MIN_COLUMNS, RowNorms
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles


class TestRowNormsLaws(StatisticLaws):
    statistics = (RowNorms(View.OLD), RowNorms(View.NEW))
    shapes = ((0, 4), (8, 0), (5, MIN_COLUMNS), (3, 2, 5000), (2, 70_000), (24, 12), (7,), ())


def norms_of(old, new, view=View.OLD):
    encoding, statistic = ENCODINGS["F32"], RowNorms(view)
    raw = [side.reshape(-1).view(np.uint8) for side in (old, new)]
    return statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(*raw, (encoding, encoding), old.shape)))["row_norms"]


@pytest.mark.parametrize("shape", [(40, MIN_COLUMNS), (2, 70_000), (3, 2, 5000)])
def test_against_float64(shape):
    old, new = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    for view, side in ((View.OLD, old), (View.NEW, new)):
        expected = np.linalg.norm(side.reshape(-1, shape[-1]).astype(float), axis=1)
        found = norms_of(old, new, view)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_short_rows_and_vectors_have_none_and_say_nothing():
    for shape in ((8, MIN_COLUMNS - 1), (MIN_COLUMNS,), ()):
        side = np.ones(shape, np.float32)
        assert norms_of(side, side).size == 0
        assert RowNorms().skip_reason(shape) is None


def test_a_row_without_a_finite_element_has_no_norm():
    side = np.ones((3, MIN_COLUMNS), np.float32)
    side[1], side[2, 0] = np.nan, np.inf
    found = norms_of(side, side)
    assert found[0] == np.float32(np.sqrt(MIN_COLUMNS))
    assert np.isnan(found[1])
    assert found[2] == np.float32(np.sqrt(MIN_COLUMNS - 1))
