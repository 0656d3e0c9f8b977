"""Pairs of 8-bit codes counted together: against float64, against the general road, and however a tensor is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.finishing import Wants
from diffai_stream.statistics.joint import JOINT_NUMEL, is_joint, scan_joint
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.scanner import Ask
from tests.statistics.fused import ALL, finished, pair_figures, pair_of, row_of, scan, scan_chunks
from tests.statistics.strategies import REAL, codes_of, cuts, frozen, pairs
from tests.statistics.test_fused import ALL_ASKS, check

BYTES = [name for name in REAL if ENCODINGS[name].pattern_bits == 8]
EIGHT = [name for name in BYTES if ENCODINGS[name].bits == 8]
ASKS = st.sampled_from(ALL_ASKS)
EVERYTHING = Wants(quantiles=True, distances=True, bins=True, codes=True)


def test_what_is_counted_by_pairs():
    assert is_joint(pair_of("I8", "F8_E5M2"), JOINT_NUMEL)
    assert not is_joint(pair_of("I8", "I8"), JOINT_NUMEL - 1)
    assert not is_joint(pair_of("I8", "BF16"), 10 * JOINT_NUMEL)
    assert not is_joint(pair_of("F32", "U8"), 10 * JOINT_NUMEL)


@settings(deadline=None, max_examples=60)
@given(pairs(names=BYTES), ASKS)
def test_any_pair_against_float64(pair, ask):
    check(*pair, ask, joint=True)


@pytest.mark.parametrize("other", EIGHT)
@pytest.mark.parametrize("name", EIGHT)
def test_every_pair_of_codes(name, other):
    old, new = (frozen(np.ascontiguousarray(side.reshape(-1))) for side in np.indices((256, 256), np.uint8))
    check(old, new, pair_of(name, other), joint=True)
    check(new, old, pair_of(name, other), ALL_ASKS[1], joint=True)


@pytest.mark.parametrize("numel", [0, 1, 2, 2047, 2048, 2049, 4096, 10_001])
@pytest.mark.parametrize("names", [("I8", "I8"), ("U8", "I8"), ("F8_E4M3", "F8_E4M3"), ("F4", "U2")])
def test_small_and_ragged_sizes(names, numel):
    encodings = pair_of(*names)
    old, new = (frozen(codes_of(e, numel, "any", seed)) for seed, e in enumerate(encodings))
    for ask in ALL_ASKS:
        check(old, new, encodings, ask, joint=True)
        check(old, old, encodings, ask, joint=True)


@settings(deadline=None, max_examples=40)
@given(pairs(names=BYTES, numels=st.integers(0, 12_000)), st.sampled_from([1, 37, 2048, 3001]), st.integers(0, 4), ASKS)
def test_chunks_change_no_bit(pair, leaf, power, ask):
    old, new, encodings = pair
    leaf = max(leaf, old.size // 40)
    wants = EVERYTHING if ask.histograms else Wants()
    whole = finished(scan(old, new, encodings, leaf, ask=ask, joint=True), encodings, ask, wants)
    chunks = scan_chunks(old, new, encodings, leaf, cuts(old.size, leaf, power), ask, joint=True)
    parts = finished(chunks, encodings, ask, wants)
    assert whole.rows.tobytes() == parts.rows.tobytes()
    for left, right in zip(whole.coarse, parts.coarse, strict=True):
        assert left.keys.tobytes() == right.keys.tobytes()
        assert left.counts.tobytes() == right.counts.tobytes()
    for name, column in whole.columns.items():
        assert column.tobytes() == parts.columns[name].tobytes(), name


@settings(deadline=None, max_examples=40)
@given(pairs(names=BYTES, numels=st.integers(1, 3000)))
def test_runs_are_those_of_the_general_road(pair):
    old, new, encodings = pair
    ours = finished(scan(old, new, encodings, joint=True), encodings, wants=ALL)
    general = finished(scan(old, new, encodings), encodings, wants=ALL)
    assert np.array_equal(ours.coarse_ends, general.coarse_ends)
    for left, right in zip(ours.coarse, general.coarse, strict=True):
        assert np.array_equal(left.keys, right.keys)
        assert np.array_equal(left.counts, right.counts)
    for name in ("quantiles", "distances", "bin_counts"):
        np.testing.assert_allclose(ours.columns[name][0], general.columns[name][0], rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(pairs(names=BYTES, numels=st.integers(0, 600)), st.sampled_from([0.0, 1e-3, 1.0]), st.sampled_from([0.0, 1e-2, 0.5]))
def test_tolerances(pair, absolute, relative):
    old, new, encodings = pair
    ask = Ask(absolute=absolute, relative=relative)
    ours, general = (pair_figures(row_of(old, new, encodings, ask, joint)) for joint in (True, False))
    assert (ours["changed"], ours["unequal"]) == (general["changed"], general["unequal"])


@pytest.mark.parametrize("few", [1, 7, 8, 9, 200])
def test_the_largest_change_is_the_first_in_order(few):
    """Whether the pairs with the largest change are looked for one by one or looked up, the first place counts."""
    old, new = np.zeros(20_000, np.int8), np.zeros(20_000, np.int8)
    places = np.arange(19_999, 0, -83)[:few]
    old[places] = np.arange(few) - 100
    new[places] = old[places] + np.where(np.arange(few) % 2, 9, -9)
    row = row_of(frozen(old), frozen(new), pair_of("I8", "I8"), joint=True)
    assert (pair_figures(row)["max_abs"], pair_figures(row)["max_index"]) == (9, places.min())
    later = scan(frozen(old), frozen(new), pair_of("I8", "I8"), first=5000, joint=True)
    assert pair_figures(later.rows[0])["max_index"] == 5000 + places.min()


def test_segments_of_one_call_do_not_mix():
    """Tables are clean after every segment, whatever the segment before left in them."""
    encodings = pair_of("F8_E4M3", "I8")
    old, new = (frozen(codes_of(e, 9000, "any", seed)) for seed, e in enumerate(encodings))
    cut = [(0, 4000), (4000, 4000), (4000, 4001), (4001, 9000)]
    segments = np.array([[start, start, stop - start, 2048, 0] for start, stop in cut], np.int64)
    together = finished(scan_joint(old, new, encodings, segments), encodings)
    for s, (start, stop) in enumerate(cut):
        alone = finished(scan(old[start:stop], new[start:stop], encodings, joint=True), encodings)
        assert together.rows[s].tobytes() == alone.rows[0].tobytes()
        piece = together.part(s, s + 1)
        assert [run.counts.tolist() for run in piece.coarse] == [run.counts.tolist() for run in alone.coarse]
        assert np.array_equal(piece.columns["quantiles"], alone.columns["quantiles"], equal_nan=True)


def test_a_side_alone():
    raw = frozen(codes_of(ENCODINGS["F8_E5M2"], 70_000, "any", 1))
    check(raw, raw, pair_of("F8_E5M2", "F8_E5M2"), joint=True)
    assert scan(raw, raw, pair_of("F8_E5M2", "F8_E5M2"), joint=True).run(0, int(View.PAIR)).counts.sum() == 70_000
