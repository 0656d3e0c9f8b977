"""DequantizeLinear against the reference implementation of the onnx package, every type and every way to lay scales."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.encodings import dequantize_linear
from diffai_stream.encodings.quantized import DEQUANTIZED
from tests.encodings.harness import decoded, entry_over

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference.ops.op_dequantize_linear")
TYPES = {
    **{"I2": ml_dtypes.int2, "U2": ml_dtypes.uint2, "I4": ml_dtypes.int4, "U4": ml_dtypes.uint4, "F4": ml_dtypes.float4_e2m1fn},
    **{"I8": np.int8, "U8": np.uint8, "I16": np.int16, "U16": np.uint16, "I32": np.int32},
    **{"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz},
    **{"F8_E5M2": ml_dtypes.float8_e5m2, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz},
}
SCALES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def drawn(kind: str, shape, random) -> np.ndarray:
    """Codes of a type, all of them."""
    if kind[0] == "F":
        return np.asarray(random.normal(size=shape) * 2).astype(TYPES[kind])
    bits, low = int(kind[1:]), -(2 ** (int(kind[1:]) - 1)) if kind[0] == "I" else 0
    return np.asarray(random.integers(low, low + 2**bits - 1, shape, endpoint=True)).astype(TYPES[kind])


def stored(kind: str, values: np.ndarray) -> np.ndarray:
    """The bytes as ONNX stores them: small codes packed, the lowest bits first."""
    bits = DEQUANTIZED.get(kind, 8)
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    if bits >= 8:
        return raw
    codes = np.unpackbits(raw[:, None], axis=1, bitorder="little")[:, :bits]
    return np.packbits(codes.reshape(-1), bitorder="little")


def scales_shape(shape, way: str, axis: int, block: int) -> tuple[int, ...]:
    if way == "tensor":
        return ()
    if way == "axis":
        return (shape[axis],)
    return (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :])


def check(kind, scale_kind, shape, way, axis, block, with_zeros, seed):
    random = np.random.default_rng(seed)
    codes = drawn(kind, shape, random)
    scales = np.asarray(random.uniform(0.01, 2, scales_shape(shape, way, axis, block))).astype(SCALES[scale_kind])
    zeros = drawn(kind, scales.shape, random) if with_zeros and kind[0] != "F" and kind != "I32" else None
    block = block if way == "block" else 0
    parts = {"data": (kind, stored(kind, codes), shape, None)}
    parts["scales"] = (scale_kind, scales.reshape(-1).view(np.uint8), scales.shape, None)
    if zeros is not None:
        parts["zeros"] = (kind, stored(kind, zeros), scales.shape, None)
    metadata = {"codes": kind} | ({"axis": axis} if way != "tensor" else {}) | ({"block_size": block} if block else {})
    found = decoded("dequantize_linear", *entry_over(shape, f"DQ_{kind}", metadata, **parts), seed)
    operator = reference.DequantizeLinear_25.eval
    with np.errstate(over="ignore"):  # int32 codes in half precision
        meant = operator(codes, scales, zeros, axis=axis, block_size=block)
        np.testing.assert_array_equal(found.astype(scales.dtype).view(np.uint8), np.asarray(meant).view(np.uint8))


@pytest.mark.parametrize("kind", DEQUANTIZED)
@pytest.mark.parametrize(
    ("way", "axis"), [("tensor", 0), ("axis", 0), ("axis", 1), ("axis", 2), ("block", 0), ("block", 1), ("block", 2)]
)
@pytest.mark.parametrize("with_zeros", [False, True])
def test_every_type_and_layout(kind, way, axis, with_zeros):
    check(kind, "F32", (6, 5, 7), way, axis, 3, with_zeros, 0)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(list(DEQUANTIZED)),
    st.sampled_from(list(SCALES)),
    st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    st.sampled_from(["tensor", "axis", "block"]),
    st.integers(0, 3),
    st.integers(1, 50),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_any_shape(kind, scale_kind, shape, way, axis, block, with_zeros, seed):
    check(kind, scale_kind, shape, way, axis % len(shape), block, with_zeros, seed)


def test_long_rows_are_not_read_whole(monkeypatch):
    monkeypatch.setattr(dequantize_linear, "_MAX_COLUMNS", 16)
    for way, axis in (("axis", 0), ("axis", 1), ("block", 0), ("block", 1)):
        check("I4", "F16", (3, 50), way, axis, 7, True, 1)


def test_large_tensors_under_one_scale():
    check("U8", "F32", (3, 5000), "tensor", 0, 0, True, 2)
    check("I4", "F32", (3, 4999), "tensor", 0, 0, True, 2)
