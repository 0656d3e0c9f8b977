"""The rank of a change from a few of its rows."""

import numpy as np
import pytest

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.base import Tile
from diffai_stream.statistics.delta_rows import ROWS, DeltaRows, rank_of
from diffai_stream.statistics.row_choice import chosen_rows
from diffai_stream.testing.statistics import StatisticLaws


class TestDeltaRowsLaws(StatisticLaws):
    statistics = (DeltaRows(),)


def test_rows_are_chosen_by_the_shape_alone():
    assert chosen_rows(10, 64).tolist() == list(range(10))
    assert chosen_rows(10_000, 64).size == 64
    assert (np.diff(chosen_rows(10_000, 64)) > 0).all()


@pytest.mark.parametrize(
    ("values", "rank"), [([9, 8, 7, 0.1, 0.09], 3), ([1, 0, 0], 1), ([9, 8, 7, 6], None), ([], None), ([0.0, 0.0], None)]
)
def test_the_first_gap(values, rank):
    assert rank_of(np.array(values, float)) == rank


def test_singular_values_are_those_of_the_chosen_rows():
    random = np.random.default_rng(0)
    old, new = random.normal(size=(2, 300, 70)).astype(np.float32)
    encoding = ENCODINGS["F32"]
    raw = [side.reshape(-1).view(np.uint8) for side in (old, new)]
    tile = Tile(raw[0], raw[1], encoding, encoding, 0, (300, 70))
    statistic = DeltaRows()
    found = statistic.finalize(statistic.update(statistic.empty(), tile))
    rows = (new.astype(float) - old)[chosen_rows(300, ROWS)]
    assert found["singular_values"] == pytest.approx(np.linalg.svd(rows, compute_uv=False), rel=1e-6)
    assert found["rank"] is None
