"""Bytes with scales: compressed-tensors `int-quantized` and `naive-quantized`, and bitsandbytes int8.

`X.weight` I8 with `X.weight_scale` per tensor, row, group or block, perhaps `X.weight_zero_point`; or with `X.SCB` F32 [out],
where W = weight * SCB / 127 (bitsandbytes `int8_vectorwise_dequant`).
"""

from __future__ import annotations

from diffai_stream.formats.quantized.base import Folded, Found, Opaque, component, expect, logical, stored_bytes
from diffai_stream.formats.quantized.scales import scale_grid

SCALES = ("F32", "BF16", "F16", "F64")
ENDINGS = {"_scale": ""}


def fold(found: Found) -> Folded | None:
    """A weight of signed bytes; None when the tensor beside the scales is none."""
    if found.trigger == ".SCB":
        return _bitsandbytes(found)
    weight = found.get("")
    if weight is None or weight.encoding != "I8" or len(weight.shape) < 2:
        return None
    scales = found.need("_scale")
    if scales.encoding not in SCALES:
        return None
    grid = scale_grid(weight.shape, scales.shape)
    parts = {"data": component(weight), "scales": component(scales, grid.shape)}
    zeros = found.optional("_zero_point", "I8", "U8", "I32", *SCALES)
    if zeros is not None:
        parts["zeros"] = component(zeros, grid.shape)
    parameters = {
        "method": found.settings.method or "int8",
        "codes": "signed",
        "bits": 8,
        "group_rows": grid.group_rows,
        "group_size": grid.group_columns,
    }
    consumed = tuple(part.name for part in (weight, scales, zeros) if part is not None)
    return Folded(logical(weight.name, weight.shape, "I8_SCALED", parts, parameters), consumed)


def _bitsandbytes(found: Found) -> Folded:
    weight, scales = found.need(".weight", "I8"), found.need(".SCB", "F32", "F16", "BF16")
    rows = weight.shape[0] if weight.shape else 0
    expect(weight, rows, weight.numel // max(rows, 1))
    layout = found.optional(".weight_format")
    if layout is not None and any(stored_bytes(layout)):
        raise Opaque("a column-tiled layout of bitsandbytes is not decoded, only its row format")
    parts = {"data": component(weight), "scales": component(scales, (rows, 1))}
    parameters = {"method": "bitsandbytes", "codes": "signed", "bits": 8, "scale_divisor": 127}
    consumed = tuple(part.name for part in (weight, scales, layout) if part is not None)
    return Folded(logical(weight.name, weight.shape, "BNB_I8", parts, parameters), consumed)
