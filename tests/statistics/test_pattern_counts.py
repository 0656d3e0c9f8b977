"""Counts of patterns: from tiles and from the scan alike, and distances from them against scipy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.statistics import pattern_counts
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.pattern_counts import PatternCounts, pattern_distances
from diffai_stream.statistics.scanner import Ask, Scanner
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles

NAMES = ["BF16", "F16", "F32", "F64", "I8", "F8_E4M3", "I32"]


@pytest.fixture
def any_size(monkeypatch):
    """Small tensors are counted too."""
    monkeypatch.setattr(pattern_counts, "MIN_NUMEL", 1)


@pytest.mark.usefixtures("any_size")
class TestPatternCountsLaws(StatisticLaws):
    statistics = (PatternCounts(View.OLD), PatternCounts(View.NEW))


def raw_of(name, numel, seed=0):
    encoding = ENCODINGS[name]
    raw = np.random.default_rng(seed).bytes(numel * encoding.itemsize)
    return np.frombuffer(raw, np.uint8), encoding


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("name", NAMES)
def test_the_scan_counts_what_tiles_say(name):
    raw, encoding = raw_of(name, 100_000)
    part = Scanner().scan(raw, raw, (encoding, encoding), np.array([[0, 0, 100_000, 32_768, 0]], np.int64), Ask())
    statistic = PatternCounts()
    scanned = statistic.finalize(statistic.of_runs(part.runs[:2], (encoding, encoding), (100_000,)))
    tiled = statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(raw, raw, (encoding, encoding), (100_000,))))
    assert scanned["keys"].tolist() == tiled["keys"].tolist()
    assert scanned["counts"].tolist() == tiled["counts"].tolist()
    values = decoded(raw, encoding, 100_000)
    assert scanned["counts"].sum() == (100_000 if encoding.pattern_bits else np.isfinite(values).sum())
    assert (np.diff(scanned["keys"].astype(int)) > 0).all()


def test_small_tensors_are_left_to_their_coarse_keys():
    raw, encoding = raw_of("BF16", 1000)
    statistic = PatternCounts()
    found = statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(raw, raw, (encoding, encoding), (1000,))))
    assert found["keys"].size == found["counts"].size == 0
    with pytest.raises(ValueError, match="DELTA"):
        PatternCounts(View.DELTA)


def counted(values, name):
    raw = values.reshape(-1).view(np.uint8)
    statistic, encoding = PatternCounts(), ENCODINGS[name]
    return statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(raw, raw, (encoding, encoding), values.shape)))


@pytest.mark.usefixtures("any_size")
def test_distances_are_those_of_the_numbers():
    random = np.random.default_rng(0)
    old, new = (random.normal(shift, 0.02, 20_000).astype(ml_dtypes.bfloat16) for shift in (0.0, 0.003))
    found = pattern_distances([counted(old, "BF16"), counted(new, "BF16")], [ENCODINGS["BF16"]] * 2)
    a, b = old.astype(float), new.astype(float)
    shares = [np.bincount(side.view(np.uint16), minlength=1 << 16) / side.size for side in (old, new)]
    expected = stats.ks_2samp(a, b).statistic, jensenshannon(*shares, base=2), stats.wasserstein_distance(a, b)
    assert found == pytest.approx(expected, rel=1e-6)
    assert pattern_distances([counted(old, "BF16")] * 2, [ENCODINGS["BF16"]] * 2) == (0.0, 0.0, 0.0)


@pytest.mark.usefixtures("any_size")
def test_other_encodings_are_compared_by_the_keys_of_float32():
    old = np.random.default_rng(0).normal(0, 0.02, 20_000).astype(ml_dtypes.bfloat16)
    sides = [counted(old, "BF16"), counted(old.astype(np.float32), "F32")]
    assert pattern_distances(sides, [ENCODINGS["BF16"], ENCODINGS["F32"]])[:2] == (0.0, 0.0)
