"""Codes under stored scales against their original: what is lost, what rounding alone explains, what the codes show."""

import math

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.analyses.integer_baselines import GROUPS, SYMMETRIC, WITH_ZERO, integer_baseline
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.stored_codes import StoredCodes
from diffai_stream.testing.statistics import StatisticLaws
from tests.formats.test_quantized_gptq import awq_words, pack_columns, pack_rows
from tests.quantized import write
from tests.validation import of_type, run

NAME = "model.layers.0.mlp.up_proj"
VALUES = np.random.default_rng(4).normal(0, 0.02, (256, 1024)).astype(np.float32)


class TestStoredCodesLaws(StatisticLaws):
    statistics = (StoredCodes(View.OLD), StoredCodes(View.NEW))
    shapes = ((), (0,), (5, 3), (300, 512))


def rounded(values, bits, size):
    """(codes, scales, zero points) of groups along the rows, rounded to nearest."""
    groups = values.reshape(len(values), -1, size)
    low, high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    scales = ((high - low) / (2**bits - 1)).astype(np.float16)
    zeros = np.rint(-low / scales.astype(np.float32)).astype(int)
    codes = np.clip(np.rint(groups / scales.astype(np.float32)[..., None]) + zeros[..., None], 0, 2**bits - 1)
    return codes.reshape(values.shape).astype(int), scales, zeros


def value_of(codes, scales, zeros):
    size = codes.shape[1] // scales.shape[1]
    return (codes - np.repeat(zeros, size, 1)) * np.repeat(scales.astype(np.float64), size, 1)


def compared(tmp_path, values, tensors, config=None, **options):
    old = write(tmp_path / "old", {f"{NAME}.weight": values})
    records = run(old, write(tmp_path / "new", tensors, config), **options)
    (found,) = [record for record in of_type(records, "quantization") if record["scope"] == "tensor"]
    return found, records


def gptq(codes, scales, zeros, bits):
    index = np.arange(codes.shape[1]) // (codes.shape[1] // scales.shape[1])
    parts = {"qweight": pack_rows(codes.T, bits), "qzeros": pack_columns((zeros.T - 1) % 2**bits, bits)}
    return {f"{NAME}.{key}": part for key, part in {**parts, "scales": scales.T, "g_idx": index.astype(np.int32)}.items()}


def awq(codes, scales, zeros):
    return {f"{NAME}.qweight": awq_words(codes.T), f"{NAME}.qzeros": awq_words(zeros.T), f"{NAME}.scales": scales.T}


@pytest.mark.parametrize("chunk_size", [1 << 16, 1 << 24])
@pytest.mark.parametrize(("bits", "size"), [(2, 64), (3, 128), (4, 32), (4, 128), (8, 128)])
def test_rounding_to_nearest_has_no_gap(tmp_path, bits, size, chunk_size):
    made = rounded(VALUES, bits, size)
    tensors = gptq(*made, bits)
    found, _ = compared(tmp_path, VALUES, tensors, chunk_size=chunk_size)
    error = np.linalg.norm(value_of(*made) - VALUES) / np.linalg.norm(VALUES)
    assert found["relative_l2"] == pytest.approx(error, rel=1e-4)
    assert found["sqnr_db"] == pytest.approx(-20 * math.log10(error), abs=1e-3)
    assert abs(found["sqnr_gap_db"]) < 0.6
    assert found["new_bits_per_weight"] == 8 * sum(part.nbytes for part in tensors.values()) / VALUES.size
    assert (found["scale_source"], found["cast"], found["sqnr_scale_invariant_db"]) == ("recorded", None, None)
    share = np.bincount(made[0].reshape(-1), minlength=1 << bits) / VALUES.size
    assert found["code_entropy_bits"] == pytest.approx(-(share[share > 0] * np.log2(share[share > 0])).sum(), abs=1e-9)
    assert found["saturation_ratio"] == pytest.approx(share[0] + share[-1], abs=1e-12)
    assert (found["nonfinite_scales"], found["zero_scales"]) == (0, 0)
    assert found["largest_scale"] == float(made[1].max())
    assert found["smallest_scale"] == float(made[1].min())


def test_scales_folded_into_the_layer_before_are_taken_out(tmp_path):
    """AWQ multiplies columns before it rounds; the loss then shows only after the best factor of each column."""
    factors = np.random.default_rng(1).uniform(0.3, 3, VALUES.shape[1]).astype(np.float32)
    made = rounded(VALUES * factors, 4, 128)
    found, _ = compared(tmp_path, VALUES, awq(*made), {"quant_method": "awq"})
    rescaled = np.linalg.norm(value_of(*made) - VALUES * factors) / np.linalg.norm(VALUES * factors)
    assert found["sqnr_db"] < 5
    assert found["sqnr_scale_invariant_db"] == pytest.approx(-20 * math.log10(rescaled), abs=0.1)
    plain, _ = compared(tmp_path / "plain", VALUES, awq(*rounded(VALUES, 4, 128)))
    assert plain["sqnr_scale_invariant_db"] == pytest.approx(plain["sqnr_db"], abs=0.1)


def test_the_original_may_be_the_new_side(tmp_path):
    factors = np.random.default_rng(1).uniform(0.3, 3, VALUES.shape[1]).astype(np.float32)
    tensors = awq(*rounded(VALUES * factors, 4, 128))
    there, _ = compared(tmp_path / "there", VALUES, tensors)
    quantized, original = write(tmp_path / "q", tensors), write(tmp_path / "o", {f"{NAME}.weight": VALUES})
    (back,) = [record for record in of_type(run(quantized, original), "quantization") if record["scope"] == "tensor"]
    assert back["sqnr_scale_invariant_db"] == there["sqnr_scale_invariant_db"]
    assert back["code_entropy_bits"] == there["code_entropy_bits"]


def fp8_rows(values):
    scales = (np.abs(values).max(1, keepdims=True) / 448).astype(np.float32)
    codes = (values / scales).astype(ml_dtypes.float8_e4m3fn)
    return {f"{NAME}.weight": ("F8_E4M3", codes.shape, codes.tobytes()), f"{NAME}.weight_scale": scales}, codes


def test_codes_of_fp8(tmp_path):
    tensors, codes = fp8_rows(VALUES)
    found, _ = compared(tmp_path, VALUES, tensors)
    share = np.bincount(codes.view(np.uint8).reshape(-1), minlength=256) / codes.size
    assert found["code_entropy_bits"] == pytest.approx(-(share[share > 0] * np.log2(share[share > 0])).sum(), abs=1e-9)
    assert found["saturation_ratio"] == pytest.approx(np.mean(np.abs(codes.astype(np.float32)) == 448), abs=1e-12)
    assert abs(found["sqnr_gap_db"]) < 0.3


@pytest.mark.parametrize("analyses", [(), ("anomaly",)])
def test_a_scale_that_is_not_finite_is_an_anomaly(tmp_path, analyses):
    tensors, _ = fp8_rows(VALUES)
    tensors[f"{NAME}.weight_scale"][[3, 77]] = np.nan
    tensors[f"{NAME}.weight_scale"][5] = 0
    found, records = compared(tmp_path, VALUES, tensors, analyses=analyses)
    assert (found["nonfinite_scales"], found["zero_scales"]) == (2, 1)
    (anomaly,) = [record for record in of_type(records, "anomaly") if record["kind"] == "nonfinite_scale"]
    assert (anomaly["severity"], anomaly["side"], anomaly["count"]) == ("critical", "new", 2)
    assert anomaly["detail"] == "of 256 recorded scales"


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("size", [32, 128, 1024])
def test_the_baselines_of_integers_are_what_rounding_costs(bits, size, symmetric):
    values = np.random.default_rng(bits).normal(size=(1 << 19) // size * size).reshape(-1, size)
    if symmetric:
        scales = np.abs(values).max(1, keepdims=True) / ((2**bits - 1) / 2)
        back = np.clip(np.rint(values / scales), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scales
    else:
        low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
        scales = (high - low) / (2**bits - 1)
        back = (np.clip(np.rint(values / scales) + np.rint(-low / scales), 0, 2**bits - 1) - np.rint(-low / scales)) * scales
    cost = 10 * np.log10((values**2).sum() / ((values - back) ** 2).sum())
    metadata = {"bits": str(bits), "group_size": str(size)}
    assert integer_baseline(metadata, {} if symmetric else {"zeros": None}) == pytest.approx(cost, abs=0.15)


def test_baselines_are_known_where_they_are_meant():
    assert all(len(row) == len(GROUPS) for table in (SYMMETRIC, WITH_ZERO) for row in table.values())
    assert integer_baseline({"bits": "4", "group_size": "96"}, {}) == SYMMETRIC[4][2]
    assert integer_baseline({"bits": "8", "code_bits": "4", "group_size": "32"}, {}) == SYMMETRIC[4][0]
    assert integer_baseline({"bits": "1", "group_size": "32"}, {}) is None
    assert integer_baseline({"bits": "8", "group_size": "128", "group_rows": "128"}, {}) is None
