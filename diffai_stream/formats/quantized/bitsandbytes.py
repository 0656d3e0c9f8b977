"""bitsandbytes nf4 and fp4: `X` U8 of two codes a byte, `X.absmax`, `X.quant_map`, and its state as JSON in a tensor.

The state (`functional.py`, QuantState) gives block size and shape, and what double quantization of `absmax` needs. The codes
may be stored under another element type (`bnb_4bit_quant_storage`); only their bytes count.
"""

from __future__ import annotations

import json

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.inert import element_count, parse_json
from diffai_stream.formats.quantized.base import Folded, Found, Refused, component, expect, logical, stored_bytes

STATE = ".quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")


def fold(found: Found) -> Folded | None:
    """A weight of 4-bit codes of bitsandbytes; None when there is no state that belongs to one."""
    kind = next((kind for kind in KINDS if found.get(STATE + kind) is not None), None)
    if kind is None or found.get("") is None:
        return None
    data, absmax, values = found.need(""), found.need(".absmax"), found.need(".quant_map", "F32")
    state_entry = found.need(STATE + kind, "U8")
    state = _state(state_entry)
    shape, size = _shape(state), _positive(state, "blocksize")
    numel = element_count(shape)
    if data.stored_nbytes != -(-numel // 2):
        raise Refused(f"{data.name!r} has {data.stored_nbytes} bytes, a weight of shape {list(shape)} needs {-(-numel // 2)}")
    blocks = -(-numel // size)
    expect(values, 16)
    parts = {"data": component(data), "scales": component(absmax, (blocks, 1)), "quant_map": component(values, (1, 16))}
    nested = _nested(found, absmax, state, blocks)
    parts |= {name: component(entry, (1, entry.numel)) for name, entry in nested.items()}
    parameters = {
        "method": "bitsandbytes",
        "bits": 4,
        "group_size": size,
        "nested_group_size": state.get("nested_blocksize") if nested else None,
        "nested_offset": repr(float(state.get("nested_offset", 0.0))) if nested else None,  # type: ignore[arg-type]
    }
    entry = logical(data.name, shape, f"BNB_{kind.upper()}", parts, parameters)
    return Folded(entry, tuple(part.name for part in (data, absmax, values, state_entry, *nested.values())))


def _state(entry: TensorEntry) -> dict[str, object]:
    try:
        return parse_json(stored_bytes(entry), entry.name, what="the quantization state")
    except FormatError as error:
        raise Refused(f"{entry.name!r}: {error.message}") from None


def _shape(state: dict[str, object]) -> tuple[int, ...]:
    shape = state.get("shape")
    try:
        if not isinstance(shape, list):
            raise ValueError("is no list")
        element_count(shape)
    except ValueError as error:
        raise Refused(f"the shape in the quantization state {json.dumps(shape)[:60]}: {error}") from None
    return tuple(shape)


def _positive(state: dict[str, object], key: str) -> int:
    value = state.get(key)
    if type(value) is not int or not 0 < value <= 1 << 20 or value % 2:
        raise Refused(f"the {key} in the quantization state is {str(value)[:40]}, an even number is needed")
    return value


def _nested(found: Found, absmax: TensorEntry, state: dict[str, object], blocks: int) -> dict[str, TensorEntry]:
    """The tensors that double quantization of absmax adds; none when absmax is a float."""
    if absmax.encoding in ("F32", "F16", "BF16"):
        return {}
    if absmax.encoding != "U8":
        raise Refused(f"{absmax.name!r} is {absmax.encoding}, F32 or U8 is needed")
    outer, values = found.need(".nested_absmax", "F32"), found.need(".nested_quant_map", "F32")
    expect(values, 256)
    size, offset = _positive(state, "nested_blocksize"), state.get("nested_offset")
    if not isinstance(offset, int | float):
        raise Refused("the nested_offset in the quantization state is no number")
    expect(outer, -(-blocks // size))
    return {"nested_scales": outer, "nested_quant_map": values}
