"""MLX: `X.weight` U32 [out, in * bits / 32], the lowest bit first, with `X.scales`, and `X.biases` in the affine mode.

Affine: W = scale * q + bias. The modes mxfp4, mxfp8 and nvfp4 have U8 scales and no biases. Words and groups fix bits times
group size only; the configuration (`quantization: {group_size, bits}`, perhaps again under a layer's name) says which, unless
one pair alone is possible.
"""

from __future__ import annotations

from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.quantized.base import Folded, Found, Refused, component, expect, logical

FLOATS = ("F16", "BF16", "F32")
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
MODES = {4: ("MXFP4", "F4", 4, 32), 8: ("MXFP8", "F8_E4M3", 8, 32), 2: ("NVFP4", "F4", 4, 16)}  # by words a group


def fold(found: Found) -> Folded | None:
    """An MLX weight; None when the words beside the scales are not of MLX."""
    words, scales = found.get(".weight"), found.need(".scales")
    if words is None or words.encoding != "U32" or len(words.shape) < 2:
        return None
    if scales.shape[:-1] != words.shape[:-1] or not scales.shape[-1]:
        raise Refused(f"scales of shape {list(scales.shape)} do not lie over words of shape {list(words.shape)}")
    lines, groups = words.numel // max(words.shape[-1], 1), scales.shape[-1]
    if found.get(".biases") is None:
        return _without_biases(words, scales, lines, groups)
    if scales.encoding not in FLOATS:
        raise Refused(f"{scales.name!r} is {scales.encoding}, not {' or '.join(FLOATS)}")
    biases = found.need(".biases", *FLOATS)
    expect(biases, *scales.shape)
    bits, size = _width(found, words.shape[-1], groups)
    parts = {name: component(part, (lines, groups)) for name, part in (("scales", scales), ("biases", biases))}
    parts["data"] = component(words)
    parameters = {"method": "mlx", "codes": "bits", "bits": bits, "group_size": size}
    entry = logical(words.name, (*words.shape[:-1], groups * size), f"MLX_I{bits}", parts, parameters)
    return Folded(entry, (words.name, scales.name, biases.name))


def _without_biases(words: TensorEntry, scales: TensorEntry, lines: int, groups: int) -> Folded | None:
    if scales.encoding != "U8":
        return None
    each, rest = divmod(words.shape[-1], groups)
    if rest or each not in MODES:
        raise Refused(f"{words.shape[-1]} words in {groups} groups are of no mode of MLX without biases")
    encoding, codes, bits, size = MODES[each]
    stored = component(scales, (lines, groups))._replace(dtype="F8_E4M3" if size == 16 else "F8_E8M0")
    parts = {"data": component(words), "scales": stored}
    parameters = {"method": "mlx", "codes": codes, "bits": bits, "group_size": size}
    entry = logical(words.name, (*words.shape[:-1], groups * size), encoding, parts, parameters)
    return Folded(entry, (words.name, scales.name))


def _width(found: Found, words: int, groups: int) -> tuple[int, int]:
    """(bits, group size) that give these words and groups. Raises Refused when several or none do."""
    product, rest = divmod(words * 32, groups)
    possible = [(bits, product // bits) for bits in BITS if product % bits == 0 and product // bits in GROUP_SIZES]
    layer = found.settings.values.get(found.stem)
    sources = [source for source in (layer, found.settings.values) if isinstance(source, dict)]
    for source in sources:
        configured = source.get("bits"), source.get("group_size")
        if not rest and configured in possible:
            return configured[0], configured[1]
    if rest or len(possible) != 1:
        told = ", ".join(f"{bits} bits in groups of {size}" for bits, size in possible) or "no width"
        raise Refused(f"{words} words in {groups} groups may be {told}; config.json does not say")
    return possible[0]
