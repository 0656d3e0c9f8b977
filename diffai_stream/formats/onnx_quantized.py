"""Quantized weights of ONNX graphs: what a node dequantizes is folded with its scales and zero points into one tensor.

`DequantizeLinear` (onnx), `QLinearConv`, `QLinearMatMul`, `MatMulInteger`, `ConvInteger` (onnx), `QGemm`,
`DynamicQuantizeMatMul`, `MatMulIntegerToFloat`, `MatMulNBits`, `MatMulBnb4` (com.microsoft, ContribOperators.md of
onnxruntime). Only inputs that are constants are folded; what does not fit together stays as it is stored, and a note says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.quantized import DEQUANTIZED
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.onnx_graph import Node
from diffai_stream.formats.onnx_names import plain_input
from diffai_stream.formats.small_constants import Scalar

_FLOATS = ("F32", "F16", "BF16")
_NBITS = (2, 4, 8)
_MAX_GROUP = 1 << 20
Find = Callable[[str], TensorEntry | None]


class Refused(Exception):
    """Why the inputs of a node are left as they are stored."""


class Folded(NamedTuple):
    """The logical tensor, and the names of the stored ones it is made of, the codes first."""

    entry: TensorEntry
    consumed: tuple[str, ...]


class _Roles(NamedTuple):
    """Which inputs of an operator are codes, scales and zero points; `axis` is that of scales that are a vector."""

    codes: int
    scales: int
    zeros: int
    axis: int = 1


_QLINEAR = (
    "Add",
    "Mul",
    "Sigmoid",
    "LeakyRelu",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Softmax",
    "Where",
    "ReduceMean",
)
_LINEAR = {
    "DequantizeLinear": _Roles(0, 1, 2),
    "QLinearConv": _Roles(3, 4, 5, 0),
    "QLinearMatMul": _Roles(3, 4, 5, -1),
    "QGemm": _Roles(3, 4, 5, -1),
    "MatMulInteger": _Roles(1, -1, 3, -1),
    "ConvInteger": _Roles(1, -1, 3, 0),
    "DynamicQuantizeMatMul": _Roles(1, 2, 3, -1),
    "MatMulIntegerToFloat": _Roles(1, 3, 5, -1),
}
FOLDED = frozenset((*_LINEAR, "MatMulNBits", "MatMulBnb4"))
OPS = FOLDED | {"QuantizeLinear", *(f"QLinear{name}" for name in _QLINEAR)}


def fold(node: Node, find: Find) -> Folded | None:
    """What one node makes of constants; None when its weight is not one. Raises Refused when they contradict each other."""
    if node.op == "MatMulNBits":
        return _nbits(node, find)
    if node.op == "MatMulBnb4":
        return _bnb4(node, find)
    return _linear(node, find, _LINEAR[node.op])


def steps_of_activations(node: Node, find: Find) -> list[TensorEntry]:
    """The single numbers among the inputs of a node that quantizes: scales and zero points of what flows through it."""
    if node.op not in OPS or node.op in ("MatMulNBits", "MatMulBnb4"):
        return []
    found = [find(name) for name in node.inputs if name]
    return [entry for entry in found if entry is not None and not entry.shape]


def _input(node: Node, place: int, find: Find) -> TensorEntry | None:
    return find(node.inputs[place]) if 0 <= place < len(node.inputs) and node.inputs[place] else None


def _linear(node: Node, find: Find, roles: _Roles) -> Folded | None:
    codes = _input(node, roles.codes, find)
    if codes is None or codes.encoding not in DEQUANTIZED:
        return None
    scales = _input(node, roles.scales, find) if roles.scales >= 0 else find(plain_input(codes.name) + "_scale")
    if scales is None:  # computed, or applied by a node that is not known
        return None
    zeros = _input(node, roles.zeros, find)
    axis, block = _axis(node, roles, codes.shape), _integer(node, "block_size", 0)
    if scales.encoding not in _FLOATS:
        raise Refused(f"its scales are {scales.encoding}, which is no float")
    _check_scales(codes.shape, scales.shape, axis, block)
    if zeros is not None and codes.encoding[0] == "F":  # only zero is allowed
        zeros = None
    if zeros is not None and (zeros.encoding, prod(zeros.shape)) != (codes.encoding, prod(scales.shape)):
        raise Refused(f"its zero points are {zeros.encoding} {zeros.shape}, its scales {scales.shape}")
    single = prod(scales.shape) == 1 and not block
    numbers: dict[str, Scalar] = {"codes": codes.encoding, "bits": DEQUANTIZED[codes.encoding]}
    numbers |= {} if single else {"axis": axis}
    numbers |= {"block_size": block} if block else {}
    return _folded(f"DQ_{codes.encoding}", codes.shape, {"data": codes, "scales": scales, "zeros": zeros}, numbers)


def _axis(node: Node, roles: _Roles, shape: tuple[int, ...]) -> int:
    axis = _integer(node, "axis", roles.axis)
    if node.op == "QGemm" and _integer(node, "transB", 0):
        axis = 0
    return axis + len(shape) if axis < 0 else axis


def _check_scales(shape: tuple[int, ...], scales: tuple[int, ...], axis: int, block: int) -> None:
    """Raise Refused unless the scales are one, one an index of the axis, or one for `block` indices of it."""
    if prod(scales) == 1 and not block:
        return
    if not 0 <= axis < len(shape):
        raise Refused(f"its axis is {axis}, it has {len(shape)} axes")
    if not 0 <= block <= _MAX_GROUP:
        raise Refused(f"a block of {block} elements is not plausible")
    due = (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :]) if block else (shape[axis],)
    if scales != due:
        raise Refused(f"its scales are {list(scales)}, {list(due)} would fit")


def _nbits(node: Node, find: Find) -> Folded | None:
    """`MatMulNBits`: B is [N, blocks of K, bytes of a block], the lowest bits first; W [N, K] = (code - zero point) * scale."""
    codes, scales = _input(node, 1, find), _input(node, 2, find)
    if codes is None or scales is None or codes.encoding != "U8":
        return None
    rows, columns = _integer(node, "N", 0), _integer(node, "K", 0)
    bits, size = _integer(node, "bits", 4), _integer(node, "block_size", 0)
    if bits not in _NBITS or size <= 0 or size > _MAX_GROUP or size * bits % 8 or rows <= 0 or columns <= 0:
        raise Refused(f"a matrix [{rows}, {columns}] of {bits} bits in blocks of {size} is not known")
    groups = -(-columns // size)
    _expect("codes", codes, rows * groups * size * bits // 8)
    _expect("scales", scales, rows * groups)
    zeros, g_idx = _input(node, 3, find), _input(node, 4, find)
    numbers: dict[str, Scalar] = {"codes": "bits", "bits": bits, "group_size": size}
    parts = {"data": _shaped(codes, (rows, codes.numel // rows)), "scales": _shaped(scales, (rows, groups))}
    if zeros is None:
        numbers["zero_point"] = 1 << (bits - 1)
    elif zeros.encoding == "U8":
        width = -(-groups * bits // 8)
        _expect("zero points", zeros, rows * width)
        parts["zeros"] = _shaped(zeros, (rows, width))
        numbers["zeros_axis"] = "columns"
    elif zeros.encoding == scales.encoding:
        _expect("zero points", zeros, rows * groups)
        parts["zeros"] = _shaped(zeros, (rows, groups))
    else:
        raise Refused(f"its zero points are {zeros.encoding}, its scales {scales.encoding}")
    if g_idx is not None:
        if g_idx.encoding != "I32":
            raise Refused(f"its g_idx is {g_idx.encoding}, I32 is needed")
        _expect("g_idx", g_idx, columns)
        parts["g_idx"] = _shaped(g_idx, (1, columns))
    return _folded(f"NBITS_I{bits}", (rows, columns), parts, numbers)


def _bnb4(node: Node, find: Find) -> Folded | None:
    """`MatMulBnb4`: flat codes of [N, K], the high nibble first, an absmax a block; quant_type 0 is fp4, 1 is nf4."""
    codes, absmax = _input(node, 1, find), _input(node, 2, find)
    if codes is None or absmax is None or codes.encoding != "U8":
        return None
    rows, columns, size, kind = (_integer(node, key, -1) for key in ("N", "K", "block_size", "quant_type"))
    if rows <= 0 or columns <= 0 or not 0 < size <= _MAX_GROUP or size % 2 or kind not in (0, 1):
        raise Refused(f"a matrix [{rows}, {columns}] of type {kind} in blocks of {size} is not known")
    numel = element_count((rows, columns))
    _expect("codes", codes, -(-numel // 2))
    _expect("absmax", absmax, -(-numel // size))
    parts = {"data": codes, "scales": _shaped(absmax, (-(-numel // size), 1))}
    return _folded(f"BNB_{('FP4', 'NF4')[kind]}", (rows, columns), parts, {"bits": 4, "group_size": size})


def _folded(
    encoding: str, shape: tuple[int, ...], parts: Mapping[str, TensorEntry | None], numbers: Mapping[str, Scalar]
) -> Folded:
    present = {name: entry for name, entry in parts.items() if entry is not None}
    components: dict[str, Component] = {name: entry.components["data"] for name, entry in present.items()}
    metadata = {"method": "onnx"} | {key: str(value) for key, value in numbers.items()}
    name = plain_input(present["data"].name)
    entry = TensorEntry(name, shape, encoding, components, metadata)
    return Folded(entry, tuple(part.name for part in present.values()))


def _shaped(entry: TensorEntry, shape: tuple[int, ...]) -> TensorEntry:
    """The entry with its elements in another shape."""
    component = entry.components["data"]
    return entry._replace(shape=shape, components={"data": component._replace(shape=shape)})


def _expect(what: str, entry: TensorEntry, count: int) -> None:
    if entry.numel != count or ENCODINGS[entry.encoding].bits < 8:
        raise Refused(f"its {what} are {entry.numel} numbers, {count} would fit")


def _integer(node: Node, key: str, default: int) -> int:
    value = node.numbers.get(key, default)
    return value if isinstance(value, int) else default
