"""Any range of any strided view equals what NumPy's own views give, and little more than it is fetched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.plan import gather
from diffai_stream.plan.gather import Layout, gathered, simplified

STORED = 4096


@st.composite
def layouts(draw) -> Layout:
    """Views of up to four axes over STORED elements, overlapping and repeating ones among them."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=0, max_size=4)))
    strides = tuple(draw(st.sampled_from((0, 1, 2, 3, 8, 64, 81))) for _ in shape)
    span = Layout(shape, strides, 0).span
    return Layout(shape, strides, draw(st.integers(0, max(0, STORED - span))))


def expected(stored: np.ndarray, layout: Layout) -> np.ndarray:
    strides = tuple(stride * stored.itemsize for stride in layout.strides)
    return np.lib.stride_tricks.as_strided(stored[layout.start :], layout.shape, strides).reshape(-1)


@settings(deadline=None)
@given(layouts(), st.data(), st.sampled_from(["u1", "u2", "f4", "f8", "c16"]), st.sampled_from([1, 40, 1 << 20]))
def test_a_range_is_what_numpy_gives(layout, data, dtype, group):
    stored = np.arange(STORED).astype(dtype)
    values = expected(stored, layout)
    start = data.draw(st.integers(0, values.size))
    stop = data.draw(st.integers(start, values.size))

    def fetch(first: int, last: int) -> np.ndarray:
        assert 0 <= first < last <= STORED
        return stored[first:last].view(np.uint8)

    before, gather.GROUP_NUMEL = gather.GROUP_NUMEL, group
    try:
        raw = gathered(layout, start, stop, fetch, stored.itemsize)
    finally:
        gather.GROUP_NUMEL = before
    assert raw.tobytes() == values[start:stop].tobytes()


@given(layouts())
def test_a_simplified_view_has_the_same_elements(layout):
    stored = np.arange(STORED)
    assert expected(stored, layout).tolist() == expected(stored, simplified(layout)).tolist()


@pytest.mark.parametrize(("rows", "columns"), [(3000, 2000), (10, 600_000), (600_000, 10)])
def test_a_transpose_is_fetched_in_bounded_pieces(rows, columns):
    """Rows [a, b) of the transpose of rows x columns."""
    stored = np.arange(rows * columns, dtype=np.uint32)
    largest = 0

    def fetch(first: int, last: int) -> np.ndarray:
        nonlocal largest
        largest = max(largest, last - first)
        return stored[first:last].view(np.uint8)

    start, stop = columns // 3 * rows, (columns // 3 + max(2, columns // 20)) * rows
    raw = gathered(Layout((columns, rows), (1, columns), 0), start, stop, fetch, 4)
    assert np.array_equal(raw.view(np.uint32), stored.reshape(rows, columns).T.reshape(-1)[start:stop])
    assert largest <= max(gather.GROUP_NUMEL, gather.SPREAD * (stop - start)) + columns


def test_two_partial_rows_are_not_fetched_whole():
    fetched = []

    def fetch(first: int, last: int) -> np.ndarray:
        fetched.append(last - first)
        return np.arange(first, last, dtype=np.uint16).view(np.uint8)

    layout = Layout((4, 5000), (6000, 1), 0)
    raw = gathered(layout, 4990, 5010, fetch, 2)
    assert raw.view(np.uint16).tolist() == [*range(4990, 5000), *range(6000, 6010)]
    assert fetched == [10, 10]
