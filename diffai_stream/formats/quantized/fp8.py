"""8-bit floats with scales: per tensor, row or block (DeepSeek, FBGEMM, modelopt, compressed-tensors), and MX fp8.

`X` (F8) with `X_scale_inv` or `X_scale`, `X.weight` with `X.scale` (DeepSeek V4) or `X.scale_weight` (ComfyUI). Whatever the
name says, the scale multiplies. U8 scales, one for 32 columns, are exponents (E8M0).
"""

from __future__ import annotations

from diffai_stream.formats.quantized.base import Folded, Found, Refused, component, logical
from diffai_stream.formats.quantized.scales import scale_grid

CODES = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
SCALES = ("F32", "BF16", "F16", "F64", "F8_E8M0", "U8")
MX_GROUP = 32
ENDINGS = {"_scale_inv": "", "_scale": "", ".scale_weight": ".weight", ".scale": ".weight"}


def fold(found: Found) -> Folded | None:
    """A weight of 8-bit floats and its scales; None when the tensor beside is no such weight."""
    weight = found.get(ENDINGS[found.trigger])
    if weight is None or weight.encoding not in CODES or not weight.shape:
        return None
    if found.trigger != "_scale_inv" and found.get("_scale_inv") is not None:
        raise Refused(f"both {found.name!r} and {found.stem + '_scale_inv'!r} are stored")
    scales = found.need(found.trigger, *SCALES)
    grid = scale_grid(weight.shape, scales.shape, _block(found))
    stored = component(scales, grid.shape)
    if scales.encoding == "U8":
        if grid.group_columns != MX_GROUP:
            raise Refused(f"{scales.name!r} holds bytes, which are scales only over groups of {MX_GROUP}")
        stored = stored._replace(dtype="F8_E8M0")
    parameters = {
        "method": found.settings.method or "fp8",
        "codes": weight.encoding,
        "bits": 8,
        "group_rows": grid.group_rows,
        "group_size": grid.group_columns,
    }
    parts = {"data": component(weight), "scales": stored}
    encoding = "MXFP8" if stored.dtype == "F8_E8M0" and grid[:2] == (1, MX_GROUP) else f"{weight.encoding}_SCALED"
    return Folded(logical(weight.name, weight.shape, encoding, parts, parameters), (weight.name, scales.name))


def _block(found: Found) -> tuple[int, int] | None:
    block = found.settings.values.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block):
        return block[0], block[1]
    return None
