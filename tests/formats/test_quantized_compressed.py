"""compressed-tensors: whatever its own compressors write reads as what they decompress."""

import numpy as np
import pytest

from tests.quantized import codes_of, opened, values, write

torch = pytest.importorskip("torch")
pytest.importorskip("compressed_tensors")

from compressed_tensors.compressors import BaseCompressor  # noqa: E402
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: E402
from compressed_tensors.quantization.utils import calculate_qparams  # noqa: E402

NAME = "model.layers.0.mlp.up_proj"


def grouped(weight, group):
    return weight.reshape(weight.shape[0], -1, group)


def parameters(weight, args):
    """(scale, zero point) of a weight by the library's own rule, as its shapes have to be."""
    strategy = str(getattr(args.strategy, "value", args.strategy))
    if strategy == "tensor":
        low, high = weight.min().reshape(1), weight.max().reshape(1)
    elif strategy == "channel":
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    elif strategy == "group":
        low, high = grouped(weight, args.group_size).amin(2), grouped(weight, args.group_size).amax(2)
    else:
        rows, columns = args.block_structure
        padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % columns, 0, -weight.shape[0] % rows))
        blocks = padded.reshape(padded.shape[0] // rows, rows, -1, columns)
        low, high = blocks.amin((1, 3)), blocks.amax((1, 3))
    return calculate_qparams(low, high, args)


def compressed(weight, name, **described):
    """(tensors, config section, decompressed weight) of one layer."""
    args = QuantizationArgs(**described)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    scale, zero = parameters(weight, args)
    state = {"weight": weight, "weight_scale": scale}
    if not args.symmetric:
        state["weight_zero_point"] = zero
    compressor = BaseCompressor.get_value_from_registry(name)
    stored = compressor.compress(state, scheme)
    restored = compressor.decompress(dict(stored), scheme)["weight"]
    config = {"quant_method": "compressed-tensors", "format": name, "config_groups": {"group_0": {"weights": described}}}
    return {f"{NAME}.{key}": value for key, value in stored.items()}, config, restored


def weight_of(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32))


def check(tmp_path, tensors, config, restored, encoding, rounding=1e-6):
    for where, section in (("with", config), ("without", None)):
        found, checkpoint = opened(write(tmp_path / where, tensors, section))
        assert set(found) == {f"{NAME}.weight"}
        entry = found[f"{NAME}.weight"]
        assert (entry.encoding, entry.shape) == (encoding, tuple(restored.shape))
        np.testing.assert_allclose(values(entry), restored.to(torch.float32).numpy(), rtol=rounding, atol=1e-9)
        assert not codes_of(checkpoint)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "strategy", "group", "columns"), [
    (4, "group", 128, 512), (4, "group", 32, 256), (8, "channel", None, 100), (3, "group", 64, 320), (5, "group", 32, 96),
    (2, "group", 64, 128), (6, "channel", None, 97), (7, "channel", None, 64), (4, "channel", None, 99),
])  # fmt: skip
def test_packed_integers(tmp_path, bits, strategy, group, columns, symmetric):
    described = {"num_bits": bits, "type": "int", "strategy": strategy, "group_size": group, "symmetric": symmetric}
    made = compressed(weight_of(70, columns), "pack-quantized", **described)
    check(tmp_path, *made, f"I{bits}_PACKED")


def test_packed_with_activation_order(tmp_path):
    described = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    weight = weight_of(40, 128)
    tensors, config, _ = compressed(weight, "pack-quantized", **described)
    order = np.random.default_rng(1).permutation(128)
    index = (np.arange(128) // 32)[order].astype(np.int32)
    found, _ = opened(write(tmp_path, {**tensors, f"{NAME}.weight_g_idx": index}, config))
    plain, _ = opened(write(tmp_path / "plain", tensors, config))
    scale = tensors[f"{NAME}.weight_scale"].numpy().astype(np.float64)
    codes = values(plain[f"{NAME}.weight"]) / np.repeat(scale, 32, 1)
    np.testing.assert_allclose(values(found[f"{NAME}.weight"]), codes * scale[:, index], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bits", [3, 5, 6])
@pytest.mark.parametrize("symmetric", [True, False])
def test_widths_that_do_not_divide_words_were_once_padded(tmp_path, bits, symmetric):
    """Before May 2026: 32 // bits codes a word, the rest unused; zero points likewise."""
    rng = np.random.default_rng(bits)
    rows, columns, each = 50, 128, 32 // bits
    codes, scales = rng.integers(0, 1 << bits, (rows, columns)), rng.uniform(0.01, 0.02, (rows, 4)).astype(np.float32)
    zeros = rng.integers(0, 1 << bits, (rows, 4))

    def padded(numbers):
        filled = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % each))).reshape(len(numbers), -1, each)
        return (filled << (bits * np.arange(each))).sum(2).astype(np.uint32).view(np.int32)

    tensors = {"x.weight_packed": padded(codes), "x.weight_scale": scales, "x.weight_shape": np.array([rows, columns])}
    if not symmetric:
        tensors["x.weight_zero_point"] = np.ascontiguousarray(padded(zeros.T).T)
    found, _ = opened(write(tmp_path, tensors))
    zero = 1 << (bits - 1) if symmetric else np.repeat(zeros, 32, 1)
    np.testing.assert_allclose(values(found["x.weight"]), (codes - zero) * np.repeat(scales, 32, 1), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("strategy", "block"), [("tensor", None), ("channel", None), ("block", [128, 128])])
@pytest.mark.parametrize("columns", [256, 300])
def test_floats_of_8_bits(tmp_path, strategy, block, columns):
    described = {"num_bits": 8, "type": "float", "strategy": strategy, "block_structure": block}
    check(tmp_path, *compressed(weight_of(200, columns), "float-quantized", **described), "F8_E4M3_SCALED")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("strategy", "group"), [("tensor", None), ("channel", None), ("group", 64)])
def test_bytes(tmp_path, strategy, group, symmetric):
    described = {"num_bits": 8, "type": "int", "strategy": strategy, "group_size": group, "symmetric": symmetric}
    check(tmp_path, *compressed(weight_of(40, 192), "int-quantized", **described), "I8_SCALED")


def test_nvfp4(tmp_path):
    weight = weight_of(48, 128)
    overall = torch.tensor([448.0 * 6 / weight.abs().max()])
    scale = grouped(weight, 16).abs().amax(2) / 6 * overall
    args = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized")
    state = {"weight": weight, "weight_scale": scale.to(torch.float8_e4m3fn).float(), "weight_global_scale": overall}
    stored = compressor.compress(state, scheme)
    restored = compressor.decompress(dict(stored), scheme)["weight"]
    config = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    tensors = {f"{NAME}.{key}": value for key, value in stored.items()}
    check(tmp_path, tensors, config, restored, "NVFP4", rounding=2**-7)  # the library rounds to bfloat16 on the way


def test_mxfp4(tmp_path):
    weight = weight_of(48, 128)
    scale = torch.exp2(torch.floor(torch.log2(grouped(weight, 32).abs().amax(2))) - 2)
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32)
    )
    compressor = BaseCompressor.get_value_from_registry("mxfp4-pack-quantized")
    stored = compressor.compress({"weight": weight, "weight_scale": scale}, scheme)
    restored = compressor.decompress(dict(stored), scheme)["weight"]
    tensors = {f"{NAME}.{key}": value for key, value in stored.items()}
    check(tmp_path, tensors, {"quant_method": "compressed-tensors"}, restored, "MXFP4")


def test_mxfp8(tmp_path):
    weight = weight_of(48, 128)
    exponents = torch.floor(torch.log2(grouped(weight, 32).abs().amax(2))) - 8
    codes = (grouped(weight, 32) / torch.exp2(exponents)[..., None]).to(torch.float8_e4m3fn)
    tensors = {f"{NAME}.weight": codes.reshape(48, 128), f"{NAME}.weight_scale": (exponents + 127).to(torch.uint8)}
    restored = (codes.float() * torch.exp2(exponents)[..., None]).reshape(48, 128)
    check(tmp_path, tensors, {"quant_method": "compressed-tensors"}, restored, "MXFP8")


@pytest.mark.parametrize(("key", "value", "said"), [
    ("weight_shape", np.array([70, 512, 3]), "no shape of 2 axes"),
    ("weight_shape", np.array([-1, 512]), "no shape of 2 axes"),
    ("weight_shape", np.array([71, 512]), "has shape"),
    ("weight_shape", np.array([70, 2**39]), "fit no width"),
    ("weight_shape", None, "is missing"),
    ("weight_scale", None, "is missing"),
    ("weight_scale", np.ones((70, 7), np.float32), "do not divide"),
    ("weight_scale", np.ones((3, 4), np.float32), "do not lie over"),
    ("weight_g_idx", np.zeros(5, np.int32), "has shape"),
    ("weight_zero_point", np.zeros((5, 5), np.int32), "has shape"),
    ("weight_scale_packed", np.ones(3, np.float32), "marlin"),
])  # fmt: skip
def test_parts_that_contradict_each_other_stay_as_stored(tmp_path, key, value, said):
    described = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
    tensors, config, _ = compressed(weight_of(70, 512), "pack-quantized", **described)
    tensors[f"{NAME}.{key}"] = value
    tensors = {name: value for name, value in tensors.items() if value is not None}
    found, checkpoint = opened(write(tmp_path, tensors, config))
    assert set(found) == set(tensors)
    assert codes_of(checkpoint) <= {"quantized_as_stored", "opaque_quantization"}
    assert any(said in oddity.message for oddity in checkpoint.oddities)


def test_rotated_weights_are_said_to_be_so(tmp_path):
    described = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
    tensors, config, _ = compressed(weight_of(70, 512), "pack-quantized", **described)
    _, checkpoint = opened(write(tmp_path, tensors, {**config, "transform_config": {"config_groups": {"R1": {}}}}))
    assert codes_of(checkpoint) == {"rotated_weights"}
