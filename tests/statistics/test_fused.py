"""The fused scan against float64 definitions, and against itself however a tensor is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.scanner import Ask, domain_of
from tests.statistics import oracles
from tests.statistics.fused import DEFAULT, finished, pair_figures, pair_of, row_of, scan, scan_chunks, side_of
from tests.statistics.strategies import REAL, codes_of, cuts, frozen, pairs

EXACT = ("n", "min", "max", "zero", "nan", "posinf", "neginf")
ALL_ASKS = (Ask(), Ask(histograms=False), Ask(histograms=False, fourth=False))
ASKS = st.sampled_from(ALL_ASKS)


def check_side(found: dict, expected: dict, edge: float = 0.0, fourth: bool = True) -> None:
    """The accuracy bars of records.md; `edge` relative for the extrema of a delta; `fourth` when higher moments are asked."""
    for name in EXACT:
        tolerance = edge * abs(expected[name]) if name in ("min", "max") and math.isfinite(expected[name]) else 0
        assert abs(found[name] - expected[name]) <= tolerance if tolerance else found[name] == expected[name], name
    n, rms = expected["n"], expected["rms"]
    assert abs(found["mean"] - expected["mean"]) <= 1e-6 * rms, "mean"
    deviation = [math.sqrt(side["m2"] / n) if n else 0.0 for side in (found, expected)]
    assert abs(deviation[0] - deviation[1]) <= 1e-6 * deviation[1] + 1e-9 * rms, "std"
    squares = [side["m2"] + n * side["mean"] ** 2 for side in (found, expected)]
    assert abs(squares[0] - squares[1]) <= 1e-6 * n * rms * rms, "sum of squares"
    noise = n * (1e-9 * rms) ** 3
    if not fourth:
        return
    assert abs(found["m3"] - expected["m3"]) <= 1e-5 * expected["cubes"] + noise, "m3"
    assert abs(found["m4"] - expected["m4"]) <= 1e-5 * expected["m4"] + noise * 1e-9 * rms, "m4"


def check_pair(found: dict, old: np.ndarray, new: np.ndarray, differs: np.ndarray) -> None:
    expected = oracles.pair(old, new)
    assert found["changed"] == found["unequal"] == differs.sum()
    assert found["flips"] == expected["flips"]
    for name in ("old_squares", "new_squares", "abs_sum"):
        assert abs(found[name] - expected[name]) <= 1e-6 * expected[name], name
    both = math.sqrt(expected["old_squares"]) * math.sqrt(expected["new_squares"])
    assert abs(found["dot"] - expected["dot"]) <= 1e-6 * both
    assert found["max_abs"] == pytest.approx(expected["max_abs"], rel=1e-7, abs=0)
    if expected["max_index"] < 0:
        assert found["max_index"] == -1
        return
    with np.errstate(invalid="ignore"):
        distance = abs(new - old)
    distance[~np.isfinite(old) | ~np.isfinite(new)] = -1
    index = int(found["max_index"])
    assert distance[index] >= expected["max_abs"] * (1 - 2e-7)
    assert np.all(distance[:index] <= distance[index] * (1 + 2e-7))


def check(old: np.ndarray, new: np.ndarray, encodings, ask: Ask = DEFAULT, joint: bool = False) -> None:
    row = row_of(old, new, encodings, ask, joint)
    with np.errstate(all="ignore"):
        a, b = oracles.numbers(old, encodings[0]), oracles.numbers(new, encodings[1])
        check_side(side_of(row, View.OLD), oracles.side(a), fourth=ask.fourth)
        check_side(side_of(row, View.NEW), oracles.side(b), fourth=ask.fourth)
        delta = b - a
        check_side(side_of(row, View.DELTA), oracles.side(delta), edge=1e-7, fourth=ask.fourth)
        check_pair(pair_figures(row), a, b, oracles.unequal(old, new, encodings))


@settings(deadline=None, max_examples=60)
@given(pairs(), ASKS)
def test_any_pair_of_encodings(pair, ask):
    check(*pair, ask)


@pytest.mark.parametrize("mode", ["any", "usual", "few", "constant", "zeros"])
@pytest.mark.parametrize("name", REAL)
def test_every_encoding_with_itself(name, mode):
    encodings = pair_of(name, name)
    old, new = (frozen(codes_of(encodings[0], 5000, mode, seed)) for seed in (1, 2))
    check(old, new, encodings)
    check(old, old, encodings)


@pytest.mark.parametrize("other", REAL)
@pytest.mark.parametrize("name", REAL)
def test_every_pair_of_encodings_once(name, other):
    encodings = pair_of(name, other)
    check(*(frozen(codes_of(e, 300, "few", seed)) for seed, e in enumerate(encodings)), encodings)


@pytest.mark.parametrize("names", [("U8", "I8"), ("F8_E4M3", "F8_E5M2"), ("BOOL", "U8"), ("I8", "F8_E4M3FNUZ")])
def test_equal_bytes_of_different_encodings(names):
    raw = frozen(np.arange(256, dtype=np.uint8).repeat(3))
    check(raw, raw, pair_of(*names))


SHAPES_OF_VALUES = {
    "tiny": lambda x: x * 1e-30,
    "huge": lambda x: x * 1e30,
    "offset": lambda x: 1000 + x * 0.01,
    "large offset": lambda x: 1e6 + x,
    "subnormal": lambda x: x * 1e-40,
    "mixed scales": lambda x: x * 10.0 ** (np.arange(x.size) % 60 - 30),
    "one large": lambda x: np.where(np.arange(x.size) == 4321, 1e25, x),
    "ends": lambda x: np.sign(x) * np.finfo(np.float32).max,
}


@pytest.mark.parametrize("shape", SHAPES_OF_VALUES)
@pytest.mark.parametrize("names", [("F32", "F32"), ("F64", "F64"), ("F32", "BF16"), ("F64", "F32")])
def test_values_that_break_sums(shape, names):
    rng = np.random.default_rng(0)
    base = rng.standard_normal(70_000)
    sides = [SHAPES_OF_VALUES[shape](x) for x in (base, base + 1e-3 * rng.standard_normal(base.size))]
    with np.errstate(over="ignore"):
        raw = [frozen(x.astype(oracles.DTYPES[name])) for x, name in zip(sides, names, strict=True)]
    for ask in ALL_ASKS:
        check(*raw, pair_of(*names), ask)


@pytest.mark.parametrize("numel", [0, 1, 2, 63, 64, 65, 2047, 2048, 2049])
@pytest.mark.parametrize("name", ["F32", "BF16", "F64", "F8_E4M3", "I64"])
def test_small_and_ragged_sizes(name, numel):
    encodings = pair_of(name, name)
    old, new = (frozen(codes_of(encodings[0], numel, "usual", seed)) for seed in (1, 2))
    for ask in ALL_ASKS:
        check(old, new, encodings, ask)
        check(old, old, encodings, ask)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.0])
@pytest.mark.parametrize("other", [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
@pytest.mark.parametrize("name", ["F32", "BF16", "F64"])
def test_values_that_are_not_numbers(value, other, name):
    old, new = (frozen(np.full(100, x).astype(oracles.DTYPES[name])) for x in (value, other))
    check(old, new, pair_of(name, name))
    check(old, frozen(np.full(100, other)), pair_of(name, "F64"))


def test_counts_and_extrema_of_any_double():
    raw = frozen(np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64))
    with np.errstate(all="ignore"):
        values = raw.view(np.float64)
        finite = values[np.isfinite(values)]
    expected = {"min": finite.min(), "max": finite.max(), "n": finite.size, "zero": 0}
    expected |= {"nan": np.isnan(values).sum(), "posinf": (values == np.inf).sum(), "neginf": (values == -np.inf).sum()}
    found = side_of(row_of(raw, frozen(raw[::-1].copy()), pair_of("F64", "F64")), View.OLD)
    assert [found[name] for name in EXACT] == [expected[name] for name in EXACT]


def test_integers_beyond_the_doubles():
    old = np.array([2**53, 2**53 + 2, -(2**62), 7], np.int64)
    new = np.array([2**53 + 1, 2**53 + 2, -(2**62) + 1, 7], np.int64)
    found = pair_figures(row_of(frozen(old), frozen(new), pair_of("I64", "I64")))
    assert (found["changed"], found["max_abs"], found["max_index"]) == (2, 0, -1)
    unsigned = np.array([2**64 - 1, 2**63], np.uint64)
    found = pair_figures(row_of(frozen(unsigned), frozen(unsigned.view(np.int64)), pair_of("U64", "I64")))
    assert found["changed"] == 2


def test_largest_change_is_the_first_in_order():
    old, new = np.zeros(10_000, np.float32), np.zeros(10_000, np.float32)
    new[[30, 5000, 9999]] = [-2, 2, -2]
    assert pair_figures(row_of(frozen(old), frozen(new), pair_of("F32", "F32")))["max_index"] == 30
    part = scan(frozen(old[:100]), frozen(new[:100]), pair_of("F32", "F32"), first=7000)
    assert pair_figures(part.rows[0])["max_index"] == 7030


@settings(deadline=None, max_examples=40)
@given(pairs(numels=st.integers(0, 12_000)), st.sampled_from([1, 37, 1000, 2048, 3001]), st.integers(0, 4), ASKS)
def test_chunks_change_no_bit(pair, leaf, power, ask):
    old, new, encodings = pair
    numel = old.size // encodings[0].itemsize
    leaf = max(leaf, numel // 40)
    whole = finished(scan(old, new, encodings, leaf, ask=ask), encodings, ask)
    parts = finished(scan_chunks(old, new, encodings, leaf, cuts(numel, leaf, power), ask), encodings, ask)
    assert whole.rows.tobytes() == parts.rows.tobytes()
    assert [array.tobytes() for runs in whole.coarse for array in runs] == [a.tobytes() for runs in parts.coarse for a in runs]
    for name in ("quantiles", "distances") if ask.histograms else ():
        assert whole.columns[name].tobytes() == parts.columns[name].tobytes(), name


def test_chunks_of_a_tensor_with_tables_searched_whole():
    encodings = pair_of("BF16", "F32")
    old, new = (frozen(codes_of(e, 300_000, "usual", seed)) for seed, e in enumerate(encodings))
    whole = scan(old, new, encodings)
    for power in (0, 1, 2):
        parts = scan_chunks(old, new, encodings, 32_768, cuts(300_000, 32_768, power))
        assert whole.rows.tobytes() == parts.rows.tobytes()
        for view in range(3):
            assert np.array_equal(whole.runs[view].keys, parts.runs[view].keys)
            assert np.array_equal(whole.runs[view].counts, parts.runs[view].counts)


@settings(deadline=None, max_examples=40)
@given(pairs(numels=st.integers(0, 600)), st.sampled_from([0.0, 1e-3, 1.0]), st.sampled_from([0.0, 1e-2, 0.5]))
def test_tolerances(pair, absolute, relative):
    old, new, encodings = pair
    found = pair_figures(row_of(old, new, encodings, Ask(absolute=absolute, relative=relative)))
    with np.errstate(all="ignore"):
        a, b = oracles.numbers(old, encodings[0]), oracles.numbers(new, encodings[1])
        finite = np.isfinite(a) & np.isfinite(b)
        differs = oracles.unequal(old, new, encodings)
        beyond = np.where(finite, abs(b - a) > absolute + relative * abs(a), differs)
    assert found["unequal"] == differs.sum()
    assert found["changed"] == (beyond.sum() if absolute or relative else differs.sum())


@pytest.mark.parametrize("names", [("BF16", "F32"), ("F16", "F32"), ("F32", "F64"), ("F8_E5M2", "F16"), ("U8", "I16")])
@pytest.mark.parametrize("mode", ["usual", "few", "any", "zeros"])
def test_the_short_cut_of_equal_bytes_is_the_long_road(names, mode):
    encodings = pair_of(*names)
    old = frozen(codes_of(encodings[0], 7000, mode, 3))
    with np.errstate(invalid="ignore"):
        new = frozen(oracles.stored(old, encodings[0]).astype(oracles.DTYPES[names[1]]))
    short = [row_of(old, old, pair_of(names[0], names[0])), row_of(new, new, pair_of(names[1], names[1]))]
    long = row_of(old, new, encodings)
    for row in short:
        for view in (View.OLD, View.NEW, View.DELTA):
            found, expected = side_of(row, view), side_of(long, view)
            assert [found[name] for name in EXACT] == [expected[name] for name in EXACT]
            assert found["m2"] == pytest.approx(expected["m2"], rel=2e-6)
        assert pair_figures(row) == pytest.approx(pair_figures(long), rel=1e-6)


def test_domains_have_the_values_of_the_peers():
    for name in REAL:
        encoding = ENCODINGS[name]
        if encoding.pattern_bits:
            codes = np.arange(1 << min(encoding.bits, encoding.pattern_bits)).astype(
                np.uint8 if encoding.pattern_bits == 8 else np.uint16
            )
            np.testing.assert_array_equal(
                domain_of(encoding).values[: codes.size], oracles.numbers(codes.view(np.uint8), encoding)
            )
