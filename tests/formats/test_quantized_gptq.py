"""GPTQ and AWQ checkpoints against float64 arithmetic on codes packed the way AutoGPTQ and AutoAWQ do."""

import numpy as np
import pytest

from tests.quantized import codes_of, opened, values, write
from tests.quantized_files import awq_words, pack_columns, pack_rows


def gptq(rng, rows, columns, bits, size, *, act_order=False, stored_zeros=None):
    """(tensors of `x`, codes, stored zero points, scales, groups) of a random layer."""
    groups = -(-columns // size)
    codes = rng.integers(0, 1 << bits, (columns, rows))
    zeros = rng.integers(0, 1 << bits, (groups, rows)) if stored_zeros is None else np.full((groups, rows), stored_zeros)
    scales = rng.uniform(0.001, 0.01, (groups, rows)).astype(np.float16)
    index = (np.arange(columns) // size).astype(np.int32)
    if act_order:
        rng.shuffle(index)
    parts = {"qweight": pack_rows(codes, bits), "qzeros": pack_columns(zeros, bits), "scales": scales, "g_idx": index}
    return {f"x.{name}": part for name, part in parts.items()}, codes, zeros, scales.astype(np.float64), index


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("bits", "size"), [(2, 64), (3, 32), (4, 128), (4, 32), (8, 64), (4, 256)])
def test_gptq(tmp_path, bits, size, version, act_order):
    rng = np.random.default_rng(bits * size)
    tensors, codes, zeros, scales, index = gptq(rng, 96, 256, bits, size, act_order=act_order)
    stored_format = "gptq_v2" if version == "v2" else "gptq"
    config = {"quant_method": "gptq", "bits": bits, "group_size": size, "checkpoint_format": stored_format}
    found, checkpoint = opened(write(tmp_path, {**tensors, "x.bias": np.ones(96, np.float16)}, config))
    assert set(found) == {"x.weight", "x.bias"}
    entry = found["x.weight"]
    assert (entry.encoding, entry.shape, entry.metadata["zero_convention"]) == (f"GPTQ_I{bits}", (96, 256), version)
    assert entry.stored_nbytes == sum(part.nbytes for part in tensors.values())
    real = zeros if version == "v2" else (zeros + 1) % (1 << bits)
    expected = (scales[index] * (codes - real[index])).T
    np.testing.assert_allclose(values(entry), expected, rtol=1e-6, atol=0)
    assert not codes_of(checkpoint)


def test_gptq_without_configuration_and_without_g_idx(tmp_path):
    tensors, codes, zeros, scales, index = gptq(np.random.default_rng(0), 64, 256, 4, 64)
    del tensors["x.g_idx"]
    found, _ = opened(write(tmp_path, tensors))
    expected = (scales[index] * (codes - (zeros[index] + 1) % 16)).T
    np.testing.assert_allclose(values(found["x.weight"]), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("stored", "declared", "offset", "remark"), [
    (7, "gptq", 1, set()), (8, "gptq_v2", 0, set()), (8, "gptq", 0, {"zero_convention"}),
    (7, "gptq_v2", 1, {"zero_convention"}),
])  # fmt: skip
def test_symmetric_zero_points_tell_their_convention(tmp_path, stored, declared, offset, remark):
    tensors, codes, _, scales, index = gptq(np.random.default_rng(1), 64, 128, 4, 32, stored_zeros=stored)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": declared, "sym": True}
    found, checkpoint = opened(write(tmp_path, tensors, config))
    assert codes_of(checkpoint) == remark
    np.testing.assert_allclose(values(found["x.weight"]), (scales[index] * (codes - stored - offset)).T, rtol=1e-6, atol=0)


def test_an_asymmetric_checkpoint_says_that_only_its_configuration_tells(tmp_path):
    tensors, *_ = gptq(np.random.default_rng(1), 64, 128, 4, 32)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}
    assert codes_of(opened(write(tmp_path, tensors, config))[1]) == {"zero_convention_unproven"}


@pytest.mark.parametrize(("part", "value", "said"), [
    ("x.qzeros", None, "'x.qzeros' is missing"),
    ("x.scales", np.ones((3, 64), np.float16), "has shape"),
    ("x.scales", np.ones((4, 64), np.int32), "is I32, not F16"),
    ("x.qzeros", np.ones((4, 3), np.int32), "fit no width"),
    ("x.g_idx", np.zeros(12, np.int32), "has shape"),
    ("x.weight", np.ones(3, np.float32), "stored too"),
])  # fmt: skip
def test_parts_that_contradict_each_other_stay_as_stored(tmp_path, part, value, said):
    tensors, *_ = gptq(np.random.default_rng(2), 64, 128, 4, 32)
    tensors[part] = value
    tensors = {name: value for name, value in tensors.items() if value is not None}
    found, checkpoint = opened(write(tmp_path, tensors))
    assert set(found) == set(tensors)
    assert any(said in oddity.message for oddity in checkpoint.oddities)


def test_marlin_is_named(tmp_path):
    tensors, *_ = gptq(np.random.default_rng(2), 64, 128, 4, 32)
    found, checkpoint = opened(write(tmp_path, tensors, {"quant_method": "gptq", "checkpoint_format": "marlin"}))
    assert set(found) == set(tensors)
    assert codes_of(checkpoint) == {"opaque_quantization"}


@pytest.mark.parametrize(("rows", "columns", "size"), [(96, 256, 64), (8, 64, 32), (200, 128, 128), (264, 384, 128)])
def test_awq_gemm(tmp_path, rows, columns, size):
    rng = np.random.default_rng(rows)
    codes, zeros = rng.integers(0, 16, (columns, rows)), rng.integers(0, 16, (columns // size, rows))
    scales = rng.uniform(0.001, 0.01, zeros.shape).astype(np.float16)
    tensors = {"x.qweight": awq_words(codes), "x.qzeros": awq_words(zeros), "x.scales": scales}
    config = {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm"}
    found, checkpoint = opened(write(tmp_path, tensors, config))
    index = np.arange(columns) // size
    expected = (scales[index].astype(np.float64) * (codes - zeros[index])).T
    assert found["x.weight"].encoding == "AWQ_I4"
    np.testing.assert_allclose(values(found["x.weight"]), expected, rtol=1e-6, atol=0)
    assert not codes_of(checkpoint)


@pytest.mark.parametrize("size", [128, 64, 32])
def test_awq_gemv(tmp_path, size):
    rng = np.random.default_rng(size)
    rows, columns = 48, 512
    width = {128: 1, 64: 2, 32: 4}[size]
    groups = columns // size
    codes, zeros = rng.integers(0, 16, (rows, columns)), rng.integers(0, 16, (rows, 8 * width))
    scales = rng.uniform(0.001, 0.01, zeros.shape).astype(np.float16)
    tensors = {"x.qweight": pack_columns(codes, 4), "x.qzeros": pack_columns(zeros, 4), "x.scales": scales}
    found, _ = opened(write(tmp_path, tensors, {"quant_method": "awq", "group_size": size, "version": "gemv"}))
    index = np.arange(columns) // size
    assert index.max() < groups
    expected = scales.astype(np.float64)[:, index] * (codes - zeros[:, index])
    np.testing.assert_allclose(values(found["x.weight"]), expected, rtol=1e-6, atol=0)
