"""Profiles: the figures of one checkpoint, kept so that another can be compared with it when its weights are elsewhere.

A profile is a store of finished tensors with an index: what the headers of the checkpoint said, and which finished tensor
is whose. The index is written when the last tensor is; without it the store is only the beginning of a profile.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from diffai_stream.engine.results import TensorStates
from diffai_stream.errors import FormatError, TensorError, UsageError
from diffai_stream.formats.base import PROFILED, Checkpoint, Component, TensorEntry
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.statistics.content_hash import ContentHash
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.pattern_counts import PatternCounts
from diffai_stream.statistics.row_norms import RowNorms
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.store.coding import Kept, decode
from diffai_stream.store.results import LOCK, STORE_VERSION, ResultStore
from diffai_stream.store.zarr_files import METADATA, DamagedError, read_array, read_attributes, write_array

KIND, INDEX = "profile", "index"
HASH, PATTERNS = ContentHash(View.OLD), PatternCounts(View.OLD)
COMPARED = (HASH, PATTERNS)  # what is asked of the other side too
STATISTICS = (*COMPARED, RowNorms(View.OLD))  # what is kept of a tensor beside the figures that every comparison has
AGAIN = "make the profile again from the weights"
LOADED_BATCHES = 4
_KEPT = ("format", "container", "metadata", "aliases", "hyperparameters")


def kind_of(path: str) -> str | None:
    """results or profile, where a path is a store; None where it is none. Raises FormatError for a damaged store."""
    if not os.path.lexists(os.path.join(path, LOCK)):
        return None
    try:
        return str(read_attributes(path).get("kind"))
    except (DamagedError, OSError) as error:
        raise FormatError(f"this store is damaged ({error}); {AGAIN}", path=path) from error


def is_profile(path: str) -> bool:
    """Whether a path is a profile. Raises UsageError for a store of results, FormatError for a damaged one."""
    kind = kind_of(path)
    if kind not in (None, KIND):
        raise UsageError(f"this is a store of {kind}, no checkpoint; it belongs behind --store", path=path)
    return kind == KIND


def write_index(store: ResultStore, checkpoint: Checkpoint, pairs: Iterable[TensorPair], keys: Mapping[int, bytes]) -> None:
    """Complete a profile: the tensors of these pairs by the keys of their figures. Raises UsageError when it cannot."""
    entries = [_told(pair.old, keys.get(pair.index, b"")) for pair in pairs if pair.old is not None]
    kept = {name: value if isinstance(value := getattr(checkpoint, name), str) else dict(value) for name in _KEPT}
    _write(store.path, {**kept, "tensors": entries, "errors": _unread(checkpoint)})


def _unread(checkpoint: Checkpoint) -> list[Any]:
    return [[error.message, error.path, error.tensor, error.offset] for error in checkpoint.errors]


def _told(entry: TensorEntry, key: bytes) -> list[Any]:
    path = next((extent.path for component in entry.components.values() for extent in component.extents), "")
    metadata = dict(entry.metadata)
    return [entry.name, list(entry.shape), entry.encoding, entry.part, metadata, path, entry.stored_nbytes, key.hex()]


def _write(path: str, index: Mapping[str, Any]) -> None:
    raw = np.frombuffer(orjson.dumps(index, option=orjson.OPT_NON_STR_KEYS), np.uint8)
    folder = os.path.join(path, INDEX)
    try:
        write_array(folder, [raw], {"store_version": STORE_VERSION, "index_nbytes": raw.size}, compressed=True)
    except OSError as error:
        raise UsageError(f"cannot write the index of the profile: {error.strerror}", path=path) from error


class Profile:
    """A profile, opened to be compared with: its checkpoint as an index without weights, its figures by tensor."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._batches = os.path.join(path, "batches")
        self._loaded: OrderedDict[str, Kept] = OrderedDict()
        self._places: dict[str, tuple[str, int]] = {}
        self._damaged: dict[str, str] = {}
        index = self._index()
        self.checkpoint = self._checkpoint(index)
        for name in sorted(os.listdir(self._batches)):
            if name.isdigit():
                self._take(name)

    def states(self, entry: TensorEntry) -> TensorStates:
        """The figures of a tensor. Raises TensorError when what the profile has of it is damaged or missing."""
        key = key_of(entry)
        if key not in self._places:
            raise TensorError(f"the profile lacks its figures, or they are damaged; {AGAIN}", path=self.path, tensor=entry.name)
        batch, number = self._places[key]
        if batch not in self._loaded:
            try:
                self._loaded[batch] = decode(*read_array(os.path.join(self._batches, batch)))
            except (OSError, DamagedError) as error:
                raise TensorError(f"its figures are damaged ({error}); {AGAIN}", path=self.path, tensor=entry.name) from error
            while len(self._loaded) > LOADED_BATCHES:
                self._loaded.popitem(last=False)
        kept = self._loaded[batch]
        return TensorStates(kept.finished, number, dict(zip(STATISTICS, kept.extras[number], strict=True)))

    def _index(self) -> dict[str, Any]:
        try:
            about = read_attributes(self.path)
            if about.get("store_version") != STORE_VERSION:
                version = f"layout {about.get('store_version')} of {about.get('tool_version')}"
                raise FormatError(f"this profile is of another version ({version}); {AGAIN}", path=self.path)
            attributes, data = read_array(os.path.join(self.path, INDEX))
            return dict(orjson.loads(data[: attributes["index_nbytes"]].tobytes()))
        except FileNotFoundError as error:
            raise FormatError("this profile is not complete; run diffai profile again with it", path=self.path) from error
        except (DamagedError, OSError, LookupError, ValueError) as error:
            raise FormatError(f"this profile is damaged ({error}); {AGAIN}", path=self.path) from error

    def _checkpoint(self, index: Mapping[str, Any]) -> Checkpoint:
        try:
            tensors = tuple(_entry(told) for told in index["tensors"])
            kept = {name: index[name] for name in _KEPT}
            errors = tuple(TensorError(m, path=p, tensor=t, offset=o) for m, p, t, o in index["errors"])
        except (LookupError, TypeError, ValueError) as error:
            raise FormatError(f"the index of this profile makes no sense; {AGAIN}", path=self.path) from error
        root = os.path.join(self.path, METADATA)
        return Checkpoint(self.path, tensors=tensors, stamps={root: FileStamp.of(root)}, errors=errors, is_profile=True, **kept)

    def _take(self, name: str) -> None:
        """Note where figures are; those of a damaged batch are told as errors of their tensors."""
        try:
            attributes, data = read_array(os.path.join(self._batches, name))
            rows = len(decode(attributes, data).finished.rows)
            if attributes.get("store_version") == STORE_VERSION and rows == len(attributes["keys"]):
                self._places.update((key, (name, number)) for number, key in enumerate(attributes["keys"]))
        except (DamagedError, OSError, LookupError):
            return  # its tensors are missed when it is their turn


def _entry(told: Sequence[Any]) -> TensorEntry:
    name, shape, encoding, part, metadata, path, nbytes, key = told
    extent = Extent(path, 0, nbytes, f"{PROFILED}{key}")
    data = Component((extent,), encoding, tuple(shape))
    return TensorEntry(name, tuple(shape), encoding, {"data": data}, metadata, None, part)


def key_of(entry: TensorEntry) -> str:
    """The key of the figures of a tensor of a profile, in hexadecimal digits."""
    return entry.components["data"].extents[0].codec.removeprefix(PROFILED)


def merge(paths: Sequence[str], store: ResultStore) -> int:
    """Put profiles of disjoint shards together; how many tensors there are then.

    A tensor that is in several with the same content is kept once. Raises UsageError for one whose contents differ,
    CheckpointError for a profile that cannot be read.
    """
    profiles = [Profile(path) for path in paths]
    tensors: dict[str, list[Any]] = {}
    owners: dict[str, tuple[Profile, TensorStates]] = {}
    for profile in profiles:
        for entry in profile.checkpoint.tensors:
            states = profile.states(entry)
            if entry.name in owners:
                _check_same(entry, states, owners[entry.name], profile)
                continue
            owners[entry.name] = (
                profile,
                states._replace(finished=states.finished.part(states.place, states.place + 1), place=0),
            )
            key = bytes.fromhex(key_of(entry))
            store.add(key, owners[entry.name][1])
            tensors[entry.name] = _told(entry, key)
    store.commit()
    if full := next((oddity for oddity in store.told() if oddity.code == "store_full"), None):
        raise UsageError(full.message, path=store.path)
    checkpoints = [profile.checkpoint for profile in profiles]
    joined: dict[str, Any] = {name: {} for name in _KEPT}
    for checkpoint in reversed(checkpoints):
        for name in _KEPT:
            value = getattr(checkpoint, name)
            joined[name] = value if isinstance(value, str) else {**joined[name], **value}
    errors = [error for checkpoint in checkpoints for error in _unread(checkpoint)]
    _write(store.path, {**joined, "tensors": list(tensors.values()), "errors": errors})
    return len(tensors)


def _check_same(entry: TensorEntry, states: TensorStates, owner: tuple[Profile, TensorStates], profile: Profile) -> None:
    """Raise UsageError unless the tensor is the one that an earlier profile has."""
    if states.extras[HASH] != owner[1].extras[HASH]:
        raise UsageError(
            f"the tensor {entry.name!r} is in {owner[0].path} and in {profile.path} with other contents; "
            "profiles of one checkpoint have each tensor once"
        )


class Profiles:
    """The profiles of a run: what a side that has no weights is told from."""

    def __init__(self, sides: Mapping[str, Profile]) -> None:
        self._sides = sides

    def states(self, pair: TensorPair) -> dict[str, TensorStates]:
        """The figures of the sides of a pair that are profiled. Raises CheckpointError."""
        entries = (("old", pair.old), ("new", pair.new))
        return {side: self._of(side, entry) for side, entry in entries if entry is not None and entry.is_profiled}

    def _of(self, side: str, entry: TensorEntry) -> TensorStates:
        return self._sides[side].states(entry)
