"""AWQ: `X.qweight`, `X.qzeros`, `X.scales` of 4-bit codes, in the layouts of its `gemm` and `gemv` kernels.

gemm: words [in, out / 8], eight outputs in each, interleaved; scales [groups, out]. gemv: words [out, in / 8], in order; scales
and zero points [out, groups], padded to whole words (AutoAWQ `modules/linear/gemm.py`, `gemv.py`). AWQ moves scales between
neighbouring layers before it rounds: against the original only a comparison after the best scale per column is fair.
"""

from __future__ import annotations

from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.quantized.base import Folded, Found, Opaque, Refused, component, expect, group_size, logical

SCALES = ("F16", "BF16", "F32")
GROUP_SIZES = (128, 64, 32)


def fold(found: Found) -> Folded | None:
    """An AWQ weight [out, in]; None when the tensors are laid out otherwise."""
    words, zeros, scales = found.need(".qweight"), found.need(".qzeros"), found.need(".scales", *SCALES)
    if words.encoding == "I16":
        raise Opaque("the interleaved layout of AWQ's gemv_fast and of llm-awq is not decoded")
    matrices = all(len(entry.shape) == 2 for entry in (words, zeros, scales))
    if not matrices or words.encoding not in ("I32", "U32") or zeros.encoding not in ("I32", "U32"):
        return None
    if words.shape[1] * 8 == scales.shape[1]:
        return _gemm(found, words, zeros, scales)
    if words.shape[0] == scales.shape[0] == zeros.shape[0]:
        return _gemv(found, words, zeros, scales)
    raise Refused(f"shapes {[list(e.shape) for e in (words, zeros, scales)]} are those of neither GPTQ nor AWQ")


def _gemm(found: Found, words: TensorEntry, zeros: TensorEntry, scales: TensorEntry) -> Folded:
    (columns, width), (groups, rows) = words.shape, scales.shape
    expect(zeros, groups, width)
    if columns % 8:
        raise Refused(f"{columns} columns are no whole words")
    size = group_size(columns, groups, _configured(found))
    parts = {
        "data": component(words),
        "scales": component(scales, (rows, groups), (1, rows)),
        "zeros": component(zeros),
    }
    parameters = {"zeros_axis": "rows", "zeros_order": "awq"}
    return _folded(found, (rows, columns), size, parts, "gemm", parameters, (words, zeros, scales))


def _gemv(found: Found, words: TensorEntry, zeros: TensorEntry, scales: TensorEntry) -> Folded:
    rows, columns = words.shape[0], words.shape[1] * 8
    expect(scales, rows, zeros.shape[1] * 8)
    candidates = (_configured(found), *GROUP_SIZES)
    size = next((size for size in candidates if size and _padded(columns, size) == zeros.shape[1]), None)
    if size is None:
        raise Refused(f"{zeros.shape[1]} words of zero points a row fit no group size over {columns} columns")
    parts = {"data": component(words), "scales": component(scales), "zeros": component(zeros)}
    return _folded(found, (rows, columns), size, parts, "gemv", {"zeros_axis": "columns"}, (words, zeros, scales))


def _padded(columns: int, size: int) -> int:
    """Words of zero points a row: whole ones, and a multiple of what the kernel reads at once (`calculate_zeros_width`)."""
    multiple = 1 if size >= 128 else 2 if size == 64 else 4
    width = -(-(columns // size) // 8)
    return -(-width // multiple) * multiple


def _configured(found: Found) -> int | None:
    return found.settings.integer("group_size") or found.settings.integer("q_group_size")


def _folded(
    found: Found, shape: tuple[int, int], size: int, parts: dict, version: str, more: dict, stored: tuple[TensorEntry, ...]
) -> Folded:
    parameters = {"method": "awq", "version": version, "codes": "bits", "bits": 4, "group_size": size, **more}
    entry = logical(f"{found.stem}.weight", shape, "AWQ_I4", parts, parameters)
    return Folded(entry, tuple(part.name for part in stored))
