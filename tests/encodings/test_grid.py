"""Rows of codes under grids of scales, against float64 arithmetic on ml_dtypes and NumPy."""

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.errors import TensorError
from tests.encodings.harness import decoded, entry_over

FP8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}

LAYOUTS = [
    *((200, 300, 128, 128), (256, 256, 128, 128), (7, 40, 1, 40), (7, 40, 7, 40)),
    *((9, 64, 1, 32), (5, 9001, 2, 4096), (1, 3, 1, 3)),
]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def close(found, expected):
    """Equal to 3e-7 relative (two roundings), NaN where NaN is due."""
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=0)


def spread(scales, rows, columns, group_rows, group_columns):
    return np.repeat(np.repeat(scales, group_rows, 0)[:rows], group_columns, 1)[:, :columns].astype(np.float64)


@pytest.mark.parametrize("codes", FP8)
@pytest.mark.parametrize(("rows", "columns", "group_rows", "group_columns"), LAYOUTS)
def test_floats_of_8_bits_times_their_scale(rng, codes, rows, columns, group_rows, group_columns):
    stored = rng.integers(0, 256, (rows, columns), dtype=np.uint8)
    scales = rng.normal(1, 0.3, (-(-rows // group_rows), -(-columns // group_columns))).astype(np.float32)
    parameters = {"codes": codes, "bits": 8, "group_rows": group_rows, "group_size": group_columns}
    entry, read = entry_over((rows, columns), f"{codes}_SCALED", parameters, data=(codes, stored), scales=scales)
    expected = stored.view(FP8[codes]).astype(np.float64) * spread(scales, rows, columns, group_rows, group_columns)
    close(decoded("grid", entry, read), expected)


def test_every_e4m3_code_is_exact():
    stored = np.arange(256, dtype=np.uint8).reshape(2, 128)
    entry, read = entry_over(
        stored.shape, "F8_E4M3_SCALED", {"codes": "F8_E4M3", "bits": 8}, data=stored, scales=np.ones((2, 1), np.float32)
    )
    expected = stored.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(decoded("grid", entry, read), expected, equal_nan=True)


@pytest.mark.parametrize("kind", ["F16", "BF16", "F64", "F8_E8M0"])
def test_scales_of_every_float_type(rng, kind):
    stored = rng.integers(0, 120, (64, 96), dtype=np.uint8)
    exact = 2.0 ** rng.integers(-8, 8, (64, 3))
    scales = {
        "F16": exact.astype(np.float16),
        "BF16": exact.astype(ml_dtypes.bfloat16).view(np.uint16),
        "F64": exact,
        "F8_E8M0": (np.log2(exact) + 127).astype(np.uint8),
    }[kind]
    parameters = {"codes": "F8_E4M3", "bits": 8, "group_size": 32}
    entry, read = entry_over((64, 96), "F8_E4M3_SCALED", parameters, data=stored, scales=(kind, scales))
    close(decoded("grid", entry, read), stored.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * spread(exact, 64, 96, 1, 32))


@pytest.mark.parametrize("shared", [False, True])
def test_matrices_of_experts_have_partial_blocks_each(rng, shared):
    stored = rng.integers(0, 120, (3, 200, 72), dtype=np.uint8)
    scales = rng.normal(1, 0.2, (1 if shared else 3, 2, 1)).astype(np.float32)
    parameters = {"codes": "F8_E4M3", "bits": 8, "group_rows": 128, "group_size": 128}
    view = ("F32", scales, (scales.shape[0] * 2, 1), None)
    entry, read = entry_over((3, 200, 72), "F8_E4M3_SCALED", parameters, data=stored, scales=view)
    expected = stored.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * np.repeat(scales, 128, 1)[:, :200]
    close(decoded("grid", entry, read), expected)


def test_a_scale_that_is_not_finite_shows_in_its_block_only(rng):
    stored = np.full((256, 256), 0x38, np.uint8)  # 1.0
    scales = np.array([[1, np.nan], [np.inf, 2]], np.float32)
    parameters = {"codes": "F8_E4M3", "bits": 8, "group_rows": 128, "group_size": 128}
    entry, read = entry_over((256, 256), "F8_E4M3_SCALED", parameters, data=stored, scales=scales)
    assert np.array_equal(decoded("grid", entry, read), spread(scales, 256, 256, 128, 128), equal_nan=True)


def test_groups_that_do_not_exist_are_refused(rng):
    parameters = {"codes": "bits", "bits": 4, "group_size": 32, "zero_point": 8}
    parts = {"data": np.zeros((4, 32), np.uint8), "scales": np.ones((4, 2), np.float32)}
    entry, read = entry_over((4, 64), "I4_SCALED", parameters, **parts, g_idx=np.full(64, 2, np.int32))
    with pytest.raises(TensorError, match="groups from 2 to 2, there are 2"):
        decoded("grid", entry, read)
