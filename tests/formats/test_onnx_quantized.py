"""Quantized weights of ONNX graphs: folded, decoded as onnxruntime computes them, or left and said."""

from __future__ import annotations

import re

import numpy as np
import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.plan.sources import Source
from tests.checkpoints import write_safetensors
from tests.messages import (
    field,
    onnx_attribute,
    onnx_constant,
    onnx_model,
    onnx_node,
    onnx_tensor,
    write_onnx,
)
from tests.validation import run, tensors

RANDOM = np.random.default_rng(0)


def numbers(**values: int) -> bytes:
    """Attributes that are one integer."""
    return b"".join(onnx_attribute(name, field(3, value)) for name, value in values.items())


def opened(folder, initializers, *nodes):
    path = write_onnx(folder / "m.onnx", onnx_model([onnx_tensor(n, v) for n, v in initializers.items()], nodes))
    return open_checkpoint(str(path))


def values_of(found, name) -> np.ndarray:
    (entry,) = [entry for entry in found.tensors if entry.name == name]
    raw = Source(entry, found.stamps, "auto").read(0, entry.numel)
    return raw.view(np.float32).reshape(entry.shape)


CODES = RANDOM.integers(-128, 127, (8, 6), np.int8)
SCALES = RANDOM.uniform(0.01, 1, 6).astype(np.float32)
ZEROS = RANDOM.integers(-9, 9, 6, np.int8)
PARTS = {"fc.weight_quantized": CODES, "fc.weight_scale": SCALES, "fc.weight_zero_point": ZEROS}
WEIGHT = (CODES.astype(np.float32) - ZEROS) * SCALES


def test_dequantize_linear_is_folded_under_the_name_of_the_weight(tmp_path):
    node = onnx_node("DequantizeLinear", PARTS, ["fc.weight_DequantizeLinear_Output"], more=numbers(axis=1))
    found = opened(tmp_path, {**PARTS, "fc.bias": SCALES}, node)
    assert [(entry.name, entry.encoding) for entry in found.tensors] == [("fc.weight", "DQ_I8"), ("fc.bias", "F32")]
    assert found.tensors[0].metadata == {
        **{"method": "onnx", "codes": "I8", "bits": "8", "axis": "1", "stored_name": "fc.weight_quantized"}
    }
    np.testing.assert_array_equal(values_of(found, "fc.weight"), WEIGHT)
    assert found.oddities == found.errors == ()


def test_scales_that_are_small_constants_are_no_hyperparameters(tmp_path):
    nodes = [
        onnx_constant("s", np.array(0.5, np.float32)),
        onnx_constant("z", np.array(3, np.int8)),
        onnx_constant("other", np.array(2, np.int8)),
        onnx_node("DequantizeLinear", ["w", "s", "z"], ["y"]),
    ]
    found = opened(tmp_path, {"w": CODES}, *nodes)
    assert found.hyperparameters == {"other": 2}
    np.testing.assert_array_equal(values_of(found, "w"), (CODES.astype(np.float32) - 3) * 0.5)


@pytest.mark.parametrize(
    ("op", "inputs", "axis", "attributes"),
    [
        ("QLinearConv", ["x", "xs", "xz", *PARTS, "ys", "yz"], 0, {}),
        ("QLinearMatMul", ["x", "xs", "xz", *PARTS, "ys", "yz"], 1, {}),
        ("QGemm", ["x", "xs", "xz", *PARTS], 1, {}),
        ("QGemm", ["x", "xs", "xz", *PARTS], 0, {"transB": 1}),
        ("DynamicQuantizeMatMul", ["x", *PARTS], 1, {}),
        ("MatMulInteger", ["x", "fc.weight_quantized", "xz", "fc.weight_zero_point"], 1, {}),
        ("ConvInteger", ["x", "fc.weight_quantized", "xz", "fc.weight_zero_point"], 0, {}),
        ("MatMulIntegerToFloat", ["x", "fc.weight_quantized", "xs", "fc.weight_scale", "xz", "fc.weight_zero_point"], 1, {}),
    ],
)
def test_weights_of_integer_operators(tmp_path, op, inputs, axis, attributes):
    square = RANDOM.integers(-128, 127, (6, 6), np.int8)
    found = opened(tmp_path, {**PARTS, "fc.weight_quantized": square}, onnx_node(op, inputs, ["y"], more=numbers(**attributes)))
    assert [entry.name for entry in found.tensors] == ["fc.weight"]
    turned = (slice(None), None) if axis == 0 else (None, slice(None))
    meant = (square.astype(np.float32) - ZEROS[turned]) * SCALES[turned]
    np.testing.assert_array_equal(values_of(found, "fc.weight"), meant)


@pytest.mark.parametrize(
    ("change", "attributes", "message"),
    [
        ({"fc.weight_scale": SCALES[:5]}, {"axis": 1}, r"its scales are \[5\], \[6\] would fit"),
        ({}, {"axis": 2}, "its axis is 2, it has 2 axes"),
        ({}, {"axis": 1, "block_size": 4}, r"\[8, 2\] would fit"),
        ({}, {"axis": 1, "block_size": -4}, "not plausible"),
        ({"fc.weight_zero_point": ZEROS.astype(np.uint8)}, {"axis": 1}, "zero points are U8"),
        ({"fc.weight_scale": SCALES.astype(np.float64)}, {"axis": 1}, "scales are F64"),
    ],
)
def test_what_contradicts_itself_stays_as_it_is_stored(tmp_path, change, attributes, message):
    node = onnx_node("DequantizeLinear", PARTS, ["y"], "dq", more=numbers(**attributes))
    found = opened(tmp_path, PARTS | change, node)
    assert [entry.name for entry in found.tensors] == list(PARTS)
    (note,) = found.oddities
    assert (note.code, note.tensor) == ("quantized_as_stored", "dq")
    assert re.search(message, note.message)


def test_what_is_no_constant_is_left_alone(tmp_path):
    inputs = {"DequantizeLinear": ["activation", "fc.weight_scale"], "MatMulNBits": ["a", "b"]}
    nodes = [onnx_node(op, names, ["y"]) for op, names in inputs.items()]
    found = opened(tmp_path, PARTS, *nodes)
    assert [entry.name for entry in found.tensors] == list(PARTS)
    assert found.oddities == ()


def test_names_that_are_taken_are_kept(tmp_path):
    node = onnx_node("DequantizeLinear", PARTS, ["y"])
    found = opened(tmp_path, {**PARTS, "fc.weight": CODES}, node)
    assert [entry.name for entry in found.tensors] == ["fc.weight_quantized", "fc.weight"]


def test_a_quantized_model_against_the_original(tmp_path):
    node = onnx_node("DequantizeLinear", PARTS, ["y"], more=numbers(axis=1))
    path = write_onnx(tmp_path / "q.onnx", onnx_model([onnx_tensor(n, v) for n, v in PARTS.items()], [node]))
    record = tensors(run(write_onnx(tmp_path / "m.onnx", {"fc.weight": WEIGHT}), path, include_unchanged=True))["fc.weight"]
    assert (record["status"], record["new"]["encoding"]) == ("retyped", "DQ_I8")


# com.microsoft, against onnxruntime.
def packed_rows(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 rows of codes, the lowest bits first, each row padded to bytes."""
    spread = np.unpackbits(codes.astype(np.uint8)[..., None], axis=-1, bitorder="little")[..., :bits]
    return np.packbits(spread.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def executed(path, columns: int) -> np.ndarray:
    """What onnxruntime makes of the identity: the weight itself, [K, N]."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(columns, dtype=np.float32)})[0]


def runnable(path, initializers, op, inputs, attributes, rows, columns):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    node = helper.make_node(op, ["x", *inputs], ["y"], "/model/fc/MatMul_Q4", domain="com.microsoft", **attributes)
    given = helper.make_tensor_value_info("x", 1, [columns, columns])
    result = helper.make_tensor_value_info("y", 1, [columns, rows])
    made = [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()]
    graph = helper.make_graph([node], "g", [given], [result], made)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("columns", [64, 100])
def test_matmul_nbits(tmp_path, bits, zeros, columns):
    rows, size = 5, 32
    groups = -(-columns // size)
    codes = RANDOM.integers(0, 2**bits, (rows, groups, size))
    scales = RANDOM.uniform(0.01, 1, (rows, groups)).astype(np.float32)
    points = RANDOM.integers(0, 2**bits, (rows, groups))
    initializers = {"fc.weight_Q4": packed_rows(codes, bits), "fc.weight_scales": scales.reshape(-1)}
    if zeros == "packed":
        initializers["fc.weight_zero_points"] = packed_rows(points, bits).reshape(-1)
    elif zeros == "float":
        initializers["fc.weight_zero_points"] = points.astype(np.float32).reshape(-1)
    attributes = {"K": columns, "N": rows, "bits": bits, "block_size": size}
    path = runnable(tmp_path / "m.onnx", initializers, "MatMulNBits", list(initializers), attributes, rows, columns)
    found = open_checkpoint(str(path))
    assert [(e.name, e.encoding, e.shape) for e in found.tensors] == [("fc.weight", f"NBITS_I{bits}", (rows, columns))]
    subtracted = 2 ** (bits - 1) if zeros == "none" else points[..., None]
    meant = ((codes - subtracted) * scales[..., None]).astype(np.float32).reshape(rows, -1)[:, :columns]
    np.testing.assert_array_equal(values_of(found, "fc.weight"), meant)
    if (bits, zeros) != (8, "float"):  # which onnxruntime does not run on a CPU
        np.testing.assert_allclose(executed(path, columns).T, meant, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [0, 1])
def test_matmul_bnb4(tmp_path, kind):
    rows, columns, size = 4, 48, 32
    codes = RANDOM.integers(0, 16, rows * columns).astype(np.uint8)
    absmax = RANDOM.uniform(0.1, 2, rows * columns // size).astype(np.float32)
    initializers = {"fc.weight_Bnb4": codes[0::2] << 4 | codes[1::2], "fc.weight_absmax": absmax}
    attributes = {"K": columns, "N": rows, "block_size": size, "quant_type": kind}
    path = runnable(tmp_path / "m.onnx", initializers, "MatMulBnb4", list(initializers), attributes, rows, columns)
    found = open_checkpoint(str(path))
    (entry,) = found.tensors
    assert (entry.encoding, entry.shape) == (("BNB_FP4", "BNB_NF4")[kind], (rows, columns))
    np.testing.assert_allclose(values_of(found, entry.name), executed(path, columns).T, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "attributes"),
    [
        ({"fc.weight_Q4": np.zeros(7, np.uint8)}, {}),
        ({"fc.weight_scales": np.zeros(9, np.float32)}, {}),
        ({}, {"bits": 3}),
        ({}, {"N": -5}),
        ({}, {"N": 2**62}),
        ({}, {"block_size": 0}),
        ({}, {"block_size": 2**40}),
    ],
)
def test_matmul_nbits_that_cannot_be(tmp_path, change, attributes):
    parts = {"fc.weight_Q4": np.zeros((5, 2, 16), np.uint8), "fc.weight_scales": np.zeros(10, np.float32)} | change
    right = {"K": 64, "N": 5, "bits": 4, "block_size": 32} | attributes
    found = opened(tmp_path, parts, onnx_node("MatMulNBits", ["x", *parts], ["y"], more=numbers(**right)))
    assert [entry.name for entry in found.tensors] == list(parts)
    assert [note.code for note in found.oddities] == ["quantized_as_stored"]


def float_model(path):
    """A convolution and two linear layers, as onnxruntime can run them."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    weights = {
        **{"conv.weight": RANDOM.normal(size=(8, 3, 3, 3)), "conv.bias": RANDOM.normal(size=8)},
        **{
            "fc.weight": RANDOM.normal(size=(8, 32)),
            "out.weight": RANDOM.normal(size=(32, 16)),
            "out.bias": RANDOM.normal(size=16),
        },
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], "/conv/Conv", kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "/pool"),
        helper.make_node("Flatten", ["g"], ["f"], "/flatten"),
        helper.make_node("MatMul", ["f", "fc.weight"], ["m"], "/fc/MatMul"),
        helper.make_node("Gemm", ["m", "out.weight", "out.bias"], ["y"], "/out/Gemm"),
    ]
    given, result = helper.make_tensor_value_info("x", 1, [1, 3, 8, 8]), helper.make_tensor_value_info("y", 1, [1, 16])
    made = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("way", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_models_that_onnxruntime_quantized(tmp_path, way, per_channel):
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, made = float_model(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    options = {"weight_type": quantization.QuantType.QInt8, "per_channel": per_channel}
    if way == "dynamic":
        quantization.quantize_dynamic(path, made, **options)
    else:
        samples = iter([{"x": RANDOM.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(3)])
        reader = type("Samples", (quantization.CalibrationDataReader,), {"get_next": lambda self: next(samples, None)})()
        quantization.quantize_static(path, made, reader, quant_format=quantization.QuantFormat[way], **options)
    found = tensors(run(path, made, include_unchanged=True))
    for name in ("conv.weight", "fc.weight", "out.weight"):
        assert found[name]["new"]["encoding"] == "DQ_I8"
        assert 0 < found[name]["change"]["relative_l2"] < 0.02
    assert set(found) - {"conv.weight", "conv.bias", "fc.weight", "out.weight", "out.bias"} == (
        {"conv.bias_quantized", "out.bias_quantized"} if way == "QOperator" else set()  # their scale is a product
    )


# Names.
def test_made_up_names_are_taken_from_the_nodes(tmp_path):
    names = ("onnx::MatMul_7", "onnx::Conv_8", "12", "kept.weight")
    weights = {name: RANDOM.normal(size=(4, 6)).astype(np.float32) for name in names}
    nodes = [
        onnx_node("MatMul", ["x", "onnx::MatMul_7"], ["a"], "/model/layers.0/self_attn/q_proj/MatMul"),
        onnx_node("Conv", ["x", "onnx::Conv_8", "12"], ["b"], "/features/features.0/features.0.1/Conv"),
        onnx_node("MatMul", ["x", "kept.weight"], ["c"], "/other/MatMul"),
    ]
    found = opened(tmp_path, weights, *nodes)
    assert [entry.name for entry in found.tensors] == [
        *("model.layers.0.self_attn.q_proj.weight", "features.0.1.weight", "features.0.1.bias", "kept.weight")
    ]
    assert found.tensors[0].metadata == {"stored_name": "onnx::MatMul_7"}


def test_a_transposed_weight_of_an_export_equals_the_original(tmp_path):
    layers = [f"model.layers.0.self_attn.{name}" for name in ("q_proj", "k_proj")]
    weights = {
        f"{layer}.weight": RANDOM.normal(size=(rows, 64)).astype(np.float32)
        for layer, rows in zip(layers, (64, 32), strict=True)
    }
    paths = [f"/model/layers.0/self_attn/{name}/MatMul" for name in ("q_proj", "k_proj")]
    nodes = [onnx_node("MatMul", ["x", f"onnx::MatMul_{k}"], ["y"], path) for k, path in enumerate(paths)]
    exported = {f"onnx::MatMul_{k}": np.ascontiguousarray(value.T) for k, value in enumerate(weights.values())}
    path = write_onnx(tmp_path / "m.onnx", onnx_model([onnx_tensor(n, v) for n, v in exported.items()], nodes))
    old = write_safetensors(tmp_path / "m.safetensors", weights)
    found = tensors(run(old, path, include_unchanged=True))
    assert {name: (record["status"], record["match"]) for name, record in found.items()} == {
        f"{layer}.weight": ("unchanged", "transposed") for layer in layers
    }


def test_names_of_model_builders(tmp_path):
    found = opened(tmp_path, {"layers.0.attn.q_proj.MatMul.weight": WEIGHT, "layers.0.attn.q_proj.Add.bias": SCALES})
    assert [entry.name for entry in found.tensors] == ["layers.0.attn.q_proj.weight", "layers.0.attn.q_proj.bias"]
