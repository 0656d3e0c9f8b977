"""Distances in units in the last place against NumPy and against counting, value by value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.statistics.ulp import UlpDistance
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles
from tests.statistics import oracles
from tests.statistics.strategies import CODES, same_encoding_pairs

NOTHING = {"ulp_p50": None, "ulp_p99": None, "ulp_max": None}


class TestUlpLaws(StatisticLaws):
    statistics = (UlpDistance(),)


def columns(old: np.ndarray, new: np.ndarray, name: str, other: str | None = None) -> dict:
    raw = [np.frombuffer(side.tobytes(), np.uint8) for side in (old, new)]
    pair = (ENCODINGS[name], ENCODINGS[other or name])
    shape = (raw[0].size // pair[0].itemsize,)
    return UlpDistance().finalize(StatisticLaws.state(UlpDistance(), leaf_tiles(*raw, pair, shape)))


def middle_of_range(found: int, exact: int) -> bool:
    return found == exact if exact < 256 else abs(found - exact) <= exact / 128


@settings(deadline=None, max_examples=60)
@given(same_encoding_pairs(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4"]))
def test_against_sorted_distances(pair):
    old, new, encoding = pair
    found = columns(old, new, encoding.name)
    exact = sorted(oracles.ulp_distances(old.view(CODES[encoding.itemsize]), new.view(CODES[encoding.itemsize]), encoding))
    if not exact:
        assert found == NOTHING
        return
    assert found["ulp_max"] == exact[-1]
    for name, percent in (("ulp_p50", 50), ("ulp_p99", 99)):
        assert middle_of_range(found[name], exact[-(-len(exact) * percent // 100) - 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_steps_of_nextafter(dtype):
    name = {2: "F16", 4: "F32", 8: "F64"}[np.dtype(dtype).itemsize]
    for start in (-1.0, -0.0, 0.0, np.finfo(dtype).tiny, 1.0):
        value = old = np.array([start], dtype)
        for distance in range(1, 300):
            value = np.nextafter(value, dtype(np.inf))
            found = columns(old, value, name)["ulp_max"]
            assert found == distance
    assert columns(np.array([np.finfo(dtype).max], dtype), np.array([np.inf], dtype), name)["ulp_max"] == 1


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4"])
def test_small_floats_by_rank_of_value(name):
    encoding = ENCODINGS[name]
    codes = np.arange(1 << encoding.bits, dtype=np.uint8)
    values = decoded(codes, encoding, codes.size)
    ranks = {value: rank for rank, value in enumerate(sorted(set(values[values == values].tolist())))}
    for code in codes[:: max(1, codes.size // 16)]:
        if np.isnan(values[code]):
            continue
        largest = max(abs(ranks[value] - ranks[values[code]]) for value in values[values == values].tolist())
        assert columns(np.full(codes.size, code), codes, name)["ulp_max"] == largest


def test_zero_signs_nan_and_the_widest_distance():
    zeros = np.array([0.0, -0.0], np.float32)
    assert columns(zeros, zeros[::-1], "F32") == {"ulp_p50": 0, "ulp_p99": 0, "ulp_max": 0}
    assert columns(np.array([np.nan], np.float32), np.ones(1, np.float32), "F32") == NOTHING
    ends = np.array([-np.inf, np.inf])
    widest = 2 * 0x7FF0_0000_0000_0000
    found = columns(ends, ends[::-1], "F64")
    assert found["ulp_max"] == widest
    assert found["ulp_p50"] == pytest.approx(widest, rel=2.0**-7)


def test_does_not_apply():
    assert columns(np.ones(4, np.float32), np.ones(4, np.float16), "F32", "F16") == NOTHING
    assert columns(np.arange(4), np.arange(4), "I64") == NOTHING
    assert UlpDistance().finalize(UlpDistance().empty()) == NOTHING
