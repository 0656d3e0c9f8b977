"""Histograms of the fused scan: quantiles, distances between the sides, bins and coarse keys, against scipy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.finishing import LAWS, PROBABILITIES, Wants, finish
from diffai_stream.statistics.layout import COARSE_SHIFT, View
from diffai_stream.statistics.scanner import Ask
from tests.statistics import oracles
from tests.statistics.fused import domains, finished, pair_of, scan
from tests.statistics.strategies import REAL, codes_of, frozen, pairs

NARROW = [name for name in REAL if ENCODINGS[name].pattern_bits]
WIDE = [name for name in REAL if not ENCODINGS[name].pattern_bits]
SMALL = st.integers(1, 3000)


def keys(values: np.ndarray) -> np.ndarray:
    """The keys of finite values; what overflows float32 has the largest finite key."""
    with np.errstate(over="ignore"):
        found = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.int64)
    return np.where((found & 0x7FFF) > 0x7F7F, (found & 0x8000) | 0x7F7F, found)


def edges(values: np.ndarray) -> np.ndarray:
    """Values cut to their keys, toward zero; finite ones only."""
    finite = values[np.isfinite(values)]
    return (keys(finite).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@settings(deadline=None, max_examples=50)
@given(pairs(names=REAL, numels=SMALL))
def test_runs_are_the_counts_of_keys(pair):
    old, new, encodings = pair
    part = scan(old, new, encodings)
    with np.errstate(all="ignore"):
        a, b = (oracles.numbers(raw, encoding) for raw, encoding in zip((old, new), encodings, strict=True))
        delta = (b - a)[np.isfinite(a) & np.isfinite(b)]
        if any(encoding.tile_dtype is np.float64 for encoding in encodings):
            expected = keys(delta)
        else:
            expected = keys((b.astype(np.float32) - a.astype(np.float32))[np.isfinite(a) & np.isfinite(b)].astype(np.float64))
            expected[keys(delta) & 0x7FFF == 0x7F7F] = keys(delta)[keys(delta) & 0x7FFF == 0x7F7F]
    run = part.run(0, View.DELTA)
    found = np.bincount(run.keys, run.counts, 65_536)
    assert np.array_equal(found, np.bincount(expected, minlength=65_536))
    for view, raw, encoding, values in ((View.OLD, old, encodings[0], a), (View.NEW, new, encodings[1], b)):
        run = part.run(0, view)
        codes = (
            raw.view({1: np.uint8, 2: np.uint16}[encoding.itemsize])
            if encoding.pattern_bits
            else keys(values[np.isfinite(values)])
        )
        assert np.array_equal(np.bincount(run.keys, run.counts, 65_536), np.bincount(codes, minlength=65_536))


@settings(deadline=None, max_examples=50)
@given(pairs(numels=SMALL))
def test_quantiles(pair):
    old, new, encodings = pair
    found = finished(scan(old, new, encodings), encodings).columns["quantiles"][0]
    with np.errstate(all="ignore"):
        sides = [oracles.numbers(raw, encoding) for raw, encoding in zip((old, new), encodings, strict=True)]
        for quantiles, values, exact in zip(
            found, [*sides, sides[1] - sides[0]], [*(e.pattern_bits for e in encodings), 0], strict=True
        ):
            if not np.isfinite(values).any():
                assert np.isnan(quantiles).all()
                continue
            expected = oracles.quantiles(values, PROBABILITIES)
            tolerance = 0 if exact else 2.0**-7 * abs(expected) + 2.0**-133
            small = abs(expected) < np.finfo(np.float32).max
            assert np.all((abs(quantiles - expected) <= tolerance)[small]), (quantiles, expected)


@settings(deadline=None, max_examples=40)
@given(pairs(names=NARROW, numels=SMALL))
def test_distances_of_counted_codes(pair):
    old, new, (encoding, other) = pair
    check_distances(old, new, (encoding, other), edges if encoding is not other else lambda values: values)
    again = frozen(codes_of(encoding, old.size // encoding.itemsize, "any", 5))
    check_distances(old, again, (encoding, encoding), lambda values: values)


@settings(deadline=None, max_examples=40)
@given(pairs(names=WIDE, others=REAL, numels=SMALL))
def test_distances_by_keys(pair):
    check_distances(*pair, edges)


def check_distances(old: np.ndarray, new: np.ndarray, encodings, place) -> None:
    """KS and JS of what the sides are counted by; W1 to the width of a key where places are not values."""
    found = finished(scan(old, new, encodings), encodings).columns["distances"][0]
    with np.errstate(all="ignore"):
        a, b = (place(oracles.numbers(raw, encoding)) for raw, encoding in zip((old, new), encodings, strict=True))
        if not np.isfinite(a).any() or not np.isfinite(b).any():
            assert np.isnan(found).all()
            return
        ks, js, w1 = oracles.distances(a, b)
        scale = np.mean(abs(np.concatenate([a[np.isfinite(a)], b[np.isfinite(b)]])))
    assert found[0] == pytest.approx(ks, abs=1e-12)
    assert found[1] == pytest.approx(js, abs=1e-7)
    assert found[2] == pytest.approx(w1, rel=1e-9, abs=(1e-12 if place is not edges else 2.0**-6) * scale)


@pytest.mark.parametrize("names", [("F32", "F32"), ("BF16", "BF16"), ("BF16", "F32"), ("F32", "F64"), ("F16", "BF16")])
def test_signs_of_zero_are_no_distance(names):
    old, new = (
        np.array([sign * 0.0, 1, -1] * 30).astype(oracles.DTYPES[name]) for sign, name in zip((1, -1), names, strict=True)
    )
    found = finished(scan(frozen(old), frozen(new), pair_of(*names)), pair_of(*names)).columns["distances"][0]
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("name", ["F32", "BF16", "I8", "F8_E4M3"])
def test_bins_and_coarse_keys(name):
    encoding = ENCODINGS[name]
    old, new = (frozen(codes_of(encoding, 20_000, "usual", seed)) for seed in (1, 2))
    result = finished(scan(old, new, pair_of(name, name)), pair_of(name, name))
    sides = [oracles.numbers(raw, encoding) for raw in (old, new)]
    for view, values in enumerate([*sides, sides[1] - sides[0]]):
        values = values[np.isfinite(values)]
        places, counts = (result.columns[name][0, view] for name in ("bin_edges", "bin_counts"))
        assert counts.sum() == values.size
        assert places.size == 129
        assert places[0] <= values.min() <= values.max() <= places[-1]
        slack = 0 if view < 2 and encoding.pattern_bits else 2.0**-7 * abs(places).max()
        for edge, below in zip(places[1:-1:16], np.cumsum(counts)[:-1:16], strict=True):
            few = 1e-9 * abs(places).max() + slack
            assert (values < edge - few).sum() <= below <= (values <= edge + few).sum()
        expected = np.bincount(keys(values) >> COARSE_SHIFT, minlength=1024)
        coarse = result.coarse[view]
        if view < 2 or name != "F32":
            assert np.array_equal(np.bincount(coarse.keys, coarse.counts, 1024), expected)


@pytest.mark.parametrize(("law", "name"), [("normal", "F32"), ("uniform", "F32"), ("normal", "BF16")])
def test_initial_laws_are_recognized(law, name):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000) * 0.02 if law == "normal" else rng.uniform(-0.02, 0.02, 100_000) * np.sqrt(3)
    raw = frozen(values.astype(oracles.DTYPES[name]))
    encodings = pair_of(name, name)
    result = finish(scan(raw, raw, encodings), domains(encodings), [(100, 1000)], Ask(), Wants(laws=True))
    number, distance = result.columns["laws"][0, View.OLD]
    assert LAWS[int(number)] == f"{law}(0, 0.02)"
    assert distance < 0.005
