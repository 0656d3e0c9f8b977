"""Rounding against NumPy and ml_dtypes over all interesting patterns, and the verdict on how a copy was made."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.statistics.casts import CastCounts, grid_of, rounded
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles

DTYPES = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
SMALL = [name for name in DTYPES if name != "F32"]


class TestCastLaws(StatisticLaws):
    statistics = (CastCounts(),)
    encodings = (("F32", "BF16"), ("F32", "F32"), ("F64", "F8_E5M2"), ("F16", "BF16"), ("BF16", "F8_E4M3"), ("I64", "U8"))


def interesting() -> np.ndarray:
    """float32 patterns: every top half, with the low halves around each place where rounding turns."""
    tops = np.arange(65_536, dtype=np.uint32) << 16
    lows = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    values = (tops[:, None] | np.array(lows, np.uint32)).reshape(-1).view(np.float32)
    return values[np.isfinite(values)]


def columns(old: np.ndarray, old_name: str, new: np.ndarray, new_name: str) -> dict:
    raw = [np.frombuffer(side.tobytes(), np.uint8) for side in (old, new)]
    tiles = leaf_tiles(*raw, (ENCODINGS[old_name], ENCODINGS[new_name]), (old.size,))
    return CastCounts().finalize(StatisticLaws.state(CastCounts(), tiles))


@pytest.mark.parametrize("name", SMALL)
def test_rounding_is_that_of_the_peers(name):
    values = interesting()
    with np.errstate(all="ignore"):
        expected = values.astype(DTYPES[name]).astype(np.float64)
    np.testing.assert_array_equal(rounded(values, grid_of(ENCODINGS[name])), expected)


def test_rounding_of_doubles_to_singles():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 200_000, dtype=np.uint64).view(np.float64)
    near = interesting()[::7].astype(np.float64)
    values = np.concatenate([values, near, np.nextafter(near, np.inf), near * (1 + 2.0**-24), near * (1 + 2.0**-24 + 2.0**-52)])
    with np.errstate(all="ignore"):
        expected = values.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(rounded(values, grid_of(ENCODINGS["F32"])), expected)


def test_bfloat16_toward_zero_is_the_top_half():
    values = interesting()
    expected = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(rounded(values, grid_of(ENCODINGS["BF16"]), toward_zero=True), expected)


def test_saturating():
    grid = grid_of(ENCODINGS["F8_E4M3"])
    np.testing.assert_array_equal(rounded([464, 465, -1e30, np.inf], grid, saturating=True), [448, 448, -448, np.inf])
    np.testing.assert_array_equal(rounded([464, 465], grid), [448, np.nan])
    np.testing.assert_array_equal(rounded([7, -6.9, 0.3], grid_of(ENCODINGS["F4"]), saturating=True), [6, -6, 0.5])


@pytest.mark.parametrize("name", SMALL)
def test_a_cast_is_told(name):
    values = interesting()[::11]
    with np.errstate(all="ignore"):
        new = values.astype(DTYPES[name])
    found = columns(values, "F32", new, name)
    assert (found["cast"], found["rne_count"], found["saturated_count"], found["flushed_count"]) == ("rne", values.size, 0, 0)
    wide = new.astype(np.float64)
    assert found["equal_count"] == int((wide == values).sum())
    assert found["overflow_count"] == int((~np.isfinite(wide)).sum())
    smallest = 2.0 ** grid_of(ENCODINGS[name]).min_exponent
    assert found["subnormal_count"] == int(((wide != 0) & (abs(wide) < smallest)).sum())


def test_truncation_is_told_from_rounding():
    values = np.linspace(1, 2, 1000, dtype=np.float32)
    found = columns(values, "F32", (values.view(np.uint32) >> 16).astype(np.uint16), "BF16")
    assert found["cast"] == "truncated"
    assert found["truncated_count"] == 1000
    assert 0 < found["rne_count"] < 1000
    assert (found["old_is_bf16"], found["new_is_bf16"]) == (False, None)


def test_exact_with_nan_and_infinity():
    values = np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan], np.float32)
    found = columns(values, "F32", values.astype(ml_dtypes.bfloat16), "BF16")
    assert (found["cast"], found["equal_count"], found["finite_count"], found["n_count"]) == ("exact", 6, 3, 6)
    assert found["old_is_bf16"] is True


def test_saturating_and_flushing_casts():
    values = np.array([1.1, 1e6, -1e6, 1e-3], np.float32)
    found = columns(values, "F32", np.array([1.125, 448, -448, 0.001953125], np.float32).astype(DTYPES["F8_E4M3"]), "F8_E4M3")
    assert (found["cast"], found["saturated_count"], found["overflow_count"], found["flushed_count"]) == ("rne", 2, 0, 0)
    flushed = columns(np.array([1.0, 1e-6], np.float32), "F32", np.array([1, 0], np.float16), "F16")
    assert (flushed["cast"], flushed["flushed_count"]) == ("none", 1)
    wrong = columns(values, "F32", np.array([1.125, -448, 448, 0.001953125], np.float32).astype(DTYPES["F8_E4M3"]), "F8_E4M3")
    assert wrong["cast"] == "none"


def test_not_a_narrowing():
    ones = np.ones(4, np.float32)
    assert columns(ones, "F32", ones, "F32")["cast"] is None
    assert columns(ones.astype(np.float16), "F16", ones, "F32")["new_is_bf16"] is True
    assert columns(np.arange(4), "I64", ones, "F32")["cast"] is None
    assert CastCounts().finalize(CastCounts().empty())["cast"] is None
    assert columns(ones[:0], "F32", ones[:0].astype(np.float16), "F16")["cast"] is None


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4"])
def test_every_small_value_is_on_its_grid(name):
    encoding = ENCODINGS[name]
    values = decoded(np.arange(256, dtype=np.uint8), encoding, 256).astype(np.float64)
    np.testing.assert_array_equal(rounded(values, grid_of(encoding)), values)
