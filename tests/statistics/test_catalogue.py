"""The rows of the statistics are true: they open, have the columns they name, and the views they list."""

from __future__ import annotations

import pytest

from diffai_stream.statistics.catalogue import STATISTICS
from diffai_stream.statistics.layout import ROW_WIDTH, View

OWN = [row for row in STATISTICS.values() if not row.fused]
FUSED = [row for row in STATISTICS.values() if row.fused and row.name != "key_histogram"]


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.name)
def test_columns_and_views(row):
    for view in row.views:
        statistic = row.open(view)
        assert statistic.view == view
        assert tuple(sorted(statistic.finalize(statistic.empty()))) == tuple(sorted(row.columns))
    for view in set(View) - set(row.views):
        with pytest.raises(ValueError, match=f"own for {view.name}"):
            row.open(view)


def test_fused_rows_fill_the_state_row():
    assert sum(len(row.views) * len(row.columns) for row in FUSED) == ROW_WIDTH
    with pytest.raises(ValueError, match="moments"):
        STATISTICS["moments"].open(View.OLD)
