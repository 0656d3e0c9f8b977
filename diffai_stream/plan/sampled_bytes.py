"""Renamed tensors found by their bytes: equal encoding, shape and hash of a few seeded places, which the scan then proves."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from diffai_stream.formats.base import Oddity, TensorEntry
from diffai_stream.plan.matching import Matching
from diffai_stream.plan.naming import natural_key
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.remote import objects

SAMPLE_NBYTES = 4096
SAMPLE_COUNT = 8

Read = Callable[[str, int, int], bytes]


def read_range(path: str, offset: int, nbytes: int) -> bytes:
    """Bytes of a file; fewer than asked for at its end. Raises OSError, of an object CheckpointError."""
    if remote := objects.found(path):
        return bytes(remote.read(offset, offset + nbytes))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, nbytes, offset)
    finally:
        os.close(descriptor)


class _Sample(NamedTuple):
    """What entries must share to be the same tensor; `ending` only where the bytes are too plain to tell them apart."""

    layout: tuple[object, ...]
    digest: bytes
    ending: str


def match_samples(matching: Matching, read: Read) -> None:
    """Tensors of equal encoding and shape whose sampled bytes are equal."""
    old, new = _by_layout(matching.old), _by_layout(matching.new)
    groups: dict[_Sample, tuple[list[str], list[str]]] = {}
    for layout in old:
        for position, entries in enumerate((old[layout], new.get(layout, []))):
            for entry in entries if layout in new else ():
                if sample := _sampled(entry, layout, read):
                    groups.setdefault(sample, ([], []))[position].append(entry.name)
    for old_names, new_names in groups.values():
        if len(old_names) == len(new_names):
            for old_name, new_name in zip(sorted(old_names, key=natural_key), sorted(new_names, key=natural_key), strict=True):
                matching.pair(old_name, new_name, "renamed")
        elif old_names and new_names:
            matching.oddities.append(_ambiguous(old_names, new_names))


def _by_layout(entries: Mapping[str, TensorEntry]) -> dict[tuple[object, ...], list[TensorEntry]]:
    """Entries whose bytes are stored plainly, by all that must be equal before bytes are compared."""
    groups: dict[tuple[object, ...], list[TensorEntry]] = {}
    for entry in entries.values():
        components = sorted(entry.components.items())
        if not components or any(
            part.strides is not None or any(extent.codec for extent in part.extents) for _, part in components
        ):
            continue
        layout = tuple((name, part.dtype, part.shape, sum(e.nbytes for e in part.extents)) for name, part in components)
        groups.setdefault((entry.encoding, entry.shape, layout), []).append(entry)
    return groups


def _sampled(entry: TensorEntry, layout: tuple[object, ...], read: Read) -> _Sample | None:
    """The sample of an entry, None when its bytes cannot be read."""
    import xxhash

    extents = [extent for _, part in sorted(entry.components.items()) for extent in part.extents]
    nbytes = sum(extent.nbytes for extent in extents)
    try:
        windows = [_window(extents, offset, length, read) for offset, length in _sample_windows(nbytes)]
    except OSError:
        return None
    # one element repeated: half of all biases look like this
    period = max(1, nbytes // max(1, entry.numel))
    plain = all(window[period:] == window[:-period] for window in windows)
    return _Sample(layout, xxhash.xxh3_128_digest(b"".join(windows)), entry.name.rpartition(".")[2] if plain else "")


@lru_cache(maxsize=256)
def _sample_windows(nbytes: int) -> tuple[tuple[int, int], ...]:
    """(offset, nbytes) of the samples of so many bytes: the same for both sides, all of it when that is little."""
    if nbytes <= SAMPLE_COUNT * SAMPLE_NBYTES:
        return ((0, nbytes),)
    generator = random.Random(nbytes)
    return tuple((generator.randrange(nbytes - SAMPLE_NBYTES + 1), SAMPLE_NBYTES) for _ in range(SAMPLE_COUNT))


def _window(extents: Iterable[Extent], offset: int, nbytes: int, read: Read) -> bytes:
    """Bytes from `offset` on of the extents laid end to end. Raises OSError when a file is shorter than its extent."""
    parts = []
    for extent in extents:
        length = min(extent.nbytes - offset, nbytes)
        if length > 0:
            parts.append(read(extent.path, extent.offset + offset, length))
            if len(parts[-1]) < length:
                raise OSError(f"{extent.path} ends within an extent")
            offset, nbytes = offset + length, nbytes - length
        offset -= extent.nbytes
    return b"".join(parts)


def _ambiguous(old_names: Sequence[str], new_names: Sequence[str]) -> Oddity:
    message = (
        f"{len(old_names)} tensors of the old and {len(new_names)} of the new checkpoint seem to hold the same bytes "
        f"({old_names[0]}, {new_names[0]}); they are left unpaired, --map OLD=NEW pairs them"
    )
    return Oddity("ambiguous_rename", message, tensor=old_names[0])
