"""Quantized tensors of torch as entries: their codes, and the scales and zero points that turn them into numbers."""

from __future__ import annotations

from math import isfinite

from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.pickled.entries import Locate, tensor_component
from diffai_stream.formats.pickled.torch_values import Quantizer, Tensor
from diffai_stream.storage.spill import spilled

ENCODINGS_OF_CODES = {"qint8": "QINT8", "quint8": "QUINT8", "qint32": "QINT32"}


def quantized_entry(name: str, tensor: Tensor, locate: Locate, part: str = "weights") -> TensorEntry:
    """The entry of a quantized tensor. Raises ValueError that says why there is none."""
    encoding, quantizer = ENCODINGS_OF_CODES.get(tensor.dtype), tensor.quantizer
    if encoding is None or quantizer is None:
        raise ValueError(f"torch.{tensor.dtype} is not decoded; save it with dequantize()")
    codes = _anywhere(tensor_component(tensor, locate))
    if quantizer.axis is None:
        return TensorEntry(name, codes.shape, encoding, {"data": codes}, _one_scale(quantizer), part=part)
    scales, zeros = _vector(quantizer.scale, locate), _vector(quantizer.zero_point, locate)
    axis = quantizer.axis
    if type(axis) is not int or not 0 <= axis < len(codes.shape):
        raise ValueError(f"its scales lie along axis {str(axis)[:20]} of {len(codes.shape)}")
    if not scales.shape == zeros.shape == (codes.shape[axis],):
        raise ValueError(f"scales {scales.shape} and zero points {zeros.shape} for axis {axis} of {codes.shape}")
    return TensorEntry(
        name, codes.shape, encoding, {"data": codes, "scales": scales, "zeros": zeros}, {"axis": str(axis)}, part=part
    )


def _anywhere(component: Component) -> Component:
    """The component so that decoders can read any part of it: they do not go from front to back."""
    extents = (spilled(extent) if extent.codec.startswith("deflate:") else extent for extent in component.extents)
    return component._replace(extents=tuple(extents))


def _one_scale(quantizer: Quantizer) -> dict[str, str]:
    scale, zero = quantizer.scale, quantizer.zero_point
    if not (isinstance(scale, float) and isfinite(scale) and type(zero) is int and abs(zero) <= 1 << 31):
        raise ValueError("its scale or zero point is no number")
    return {"scale": repr(scale), "zero_point": str(zero)}


def _vector(value: object, locate: Locate) -> Component:
    if not isinstance(value, Tensor):
        raise ValueError("its scales or zero points are no tensors")
    found = _anywhere(tensor_component(value, locate))
    if found.strides is not None or found.dtype not in ("F64", "F32", "I64", "I32"):
        raise ValueError("its scales or zero points are not stored as plain numbers")
    return found
