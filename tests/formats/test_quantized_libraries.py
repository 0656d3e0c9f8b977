"""bitsandbytes, torchao, HQQ, gpt-oss: what their own code dequantizes."""

import json

import numpy as np
import pytest

from tests.quantized import codes_of, opened, values, write

torch = pytest.importorskip("torch")


def weight_of(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32))


def close(found, expected, **tolerance):
    np.testing.assert_allclose(found, expected.to(torch.float32).numpy(), **{"rtol": 1e-6, "atol": 1e-12, **tolerance})


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(("rows", "columns", "size"), [(64, 128, 64), (33, 70, 64), (300, 256, 128), (5, 7, 64)])
def test_bitsandbytes_4bit(tmp_path, rows, columns, size, kind, nested):
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = weight_of(rows, columns)
    codes, state = functional.quantize_4bit(weight, blocksize=size, quant_type=kind, compress_statistics=nested)
    restored = functional.dequantize_4bit(codes, state)
    tensors = {"x.weight": codes}
    tensors |= {f"x.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    found, checkpoint = opened(write(tmp_path, tensors, {"quant_method": "bitsandbytes", "load_in_4bit": True}))
    assert set(found) == {"x.weight"}
    entry = found["x.weight"]
    assert (entry.encoding, entry.shape) == (f"BNB_{kind.upper()}", (rows, columns))
    close(values(entry), restored, atol=1e-9)
    assert entry.stored_nbytes == sum(
        value.numel() * value.element_size() for name, value in tensors.items() if "state" not in name
    )
    assert not codes_of(checkpoint)


def test_bitsandbytes_4bit_stored_as_another_type(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    codes, state = functional.quantize_4bit(weight_of(64, 64), quant_type="nf4", quant_storage=torch.bfloat16)
    tensors = {"x.weight": codes, **{f"x.weight.{key}": value for key, value in state.as_dict(packed=True).items()}}
    found, _ = opened(write(tmp_path, tensors))
    close(values(found["x.weight"]), functional.dequantize_4bit(codes, state))


def test_bitsandbytes_int8(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    codes, scales, _ = functional.int8_vectorwise_quant(weight_of(48, 100).to(torch.float16))
    tensors = {"x.weight": codes, "x.SCB": scales, "x.weight_format": torch.zeros((), dtype=torch.uint8)}
    found, _ = opened(write(tmp_path, tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True}))
    assert set(found) == {"x.weight"}
    assert found["x.weight"].encoding == "BNB_I8"
    close(values(found["x.weight"]), functional.int8_vectorwise_dequant(codes, scales))


@pytest.mark.parametrize(("change", "said"), [
    ({"shape": [64, 65]}, "needs 2080"), ({"shape": "no"}, "is no list"), ({"shape": [2**40, 2**40]}, "overflows"),
    ({"blocksize": 0}, "blocksize"), ({"blocksize": 32}, "does not hold"), ({"nested_offset": "x"}, "nested_offset"),
    ({"nested_blocksize": 2}, "has shape"),
])  # fmt: skip
def test_bitsandbytes_state_is_not_believed(tmp_path, change, said):
    functional = pytest.importorskip("bitsandbytes.functional")
    codes, state = functional.quantize_4bit(weight_of(64, 64), quant_type="nf4", compress_statistics=True)
    tensors = {"x.weight": codes, **{f"x.weight.{key}": value for key, value in state.as_dict(packed=True).items()}}
    key = "x.weight.quant_state.bitsandbytes__nf4"
    told = json.loads(bytes(tensors[key].tolist()))
    tensors[key] = np.frombuffer(json.dumps({**told, **change}).encode(), np.uint8)
    found, checkpoint = opened(write(tmp_path, tensors))
    assert set(found) == set(tensors)
    assert codes_of(checkpoint) == {"quantized_as_stored"}
    assert any(said in oddity.message for oddity in checkpoint.oddities)


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b"[" * 5000, b""])
def test_bitsandbytes_state_that_is_no_json(tmp_path, raw):
    tensors = {
        "x.weight": np.zeros((32, 1), np.uint8),
        "x.weight.absmax": np.zeros(1, np.float32),
        "x.weight.quant_map": np.zeros(16, np.float32),
        "x.weight.quant_state.bitsandbytes__nf4": np.frombuffer(raw, np.uint8),
    }
    found, checkpoint = opened(write(tmp_path, tensors))
    assert set(found) == set(tensors)
    assert codes_of(checkpoint) == {"quantized_as_stored"}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("bits", "rows", "columns", "size"), [
    (8, 32, 128, 64), (4, 64, 128, 64), (2, 64, 128, 32), (1, 64, 128, 64), (3, 64, 160, 32), (3, 60, 128, 64),
])  # fmt: skip
def test_hqq(tmp_path, bits, rows, columns, size, axis):
    quantize = pytest.importorskip("hqq.core.quantize")
    utils = pytest.importorskip("hqq.core.utils")
    quantizer = quantize.Quantizer
    packed, meta = quantizer.quantize(
        weight_of(rows, columns),
        nbits=bits,
        group_size=size,
        axis=axis,
        optimize=False,
        device="cpu",
        compute_dtype=torch.float32,
    )
    meta |= {"compute_dtype": torch.float32, "quant_scale": False, "quant_zero": False}
    tensors = {f"x.{key}": utils.encode_safetensor_type(value) for key, value in meta.items()}
    tensors |= {"x.W_q": packed, "x.offload_meta": torch.tensor(0, dtype=torch.uint8)}
    found, _ = opened(write(tmp_path, tensors, {"quant_method": "hqq"}))
    assert set(found) == {"x.weight"}
    entry = found["x.weight"]
    assert (entry.encoding, entry.shape) == (f"HQQ_I{bits}", (rows, columns))
    close(values(entry), quantizer.dequantize(packed, meta), atol=1e-9)


def torchao_saved(weight, config):
    quantization = pytest.importorskip("torchao.quantization")
    support = pytest.importorskip("torchao.prototype.safetensors.safetensors_support")
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight)
    quantization.quantize_(layer, config(quantization))
    tensors, metadata = support.flatten_tensor_state_dict({"m.weight": layer.weight.data})
    return tensors, metadata, layer.weight.data.dequantize()


@pytest.mark.parametrize(("config", "encoding"), [
    (lambda q: q.Float8WeightOnlyConfig(), "F8_E4M3_SCALED"),
    (lambda q: q.Int8WeightOnlyConfig(version=2), "I8_SCALED"),
    (lambda q: q.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=q.PerGroup(32), version=2), "I8_SCALED"),
    (lambda q: q.IntxWeightOnlyConfig(
        weight_dtype=torch.int3, granularity=q.PerAxis(0), mapping_type=q.MappingType.ASYMMETRIC, version=2), "I8_SCALED"),
])  # fmt: skip
def test_torchao(tmp_path, config, encoding):
    tensors, metadata, restored = torchao_saved(weight_of(48, 128), config)
    found, checkpoint = opened(write(tmp_path, tensors, metadata=metadata))
    assert set(found) == {"m.weight"}
    assert found["m.weight"].encoding == encoding
    close(values(found["m.weight"]), restored, atol=1e-9)
    assert not codes_of(checkpoint)


def test_torchao_int4(tmp_path):
    """Its writer needs a GPU library, so the formula of `int4_row_quantize_zp` is written out: w = q * scale + zero."""
    rng = np.random.default_rng(0)
    codes, scale, zero = rng.integers(-8, 8, (24, 64)), rng.uniform(0.01, 0.02, (2, 24)), rng.normal(0, 0.01, (2, 24))
    scale, zero = scale.astype(np.float32), zero.astype(np.float32)
    packed = ((codes[:, 1::2] << 4) | (codes[:, ::2] & 15)).astype(np.uint8)
    told = {"_type": "Int4Tensor", "_data": {"block_size": [1, 32]}, "_tensor_data_names": ["qdata", "scale", "zero_point"]}
    tensors = {"m._weight_qdata": packed, "m._weight_scale": scale, "m._weight_zero_point": zero}
    metadata = {"m.weight": json.dumps(told), "tensor_names": '["m.weight"]'}
    found, _ = opened(write(tmp_path, tensors, metadata=metadata))
    expected = codes * np.repeat(scale.T, 32, 1).astype(np.float64) + np.repeat(zero.T, 32, 1)
    np.testing.assert_allclose(values(found["m.weight"]), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("told", ['{"_type": "Int4TilePackedTo4dTensor"}', "{", '{"_type": {}}', '{"_type": "Float8Tensor"}'])
def test_torchao_descriptions_are_not_believed(tmp_path, told):
    tensors = {"m._weight_qdata": np.zeros((4, 4), np.int32), "m._weight_scale": np.ones(3, np.float32)}
    found, checkpoint = opened(write(tmp_path, tensors, metadata={"m.weight": told}))
    assert set(found) == set(tensors)
    assert codes_of(checkpoint) <= {"opaque_quantization", "quantized_as_stored"}
    assert codes_of(checkpoint)


@pytest.mark.parametrize(("experts", "rows", "columns"), [(3, 64, 96), (2, 130, 64), (1, 8, 320)])
def test_gpt_oss_experts(tmp_path, experts, rows, columns):
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    rng = np.random.default_rng(rows)
    blocks = torch.from_numpy(rng.integers(0, 256, (experts, rows, columns // 32, 16), dtype=np.uint8))
    scales = torch.from_numpy(rng.integers(120, 132, (experts, rows, columns // 32), dtype=np.uint8))
    restored = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    tensors = {"experts.gate_up_proj_blocks": blocks, "experts.gate_up_proj_scales": scales}
    bias = {"experts.gate_up_proj_bias": torch.zeros(experts, rows)}
    found, _ = opened(write(tmp_path, {**tensors, **bias}, {"quant_method": "mxfp4"}))
    assert set(found) == {"experts.gate_up_proj", *bias}
    entry = found["experts.gate_up_proj"]
    assert (entry.encoding, entry.shape) == ("MXFP4", (experts, columns, rows)) == (entry.encoding, tuple(restored.shape))
    close(values(entry), restored)
