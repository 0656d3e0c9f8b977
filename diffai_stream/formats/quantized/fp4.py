"""4-bit floats (E2M1), two a byte, the even column in the low nibble, under scales along the columns.

NVFP4: groups of 16 with E4M3 scales and one scale over all, which compressed-tensors divides by (`weight_global_scale`) and
modelopt multiplies with (`weight_scale_2`). MXFP4: groups of 32 with exponents (E8M0): compressed-tensors `weight_packed`,
DeepSeek V4 `weight` with `scale`, and the experts of gpt-oss, `X_blocks` [experts, out, in / 32, 16] with `X_scales`, which
stand for [experts, in, out] (transformers `integrations/mxfp4.py`).
"""

from __future__ import annotations

from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.quantized.base import Folded, Found, Refused, component, expect, logical

NV_GROUP, MX_GROUP = 16, 32


def fold(found: Found) -> Folded | None:
    """A weight of 4-bit floats; None when the tensors are of another layout."""
    if found.trigger == "_blocks":
        return _gpt_oss(found)
    if found.trigger == "_packed":
        return _compressed_tensors(found)
    if found.trigger == "_scale_2":
        return _modelopt(found)
    return _scale_beside(found)


def _compressed_tensors(found: Found) -> Folded | None:
    data, scales = found.need("_packed"), found.need("_scale")
    if data.encoding != "U8":
        return None
    overall = found.optional("_global_scale", "F32", "BF16", "F16")
    return _folded(found.stem, data, scales, overall, "compressed-tensors", "divide")


def _modelopt(found: Found) -> Folded | None:
    data, scales = found.get(""), found.get("_scale")
    if data is None or scales is None or data.encoding != "U8":
        return None
    return _folded(data.name, data, scales, found.need("_scale_2", "F32"), "modelopt", "multiply")


def _scale_beside(found: Found) -> Folded | None:
    data = found.get(".weight" if found.trigger == ".scale" else "")
    if data is None or data.encoding not in ("I8", "U8") or found.get("_scale_2") is not None:
        return None
    scales = found.need(found.trigger)
    if scales.encoding not in ("F8_E8M0", "F8_E4M3"):
        return None
    return _folded(data.name, data, scales, None, found.settings.method or "mxfp4", "multiply")


def _folded(name: str, data: TensorEntry, scales: TensorEntry, overall: TensorEntry | None, method: str, form: str) -> Folded:
    if not data.shape or len(scales.shape) != len(data.shape) or scales.shape[:-1] != data.shape[:-1]:
        raise Refused(f"scales of shape {list(scales.shape)} do not lie over codes of shape {list(data.shape)}")
    shape = (*data.shape[:-1], 2 * data.shape[-1])
    lines = data.numel // max(data.shape[-1], 1)
    size = NV_GROUP if scales.encoding == "F8_E4M3" else MX_GROUP
    if scales.encoding not in ("F8_E4M3", "F8_E8M0", "U8") or -(-shape[-1] // size) != scales.shape[-1]:
        raise Refused(f"{scales.encoding} scales of shape {list(scales.shape)} are those of neither NVFP4 nor MXFP4")
    stored = component(scales, (lines, scales.shape[-1]))
    parts = {"data": component(data), "scales": stored._replace(dtype="F8_E4M3" if size == NV_GROUP else "F8_E8M0")}
    if overall is not None:
        if overall.numel not in (1, data.shape[0] if len(data.shape) > 2 else 1):
            raise Refused(f"{overall.name!r} holds {overall.numel} numbers, one is needed")
        parts["global_scale"] = component(overall, (1, overall.numel))
    parameters = {
        "method": method,
        "codes": "F4",
        "bits": 4,
        "group_size": size,
        "global_scale": form if overall is not None else None,
    }
    encoding = "NVFP4" if size == NV_GROUP else "MXFP4"
    consumed = tuple(part.name for part in (data, scales, overall) if part is not None)
    return Folded(logical(name, shape, encoding, parts, parameters), consumed)


def _gpt_oss(found: Found) -> Folded | None:
    data, scales = found.need("_blocks"), found.get("_scales")
    if data.encoding != "U8" or len(data.shape) != 4 or scales is None:
        return None
    experts, rows, groups, nbytes = data.shape
    if nbytes * 2 != MX_GROUP or scales.encoding != "U8":
        raise Refused(f"{data.name!r} has blocks of {nbytes} bytes with {scales.encoding} scales, 16 with U8 are needed")
    expect(scales, experts, rows, groups)
    columns = MX_GROUP * groups
    stored = component(scales, (experts * rows, groups))._replace(dtype="F8_E8M0")
    parts = {"data": component(data), "scales": stored}
    parameters = {"method": "mxfp4", "codes": "F4", "bits": 4, "group_size": MX_GROUP, "transposed": True}
    entry = logical(found.stem, (experts, columns, rows), "MXFP4", parts, parameters)
    return Folded(entry, (data.name, scales.name))
