"""Layouts without a library that runs here, against float64 arithmetic written from their formulas; and those only named."""

import ml_dtypes
import numpy as np
import pytest

from tests.quantized import codes_of, opened, values, write
from tests.quantized_files import E2M1, f8, nibbles, pack_columns


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(("bits", "size"), [(2, 64), (3, 64), (4, 64), (4, 32), (5, 64), (6, 128), (8, 64)])
def test_mlx_affine(tmp_path, rng, bits, size):
    codes = rng.integers(0, 1 << bits, (40, 256))
    scales, biases = (rng.normal(0.01, 0.002, (40, 256 // size)).astype(np.float16) for _ in range(2))
    tensors = {"x.weight": pack_columns(codes, bits).view(np.uint32), "x.scales": scales, "x.biases": biases}
    config = {"group_size": size, "bits": bits}
    found, checkpoint = opened(write(tmp_path, tensors, config, key="quantization"))
    assert set(found) == {"x.weight"}
    assert (found["x.weight"].encoding, found["x.weight"].shape) == (f"MLX_I{bits}", (40, 256))
    spread = [np.repeat(plane, size, 1).astype(np.float64) for plane in (scales, biases)]
    np.testing.assert_allclose(values(found["x.weight"]), codes * spread[0] + spread[1], rtol=3e-7, atol=1e-9)
    assert not codes_of(checkpoint)


def test_mlx_layers_may_have_their_own_width(tmp_path, rng):
    codes = rng.integers(0, 256, (8, 64))
    plane = np.ones((8, 2), np.float16)
    tensors = {"x.weight": pack_columns(codes, 8).view(np.uint32), "x.scales": plane, "x.biases": plane}
    config = {"group_size": 64, "bits": 4, "x": {"group_size": 32, "bits": 8}}
    found, _ = opened(write(tmp_path, tensors, config, key="quantization"))
    assert np.array_equal(values(found["x.weight"]), codes + 1)


def test_mlx_without_configuration_is_ambiguous(tmp_path, rng):
    plane = np.ones((8, 2), np.float16)
    tensors = {"x.weight": np.zeros((8, 16), np.uint32), "x.scales": plane, "x.biases": plane}
    found, checkpoint = opened(write(tmp_path, tensors))
    assert set(found) == set(tensors)
    assert "config.json does not say" in checkpoint.oddities[-1].message


@pytest.mark.parametrize(("mode", "size"), [("MXFP4", 32), ("NVFP4", 16), ("MXFP8", 32)])
def test_mlx_modes_without_biases(tmp_path, rng, mode, size):
    groups = 128 // size
    if mode == "MXFP8":
        raw = rng.integers(0, 120, (24, 128), dtype=np.uint8)
        numbers = raw.view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    else:
        codes = rng.integers(0, 16, (24, 128))
        raw, numbers = nibbles(codes), E2M1[codes]
    scales = rng.integers(100, 110, (24, groups), dtype=np.uint8)
    factors = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float64) if mode == "NVFP4" else 2.0 ** (scales.astype(int) - 127)
    tensors = {"x.weight": np.ascontiguousarray(raw).view(np.uint32), "x.scales": scales}
    found, _ = opened(write(tmp_path, tensors, {"group_size": size, "bits": 4, "mode": mode.lower()}, key="quantization"))
    assert found["x.weight"].encoding == mode
    np.testing.assert_allclose(values(found["x.weight"]), numbers * np.repeat(factors, size, 1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("columns", [64, 80])
def test_nvfp4_of_modelopt_multiplies(tmp_path, rng, columns):
    codes, overall = rng.integers(0, 16, (20, columns)), np.float32(0.003)
    scales = rng.uniform(20, 400, (20, columns // 16)).astype(ml_dtypes.float8_e4m3fn)
    tensors = {"x.weight": nibbles(codes), "x.weight_scale": f8(scales), "x.weight_scale_2": np.array(overall)}
    found, checkpoint = opened(write(tmp_path, {**tensors, "x.input_scale": np.ones((), np.float32)}))
    assert set(found) == {"x.weight", "x.input_scale"}
    assert (found["x.weight"].encoding, found["x.weight"].shape) == ("NVFP4", (20, columns))
    expected = E2M1[codes] * np.repeat(scales.astype(np.float64), 16, 1) * np.float64(overall)
    np.testing.assert_allclose(values(found["x.weight"]), expected, rtol=3e-7, atol=0)
    assert not codes_of(checkpoint)


def test_fp4_experts_of_deepseek(tmp_path, rng):
    codes, exponents = rng.integers(0, 16, (16, 128)), rng.integers(110, 130, (16, 4), dtype=np.uint8)
    tensors = {"x.weight": nibbles(codes).view(np.int8), "x.scale": ("F8_E8M0", (16, 4), exponents.tobytes())}
    found, _ = opened(write(tmp_path, tensors))
    expected = E2M1[codes] * np.repeat(2.0 ** (exponents.astype(int) - 127), 32, 1)
    np.testing.assert_allclose(values(found["x.weight"]), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("ending", ["weight_scale", "scale_weight", "scale"])
def test_fp8_under_other_names(tmp_path, rng, ending):
    codes = rng.integers(0, 120, (24, 40), dtype=np.uint8)
    tensors = {"x.weight": ("F8_E4M3", codes.shape, codes.tobytes()), f"x.{ending}": np.array(0.01, np.float32)}
    found, _ = opened(write(tmp_path, tensors))
    expected = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * np.float64(np.float32(0.01))
    np.testing.assert_allclose(values(found["x.weight"]), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("names", "title"), [
    (("trellis", "suh", "svh"), "EXL3"), (("q_weight", "q_groups", "q_scale"), "EXL2"), (("codes", "codebooks"), "AQLM"),
    (("Qidxs", "SU", "SV"), "QuIP#"), (("indices", "centroids.weight"), "VPTQ"), (("dense_weights", "row_offsets"), "SpQR"),
    (("B", "s"), "Marlin"), (("bitmask", "compressed"), "sparse"),
])  # fmt: skip
def test_layouts_that_are_only_named(tmp_path, names, title):
    tensors = {f"x.{name}": np.ones((16, 16), np.int16) for name in names}
    found, checkpoint = opened(write(tmp_path, tensors))
    assert set(found) == set(tensors)
    assert codes_of(checkpoint) == {"opaque_quantization"}
    assert any(title in oddity.message for oddity in checkpoint.oddities)


def test_awq_of_another_kernel_is_named(tmp_path):
    tensors = {"x.qweight": np.zeros((8, 8), np.int16), "x.qzeros": np.zeros((8, 8), np.float16)}
    found, checkpoint = opened(write(tmp_path, {**tensors, "x.scales": np.zeros((8, 8), np.float16)}))
    assert len(found) == 3
    assert codes_of(checkpoint) == {"opaque_quantization"}


def test_a_part_beyond_the_end_of_its_file_costs_its_weight_only(tmp_path, rng):
    """The index reports the broken part; the rest is compared as stored."""
    from diffai_stream.formats.catalogue import open_checkpoint

    write(tmp_path, {"x.qweight": np.zeros((16, 64), np.int32), "x.qzeros": np.zeros((4, 8), np.int32)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    checkpoint = open_checkpoint(str(path))
    assert [error.tensor for error in checkpoint.errors] == ["x.qzeros"]
    assert [entry.name for entry in checkpoint.tensors] == ["x.qweight"]
