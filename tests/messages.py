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


# TensorFlow.
TF_TYPES = {
    **{"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8, "int64": 9, "bool": 10},
    **{"bfloat16": 14, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23},
    **{"float8_e5m2": 24, "float8_e4m3fn": 25, "float8_e4m3fnuz": 26, "float8_e5m2fnuz": 28},
}


def tf_shape(shape: Iterable[int]) -> bytes:
    """A TensorShapeProto."""
    return b"".join(field(2, field(1, size)) for size in shape)


def tf_tensor(value: np.ndarray, values: bytes | None = None) -> bytes:
    """A TensorProto with its content, or with `values` instead."""
    content = field(4, np.ascontiguousarray(value).tobytes()) if values is None else values
    return field(1, TF_TYPES[value.dtype.name]) + field(2, tf_shape(value.shape)) + content


def tf_node(name: str, op: str, attributes: Mapping[str, bytes]) -> bytes:
    """A NodeDef; `attributes` are AttrValues."""
    return field(1, name) + field(2, op) + b"".join(field(5, field(1, text) + field(2, v)) for text, v in attributes.items())


def tf_const(name: str, tensor: bytes) -> bytes:
    return tf_node(name, "Const", {"dtype": field(6, 1), "value": field(8, tensor)})


def tf_graph(nodes: Iterable[bytes], more: bytes = b"") -> bytes:
    """A GraphDef with a placeholder and these nodes."""
    first = tf_node("input", "Placeholder", {"dtype": field(6, 1)})
    return b"".join(field(1, node) for node in (first, *nodes)) + more


def crc32c(raw: bytes) -> int:
    """Bit by bit."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def table_block(items: Iterable[tuple[bytes, bytes]], interval: int = 16) -> bytes:
    """A LevelDB block: keys shortened by what they share with the one before, whole every `interval` items."""
    out, restarts, before = bytearray(), [], b""
    for number, (name, value) in enumerate(items):
        shared = 0
        if number % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(name), len(before)) and name[shared] == before[shared]:
                shared += 1
        out += varint(shared) + varint(len(name) - shared) + varint(len(value)) + name[shared:] + value
        before = name
    tail = [*(restarts or [0]), max(1, len(restarts))]
    return bytes(out) + b"".join(place.to_bytes(4, "little") for place in tail)


def table(items: Mapping[bytes, bytes], per_block: int = 4, kind: int = 0) -> bytes:
    """A LevelDB table of sorted items, a few a block."""
    out, places = bytearray(), []
    ordered = sorted(items.items())

    def add(block: bytes) -> bytes:
        place = varint(len(out)) + varint(len(block))
        crc = crc32c(block + bytes([kind]))
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        out.extend(block + bytes([kind]) + masked.to_bytes(4, "little"))
        return place

    for start in range(0, len(ordered), per_block):
        part = ordered[start : start + per_block]
        places.append((part[-1][0], add(table_block(part))))
    meta, index = add(table_block([])), add(table_block(places, 1))
    return bytes(out) + (meta + index).ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def tf_entry(value: np.ndarray, shard: int = 0, offset: int = 0, size: int | None = None, more: bytes = b"") -> bytes:
    """A BundleEntryProto."""
    nbytes = value.nbytes if size is None else size
    places = (field(3, shard) if shard else b"") + (field(4, offset) if offset else b"") + field(5, nbytes)
    return field(1, TF_TYPES[value.dtype.name]) + field(2, tf_shape(value.shape)) + places + more


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    shards: int = 1,
    more: Mapping[bytes, bytes] | None = None,
    header: bytes = b"",
) -> Path:
    """A checkpoint whose tensors go to the data files in turn; `more` entries of the index are taken as they are."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data, entries = [bytearray() for _ in range(shards)], {b"": field(1, shards) + header}
    for number, (name, value) in enumerate(tensors.items()):
        shard = number % shards
        entries[name.encode()] = tf_entry(value, shard, len(data[shard]))
        data[shard] += np.ascontiguousarray(value).tobytes()
    for number, raw in enumerate(data):
        Path(f"{prefix}.data-{number:05}-of-{shards:05}").write_bytes(raw)
    path = Path(f"{prefix}.index")
    path.write_bytes(table(entries | dict(more or {})))
    return path
