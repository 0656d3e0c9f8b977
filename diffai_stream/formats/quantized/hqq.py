"""HQQ: `X.W_q` with `X.scale`, `X.zero` and a tensor for each parameter (`nbits`, `group_size`, `shape`, `axis`, `packing`).

The weight is laid out as a matrix of groups, [numel / g, g] (axis 1) or [g, numel / g] (axis 0), whose rows are cut into as
many parts as a stored item holds codes; part p lies above part p + 1 in the item (`core/bitpack.py`). W = (W_q - zero) * scale.
"""

from __future__ import annotations

from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.quantized.base import Folded, Found, Refused, component, logical, stored_bytes

PACKINGS = {"8bit_u8": (8, 1, 1), "4bit_u8": (4, 2, 1), "3bit_32": (3, 10, 4), "2bit_u8": (2, 4, 1), "1bit_u8": (1, 8, 1)}
FLOATS = ("F16", "BF16", "F32")
PARAMETERS = (
    *("nbits", "group_size", "shape", "axis", "packing", "quant_scale", "quant_zero", "view_as_float", "unpack_view_dtype"),
    *("compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize", "round_zero"),
)


def fold(found: Found) -> Folded | None:
    """An HQQ weight of the shape that is stored beside it."""
    data, scales, zeros = found.need(".W_q"), found.need(".scale", *FLOATS), found.need(".zero", *FLOATS)
    if any(_number(found, key, 0) for key in ("quant_scale", "quant_zero")):
        raise Refused("its scales or zeros are quantized themselves, which is not decoded")
    packing = _text(found, "packing")
    if packing not in PACKINGS:
        raise Refused(f"the packing {packing[:40]!r} is not known")
    bits, parts, itemsize = PACKINGS[packing]
    shape, axis = _integers(found.need(".shape")), _number(found, "axis", 1)
    try:
        numel = element_count(shape)
    except ValueError as error:
        raise Refused(str(error)) from None
    groups = scales.numel
    size, rest = divmod(numel, groups) if groups else (0, 1)
    if rest or axis not in (0, 1) or zeros.numel != groups:
        raise Refused(f"{groups} scales and {zeros.numel} zeros along axis {axis} do not divide {numel} weights")
    lines, columns = (groups, size) if axis == 1 else (size, groups)
    depth = -(-lines // parts)
    if data.stored_nbytes != depth * columns * itemsize:
        raise Refused(f"{data.name!r} has {data.stored_nbytes} bytes, {depth} x {columns} items of {itemsize} are needed")
    components = {
        "data": component(data),
        "scales": component(scales, (1, groups)),
        "zeros": component(zeros, (1, groups)),
    }
    parameters = {"method": "hqq", "bits": bits, "group_size": size, "axis": axis, "packing": packing}
    entry = logical(f"{found.stem}.weight", tuple(shape), f"HQQ_I{bits}", components, parameters)
    extra = (found.get(f".{key}") for key in PARAMETERS)
    return Folded(entry, tuple(part.name for part in (data, scales, zeros, *extra) if part is not None))


def _integers(entry: TensorEntry) -> list[int]:
    """The whole numbers of a small tensor. Raises Refused when it holds something else, or many."""
    sizes = {"I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
    if entry.encoding not in sizes or entry.numel > 64:
        raise Refused(f"{entry.name!r} is {entry.encoding} of shape {list(entry.shape)}, a few integers are needed")
    size, raw = sizes[entry.encoding], stored_bytes(entry)
    signed = entry.encoding.startswith("I")
    return [int.from_bytes(raw[at : at + size], "little", signed=signed) for at in range(0, len(raw), size)]


def _number(found: Found, key: str, default: int) -> int:
    entry = found.get(f".{key}")
    return _integers(entry)[0] if entry is not None and entry.numel == 1 else default


def _text(found: Found, key: str) -> str:
    return stored_bytes(found.need(f".{key}", "U8"), 64).decode("ascii", "replace")
