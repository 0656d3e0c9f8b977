"""Layouts that are known by the names of their tensors and not decoded: trellis, codebook and repacked formats.

Their stored tensors are compared as they are, and a warning says so.
"""

from __future__ import annotations

from diffai_stream.formats.quantized.base import Folded, Found, Opaque

NAMES = {
    ".trellis": ("EXL3", ()),
    ".q_groups": ("EXL2", (".q_weight",)),
    ".codebooks": ("AQLM", (".codes",)),
    ".Qidxs": ("QuIP#", ()),
    ".centroids.weight": ("VPTQ", (".indices",)),
    ".dense_weights": ("SpQR", ()),
    ".B": ("Marlin", (".s",)),
    ".bitmask": ("a sparse bitmask of compressed-tensors", (".compressed",)),
}


def fold(found: Found) -> Folded | None:
    """Raises Opaque for a layout of the list; None when the other tensors of that layout are not there."""
    title, others = NAMES[found.trigger]
    if all(found.get(other) is not None for other in others):
        raise Opaque(f"{title} is not decoded")
    return None
