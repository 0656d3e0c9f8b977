"""compressed-tensors `pack-quantized`: `X.weight_packed` I32, `X.weight_scale`, `X.weight_shape`, perhaps more.

Codes are stored plus half their range, densely from the lowest bit up; until May 2026 widths that are no power of two were
stored as many whole codes a word as fit (`compressors/pack_quantized/helpers.py`). The shapes tell the two apart. Zero points
(`X.weight_zero_point`) are packed along the rows; `X.weight_g_idx` names the group of each column.
"""

from __future__ import annotations

from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.quantized.base import (
    Folded,
    Found,
    Opaque,
    Refused,
    component,
    expect,
    group_size,
    logical,
    stored_bytes,
    words_needed,
)

SCALES = ("F32", "BF16", "F16", "F64")
WIDTHS = (4, 8, 2, 3, 5, 6, 7, 1)


def fold(found: Found) -> Folded | None:
    """A weight of packed integers; None when the packed tensor holds bytes, as 4-bit floats do."""
    words = found.need("_packed")
    if words.encoding == "U8":
        return None
    if found.get("_scale_packed") is not None or found.get("_meta") is not None or (found.stem and found.get("_bitmask")):
        raise Opaque("the 2:4 sparse layout of marlin is not decoded")
    if words.encoding not in ("I32", "U32") or len(words.shape) < 2:
        raise Refused(f"{words.name!r} is {words.encoding} of shape {list(words.shape)}, a matrix of I32 is needed")
    scales = found.need("_scale", *SCALES)
    shape = _shape(found, words)
    rows, columns = shape[-2:]
    if words.shape[:-1] != shape[:-1]:
        raise Refused(f"{words.name!r} has shape {list(words.shape)}, the weight {list(shape)}")
    bits, is_dense = _width(found, words.shape[-1], columns)
    lines = words.numel // max(words.shape[-1], 1)
    groups = scales.shape[-1] if len(scales.shape) == len(shape) else 1
    if scales.numel not in (1, lines * groups):
        raise Refused(f"scales of shape {list(scales.shape)} do not lie over a weight of shape {list(shape)}")
    per_tensor = scales.numel == 1
    size = columns if per_tensor else group_size(columns, groups, _configured(found, "group_size"))
    parts = {"data": component(words), "scales": component(scales, (1, 1) if per_tensor else (lines, groups))}
    parameters: dict[str, object] = {
        "method": "compressed-tensors",
        "codes": "bits" if is_dense else "words",
        "bits": bits,
        "group_rows": max(rows, 1) if per_tensor else 1,
        "group_size": max(size, 1),
    }
    zeros = found.optional("_zero_point")
    if zeros is None:
        parameters["zero_point"] = 1 << (bits - 1)
    else:
        parts["zeros"], more = _zeros(zeros, bits, is_dense, lines, groups, per_tensor)
        parameters |= more
    order = found.optional("_g_idx", "I32", "I64")
    if order is not None:
        expect(order, columns)
        parts["g_idx"] = component(order, (1, columns))
    consumed = [part.name for part in (words, scales, found.get("_shape"), zeros, order) if part is not None]
    return Folded(logical(found.stem, shape, f"I{bits}_PACKED", parts, parameters), tuple(consumed))


def _shape(found: Found, words: TensorEntry) -> tuple[int, ...]:
    """The shape that `_shape` holds. Raises Refused when it is missing or no shape."""
    stored = found.need("_shape", "I64", "I32")
    itemsize = 8 if stored.encoding == "I64" else 4
    raw = stored_bytes(stored)
    sizes = tuple(int.from_bytes(raw[at : at + itemsize], "little", signed=True) for at in range(0, len(raw), itemsize))
    if len(sizes) != len(words.shape) or any(not 0 <= size < 2**40 for size in sizes):
        raise Refused(f"{stored.name!r} holds {list(sizes)[:8]}, no shape of {len(words.shape)} axes")
    return sizes


def _width(found: Found, words: int, columns: int) -> tuple[int, bool]:
    """(bits, whether they are dense) that give this many words for a row; the configured width comes first."""
    configured = _configured(found, "num_bits")
    widths = WIDTHS if configured is None else (configured, *WIDTHS)
    for bits in widths:
        for is_dense in (True, False):
            if bits in WIDTHS and words_needed(columns, bits, is_dense) == words:
                return bits, is_dense
    raise Refused(f"{words} words a row fit no width of 1 to 8 bits over {columns} columns")


def _configured(found: Found, key: str) -> int | None:
    """A number that all groups of the configuration agree on."""
    groups = found.settings.values.get("config_groups")
    numbers = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        value = weights.get(key) if isinstance(weights, dict) else None
        numbers.add(value if type(value) is int else None)
    return numbers.pop() if len(numbers) == 1 else None


def _zeros(zeros: TensorEntry, bits: int, is_dense: bool, rows: int, groups: int, per_tensor: bool) -> tuple:
    """(component, parameters) of zero points, packed along the rows or one number each."""
    if zeros.encoding in ("I32", "U32") and not per_tensor:
        expect(zeros, words_needed(rows, bits, is_dense), groups)
        packed = component(zeros, (groups, zeros.shape[0]), (1, groups))
        return packed, {"zeros_axis": "rows", "zeros_codes": "bits" if is_dense else "words"}
    if zeros.encoding == "I8":  # signed, while codes are stored plus half their range
        return component(zeros, (1, 1) if per_tensor else (rows, groups)), {"zero_offset": 1 << (bits - 1)}
    raise Refused(f"{zeros.name!r} is {zeros.encoding} of shape {list(zeros.shape)}")
