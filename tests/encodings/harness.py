"""Entries over arrays in memory, and decoders asked for ranges of every kind."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.storage.extent import Extent


def entry_over(shape, encoding, metadata, **parts):
    """(entry, read) of a quantized tensor; `parts` are arrays, (dtype, array) or (dtype, array, shape, strides)."""
    components, stored = {}, {}
    for name, part in parts.items():
        dtype, array, *view = part if isinstance(part, tuple) else (None, part)
        array = np.ascontiguousarray(array)
        dtype = dtype or {"f": "F", "i": "I", "u": "U"}[array.dtype.kind] + str(8 * array.itemsize)
        raw = array.reshape(-1).view(np.uint8)
        raw.setflags(write=False)
        stored[name] = raw
        components[name] = Component((Extent(name, 0, raw.size),), dtype, *(view or (array.shape,)))

    def read(component, start, stop):
        assert 0 <= start <= stop <= stored[component].size, (component, start, stop, stored[component].size)
        return stored[component][start:stop]

    return TensorEntry("w", shape, encoding, components, {k: str(v) for k, v in metadata.items()}), read


def decoded(module, entry, read, seed=0):
    """All values of an entry; pieces between random borders (multiples of the block) must be the same bits."""
    decoder = import_module(f"diffai_stream.encodings.{module}").open_decoder(entry, read)
    whole = decoder.decode(0, entry.numel)
    assert whole.dtype == np.float32
    assert whole.shape == (entry.numel,)
    rng = np.random.default_rng(seed)
    blocks = entry.numel // decoder.block
    for _ in range(12):
        first, last = sorted(rng.integers(0, blocks + 1, 2) * decoder.block)
        last = min(last, entry.numel)
        assert decoder.decode(int(first), int(last)).tobytes() == whole[first:last].tobytes(), (first, last)
    return whole.reshape(entry.shape)
