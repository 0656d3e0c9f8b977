"""Sums over leaves do not depend on how the leaves were cut into runs, to the last bit."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffai_stream.statistics.tree import joined, leaves, total


@given(st.integers(0, 70), st.lists(st.integers(0, 70), max_size=6), st.integers(0, 2**32 - 1))
def test_any_cut_gives_the_same_nodes(count, cuts, seed):
    rows = np.random.default_rng(seed).normal(size=(count, 3)) * 10.0 ** np.arange(count)[:, None]
    ends = sorted({0, count, *(cut for cut in cuts if cut < count)})
    parts = [joined((), leaves(a, rows[a:b])) for a, b in pairwise(ends)]
    nodes = ()
    for part in parts:
        nodes = joined(nodes, part)
    whole = joined((), leaves(0, rows))
    assert [(node.first, node.count) for node in nodes] == [(node.first, node.count) for node in whole]
    assert sum(node.count for node in nodes) == count
    assert len(nodes) == bin(count).count("1")
    empty = np.zeros(3)
    assert total(nodes, empty).tobytes() == total(whole, empty).tobytes()
    np.testing.assert_allclose(total(nodes, empty), rows.sum(0), rtol=1e-9, atol=1e-9 * abs(rows).sum())
