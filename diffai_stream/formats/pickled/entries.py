"""Tensors and arrays of a pickle as entries of a checkpoint: where their bytes lie, in which order, as what numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.inert import element_count
from diffai_stream.formats.pickled.torch_values import ENCODINGS_OF, Storage, Tensor
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.flip import flipped
from diffai_stream.storage.spill import spilled
from diffai_stream.storage.swap import swapped


class Place(NamedTuple):
    """Where the bytes of a storage lie: `nbytes` from `offset` on, or `compressed` bytes there that inflate to so many."""

    path: str
    offset: int
    nbytes: int
    compressed: int | None = None
    big_endian: bool = False


Locate = Callable[[Storage], Place]


def tensor_entry(name: str, tensor: Tensor, locate: Locate, part: str = "weights") -> TensorEntry:
    """The entry of a tensor. Raises ValueError that says why there is none."""
    component = tensor_component(tensor, locate)
    return TensorEntry(name, component.shape, component.dtype, {"data": component}, part=part)


def tensor_component(tensor: Tensor, locate: Locate) -> Component:
    """The stored array of a tensor. Raises ValueError that says why there is none."""
    encoding = ENCODINGS_OF.get(tensor.dtype)
    if encoding is None:
        raise ValueError(f"torch.{tensor.dtype} has no encoding here")
    shape, strides = tensor.shape, tensor.strides
    if tensor.dtype == "float4_e2m1fn_x2":
        shape, strides = _unpacked(shape, strides)
    bits = ENCODINGS[encoding].bits
    numel, span = element_count(shape), span_of(shape, strides)
    if span * bits > 1 << 66:
        raise ValueError("its strides reach further than any file")
    first = tensor.offset * (8 if tensor.dtype == "float4_e2m1fn_x2" else bits) // 8
    nbytes = -(-span * bits // 8)
    place = locate(tensor.storage)
    if first + nbytes > place.nbytes:
        raise ValueError(f"reaches to byte {first + nbytes} of its storage, which has {place.nbytes}")
    is_plain = numel == 0 or is_contiguous(shape, strides)
    extent = _extent(place, first, nbytes, is_plain and not tensor.flipped)
    if place.big_endian:
        extent = swapped(extent, ENCODINGS[encoding].itemsize)
    if tensor.flipped:
        extent = _unflipped(extent, ENCODINGS[encoding], tensor.flipped)
    return Component((extent,), encoding, shape, None if is_plain else strides)


def _unflipped(extent: Extent, encoding: Encoding, flag: str) -> Extent:
    """The extent of a lazy view: its bytes are the negatives or conjugates of its values."""
    if encoding.family != "float" or (flag == "conj") != (encoding.components == 2):
        raise ValueError(f"marked as {flag} although it is of {encoding.name}")
    return flipped(extent, encoding.itemsize * encoding.components)


def _extent(place: Place, first: int, nbytes: int, in_order: bool) -> Extent:
    """A range of a storage; compressed ones are inflated as a stream where they are read `in_order`, else by way of a file."""
    if place.compressed is None:
        return Extent(place.path, place.offset + first, nbytes)
    extent = Extent(place.path, place.offset, nbytes, f"deflate:{first}:{place.compressed}")
    return extent if in_order and not place.big_endian else spilled(extent)


def _unpacked(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides in single values of a dtype that counts pairs of them."""
    if not shape or not is_contiguous(shape, strides):
        raise ValueError("two values a byte, and not contiguous: save it with contiguous()")
    doubled = (*shape[:-1], shape[-1] * 2)
    return doubled, contiguous_strides(doubled)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of C order, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie in C order without gaps; strides of axes of one element mean nothing."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def span_of(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last one of a strided array, 0 when it has none."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
