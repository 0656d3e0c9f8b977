"""Constants of graphs that say how a model computes rather than what it has learned: shapes, axes, factors.

Single numbers and short lists of integers become hyperparameters, by the name of their node; all else are tensors.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from diffai_stream.formats.base import Component
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.wire import Wire
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window

SMALL_NUMEL = 64
Scalar = str | int | float | bool
_NUMPY = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BOOL": "?"} | {
    f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)
}


def small_constant(wire: Wire, component: Component) -> Scalar | None:
    """The value of a constant in the file of `wire`, a list as text; None for a tensor. Raises TensorError if damaged."""
    dtype = _NUMPY.get(component.dtype)
    if dtype is None or len(component.shape) > 1 or (component.shape and component.dtype[0] not in "IUB"):
        return None
    if element_count(component.shape) > SMALL_NUMEL:
        return None
    raw = b"".join(_bytes(wire, extent) for extent in component.extents)
    values = np.frombuffer(raw, dtype).tolist()
    return str(values) if component.shape else shown(values[0])


def shown(value: Scalar) -> Scalar:
    """The value; as text where JSON has no number for it."""
    return value if not isinstance(value, float) or isfinite(value) else str(value)


def _bytes(wire: Wire, extent: Extent) -> bytes:
    if extent.codec:
        return read_window(extent, 0, extent.nbytes, None).tobytes()
    return wire.read(extent.offset, extent.nbytes)
