"""torchao in safetensors: `X._weight_qdata`, `X._weight_scale`, `X._weight_zero_point`, described in the file's metadata.

The metadata of the file holds for each weight a JSON object with its class and attributes (`prototype/safetensors`). Plain
classes are decoded: Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, Int4Tensor (signed nibbles, the even column low; scale
and zero [groups, out], W = q * scale + zero as `int4_row_quantize_zp` of mslk and fbgemm defines them).
"""

from __future__ import annotations

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.inert import parse_json
from diffai_stream.formats.quantized.base import Folded, Found, Opaque, Refused, component, expect, logical
from diffai_stream.formats.quantized.scales import ScaleGrid, scale_grid

FLOATS = ("F32", "BF16", "F16")
F8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


def fold(found: Found) -> Folded | None:
    """A weight of one of the plain classes; None when the metadata does not tell of one."""
    name = _name(found)
    described = found.settings.metadata.get(name)
    if described is None:
        return None
    try:
        parsed = parse_json(described.encode(), name, what="its description")
    except FormatError as error:
        raise Refused(error.message) from None
    kind, values = parsed.get("_type"), parsed.get("_data")
    if kind == "Float8Tensor":
        return _scaled(found, name, values, F8)
    if kind in ("Int8Tensor", "IntxUnpackedToInt8Tensor"):
        return _scaled(found, name, values, ("I8",))
    if kind == "Int4Tensor":
        return _int4(found, name)
    raise Opaque(f"tensors of the class {str(kind)[:60]} are not decoded")


def _name(found: Found) -> str:
    """`module._weight_` + `qdata` is stored for `module.weight`."""
    module, _, attribute = found.stem.rpartition(".")
    return f"{module}.{attribute.removeprefix('_')}" if module else attribute.removeprefix("_")


def _scaled(found: Found, name: str, values: object, encodings: tuple[str, ...]) -> Folded:
    data, scales = found.need("_qdata", *encodings), found.need("_scale", *FLOATS)
    grid = _grid(data, scales, values)
    parts = {"data": component(data), "scales": component(scales, grid.shape)}
    zeros = found.optional("_zero_point", "I8", *FLOATS)
    if zeros is not None:
        parts["zeros"] = component(zeros, grid.shape)
    if found.get("_act_pre_scale") is not None:
        raise Refused("its activations are scaled beforehand, so the weight alone says nothing")
    is_float = data.encoding != "I8"
    parameters = {
        "method": "torchao",
        "codes": data.encoding if is_float else "signed",
        "bits": 8,
        "code_bits": _code_bits(values),
        "group_rows": grid.group_rows,
        "group_size": grid.group_columns,
    }
    encoding = f"{data.encoding}_SCALED"
    consumed = tuple(part.name for part in (data, scales, zeros) if part is not None)
    return Folded(logical(name, data.shape, encoding, parts, parameters), consumed)


def _code_bits(values: object) -> int | None:
    """Bits of codes that are kept in whole bytes, when the description says."""
    target = values.get("target_dtype") if isinstance(values, dict) else None
    name = target.get("_data") if isinstance(target, dict) else None
    digits = name.removeprefix("int") if isinstance(name, str) else ""
    return int(digits) if digits in set("1234567") else None


def _grid(data: TensorEntry, scales: TensorEntry, values: object) -> ScaleGrid:
    """The grid of the block size that the description gives, else of the shapes."""
    block = values.get("block_size") if isinstance(values, dict) else None
    if isinstance(block, list) and len(block) == 2 == len(data.shape) and all(type(size) is int and size > 0 for size in block):
        shape = -(-data.shape[0] // block[0]), -(-data.shape[1] // block[1])
        if scales.numel == shape[0] * shape[1]:
            return ScaleGrid(block[0], block[1], shape)
    return scale_grid(data.shape, scales.shape)


def _int4(found: Found, name: str) -> Folded:
    data, scales, zeros = found.need("_qdata", "U8", "I8"), found.need("_scale", *FLOATS), found.need("_zero_point", *FLOATS)
    if len(data.shape) != 2 or len(scales.shape) != 2:
        raise Refused("only matrices of Int4Tensor are decoded")
    if found.get("_act_pre_scale") is not None:
        raise Refused("its activations are scaled beforehand, so the weight alone says nothing")
    rows, columns, groups = data.shape[0], 2 * data.shape[1], scales.shape[0]
    expect(scales, groups, rows)
    expect(zeros, groups, rows)
    if not groups or columns % groups:
        raise Refused(f"{groups} groups do not divide {columns} columns")
    turned = {key: component(part, (rows, groups), (1, rows)) for key, part in (("scales", scales), ("biases", zeros))}
    parts = {"data": component(data), **turned}
    parameters = {"method": "torchao", "codes": "signed_nibbles", "bits": 4, "group_size": columns // groups}
    return Folded(logical(name, (rows, columns), "I4_SCALED", parts, parameters), (data.name, scales.name, zeros.name))
