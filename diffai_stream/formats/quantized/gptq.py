"""GPTQ: `X.qweight` [in * bits / 32, out], `X.qzeros`, `X.scales` [groups, out], `X.g_idx` [in].

Bits follow from the width of `qzeros`. Checkpoints of the format `gptq` store zero points less one (v1), `gptq_v2` as they
are; some writers name one and store the other, which shows where quantization was symmetric: then all zero points are the
middle of the range (AutoGPTQ `qlinear_cuda_old.py`; GPTQModel writes v2 zeros under v1's name, vllm-project/vllm#38966). A v1
zero point wraps within its bits: the largest code stands for 0.
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

WIDTHS = (4, 8, 2, 3)
SCALES = ("F16", "BF16", "F32")
FOREIGN = ("marlin", "bitblas", "exllama", "gptq_p", "gptq_marlin", "qqq")


def fold(found: Found) -> Folded | None:
    """A GPTQ weight [out, in]; None when the words are laid out as those of AWQ."""
    words = found.need(".qweight")
    if words.encoding not in ("I32", "U32") or len(words.shape) != 2:
        return None
    stored_format = found.settings.text("checkpoint_format") or found.settings.text("format")
    if stored_format in FOREIGN:
        raise Opaque(f"the layout {stored_format!r} is not decoded")
    zeros, scales = found.need(".qzeros", "I32", "U32"), found.need(".scales", *SCALES)
    if len(scales.shape) != 2 or words.shape[1] != scales.shape[1]:
        return None
    groups, rows = scales.shape
    bits = _bits(found, zeros, rows)
    expect(zeros, groups, words_needed(rows, bits))
    columns = words.shape[0] * 32 // bits
    if words_needed(columns, bits) != words.shape[0]:
        raise Refused(f"{words.shape[0]} words a column are no whole number of {bits}-bit codes")
    size = group_size(columns, groups, found.settings.integer("group_size"))
    offset, remark = zero_offset(found, zeros, bits, rows)
    parts = {
        "data": component(words),
        "scales": component(scales, (rows, groups), (1, rows)),
        "zeros": component(zeros),
    }
    order = found.optional(".g_idx", "I32", "I64")
    if order is not None:
        expect(order, columns)
        parts["g_idx"] = component(order, (1, columns))
    parameters = {
        "method": "gptq",
        "codes": "bits",
        "bits": bits,
        "group_size": size,
        "zeros_axis": "rows",
        "zero_offset": offset,
        "zero_convention": "v1" if offset else "v2",
        "desc_act": found.settings.values.get("desc_act"),
    }
    entry = logical(f"{found.stem}.weight", (rows, columns), f"GPTQ_I{bits}", parts, parameters)
    consumed = tuple(part.name for part in (words, zeros, scales, order) if part is not None)
    return Folded(entry, consumed, remark)


def _bits(found: Found, zeros: TensorEntry, rows: int) -> int:
    if len(zeros.shape) != 2:
        raise Refused(f"{zeros.name!r} is no matrix")
    configured = found.settings.integer("bits")
    widths = WIDTHS if configured is None else (configured, *WIDTHS)
    for bits in widths:
        if bits in WIDTHS and words_needed(rows, bits) == zeros.shape[1]:
            return bits
    raise Refused(f"{zeros.shape[1]} words of zero points for {rows} rows fit no width of {sorted(WIDTHS)} bits")


def zero_offset(found: Found, zeros: TensorEntry, bits: int, rows: int) -> tuple[int, tuple[str, str] | None]:
    """(1 for v1, 0 for v2; a remark where that contradicts the configuration or rests on it alone)."""
    declared = 0 if found.settings.text("checkpoint_format") == "gptq_v2" else 1
    middle = 1 << (bits - 1)
    seen = _distinct(stored_bytes(zeros), bits, rows, zeros.shape[1])
    if seen not in ({middle - 1}, {middle}):
        if found.settings.values.get("sym") is False:
            return declared, (
                "zero_convention_unproven",
                f"zero points are read as GPTQ v{2 - declared} because the configuration says so; the data cannot tell",
            )
        return declared, None
    offset = middle - seen.pop()
    if offset == declared:
        return offset, None
    return offset, (
        "zero_convention",
        f"its zero points are stored as GPTQ v{2 - offset} has them, though the configuration means v{2 - declared}",
    )


def _distinct(raw: bytes, bits: int, rows: int, words: int) -> set[int]:
    """The different codes in the rows of zero points that were read whole; of one row what was read, when none is whole."""
    lines = [raw[at : at + 4 * words] for at in range(0, len(raw), 4 * words)]
    whole = [line for line in lines if len(line) == 4 * words] or lines[:1]
    seen: set[int] = set()
    for line in whole[:8]:
        stream, mask = int.from_bytes(line, "little"), (1 << bits) - 1
        if len(line) > 2048:  # a big integer is shifted in quadratic time
            stream, count = int.from_bytes(line[:1536], "little"), 1536 * 8 // bits
        else:
            count = len(line) * 8 // bits
        seen.update(stream >> (bits * i) & mask for i in range(min(rows, count)))
    return seen
