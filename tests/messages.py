"""Protobuf messages for tests, written field by field, so that what no library would write can be written too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
ONNX_TYPES = {
    **{"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10},
    **{"float64": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15, "bfloat16": 16},
    **{"float8_e4m3fn": 17, "float8_e4m3fnuz": 18, "float8_e5m2": 19, "float8_e5m2fnuz": 20, "float8_e8m0fnu": 24},
}


def varint(number: int) -> bytes:
    """A 64-bit varint; negative numbers in two's complement, ten bytes long."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def key(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def field(number: int, value: int | str | bytes, length: int | None = None) -> bytes:
    """An integer as a varint, text and bytes with their length, which `length` lies about."""
    if isinstance(value, int):
        return key(number, VARINT) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return key(number, BYTES) + varint(len(raw) if length is None else length) + raw


def packed(number: int, values: Iterable[int]) -> bytes:
    return field(number, b"".join(map(varint, values)))


def pairs(number: int, texts: Mapping[str, object]) -> bytes:
    return b"".join(field(number, field(1, name) + field(2, str(value))) for name, value in texts.items())


def onnx_tensor(name: str, value: np.ndarray, *, raw: bool = True, packed_dims: bool = False) -> bytes:
    """A TensorProto; without `raw` only name, type and shape."""
    dims = packed(1, value.shape) if packed_dims else b"".join(field(1, size) for size in value.shape)
    head = dims + field(2, ONNX_TYPES[value.dtype.name])
    return head + field(8, name) + (field(9, np.ascontiguousarray(value).tobytes()) if raw else b"")


def onnx_external(name: str, value: np.ndarray, **declared: object) -> bytes:
    """A TensorProto whose bytes lie in a file."""
    return onnx_tensor(name, value, raw=False) + pairs(13, declared) + field(14, 1)


def onnx_model(initializers: Iterable[bytes] = (), nodes: Iterable[bytes] = (), more: bytes = b"") -> bytes:
    graph = b"".join(field(1, node) for node in nodes) + field(2, "graph")
    graph += b"".join(field(5, tensor) for tensor in initializers)
    return field(1, 8) + field(2, "tests") + field(7, graph) + field(8, field(2, 21)) + more


def write_onnx(path: Path, tensors: Mapping[str, np.ndarray] | bytes) -> Path:
    model = tensors if isinstance(tensors, bytes) else onnx_model(onnx_tensor(name, v) for name, v in tensors.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)
    return path


def onnx_attribute(name: str, value: bytes) -> bytes:
    """A NodeProto's attribute field; `value` is the field of an AttributeProto."""
    return field(5, field(1, name) + value)


def onnx_node(op: str, inputs: Iterable[str] = (), outputs: Iterable[str] = (), name: str = "", more: bytes = b"") -> bytes:
    texts = b"".join(field(1, text) for text in inputs) + b"".join(field(2, text) for text in outputs)
    return texts + (field(3, name) if name else b"") + field(4, op) + more


def onnx_constant(name: str, value: np.ndarray) -> bytes:
    return onnx_node("Constant", (), [name], more=onnx_attribute("value", field(5, onnx_tensor("", value))))
