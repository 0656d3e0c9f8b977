"""A store of finished tensors: batches that are committed one by one, each checked before anything of it is used."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from diffai_stream._version import __version__
from diffai_stream.engine.results import TensorStates
from diffai_stream.errors import TensorError, UsageError
from diffai_stream.formats.base import Oddity
from diffai_stream.statistics.finishing import Finished
from diffai_stream.store.coding import Extras, Kept, Uncodable, decode, encode
from diffai_stream.store.keys import computed_by
from diffai_stream.store.zarr_files import DamagedError, read_array, read_attributes, write_array, write_group

STORE_VERSION = 2
LOCK, BATCHES, RESULTS = ".diffai-lock", "batches", "results"
COMMIT_SECONDS = 0.5  # at least so long between two commits
COMMIT_SHARE = 20  # and so many times as long as the last one took: a slow disk costs a twentieth
COMMIT_NBYTES = 8 << 20  # or so much to write
LOADED_BATCHES = 4


class Place(NamedTuple):
    """Where a tensor is kept: its batch, and its number there."""

    batch: str
    number: int


class _Waiting(NamedTuple):
    key: bytes
    states: TensorStates


class ResultStore:
    """Finished tensors by key. One process has it at a time; what is damaged or of another version is told and removed."""

    def __init__(self, path: str, kind: str = RESULTS) -> None:
        self.path, self._kind, self._lock = path, kind, _locked(path)
        self._folder = os.path.join(path, BATCHES)
        self._oddities: list[Oddity] = []
        self._places: dict[bytes, Place] = {}
        self._loaded: OrderedDict[str, Kept] = OrderedDict()
        self._waiting: list[_Waiting] = []
        self._waiting_nbytes, self._next_commit, self._is_full = 0, time.monotonic() + COMMIT_SECONDS, False
        self._number = 0
        try:
            self._open()
        except OSError as error:
            self.close()
            raise UsageError(f"--store cannot be used: {error.strerror}", path=path) from error
        except UsageError:
            self.close()
            raise

    def __contains__(self, key: bytes | None) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def told(self) -> list[Oddity]:
        """What is odd about the store, each thing once."""
        told, self._oddities = self._oddities, []
        return told

    def load(self, key: bytes) -> tuple[Finished, int, Extras]:
        """A tensor: those finished with it, its place among them, its other statistics. Raises TensorError."""
        place = self._places[key]
        if place.batch not in self._loaded:
            try:
                self._loaded[place.batch] = self._read(place.batch)[1]
            except (OSError, DamagedError) as error:
                raise TensorError(
                    "what the store had of it was damaged during the run; compare again", path=self.path
                ) from error
            while len(self._loaded) > LOADED_BATCHES:
                self._loaded.popitem(last=False)
        kept = self._loaded[place.batch]
        return kept.finished, place.number, kept.extras[place.number]

    def add(self, key: bytes, states: TensorStates) -> None:
        """Keep a tensor; it is on the disk after the next commit."""
        if self._is_full or key in self._places:
            return
        self._waiting.append(_Waiting(key, states))
        self._waiting_nbytes += _nbytes(states)
        if self._waiting_nbytes >= COMMIT_NBYTES or time.monotonic() >= self._next_commit:
            self.commit()

    def commit(self) -> None:
        """Write what waits as one batch. What cannot be written is told, and nothing more is kept."""
        waiting, self._waiting, self._waiting_nbytes = self._waiting, [], 0
        if not waiting or self._is_full:
            return
        started = time.monotonic()
        try:
            self._write(waiting)
        except OSError as error:
            self._is_full = True
            message = f"cannot keep more in the store: {error.strerror}; the comparison goes on without"
            self._oddities.append(Oddity("store_full", message, self.path))
        now = time.monotonic()
        self._next_commit = now + max(COMMIT_SECONDS, COMMIT_SHARE * (now - started))

    def close(self) -> None:
        """Commit, and let others have the store."""
        if self._lock >= 0:
            try:
                self.commit()
            finally:
                os.close(self._lock)
                self._lock = -1

    def _write(self, waiting: list[_Waiting]) -> None:
        try:
            told, arrays = encode(list(_side_by_side(waiting)), [tuple(w.states.extras.values()) for w in waiting])
        except Uncodable:
            if len(waiting) > 1:
                for one in waiting:
                    self._write([one])
            return  # alone: it is computed anew each time
        name = f"{self._number:08d}"
        self._number += 1
        keys = [w.key.hex() for w in waiting]
        attributes = {"store_version": STORE_VERSION, "computed_by": computed_by(), "keys": keys, **told}
        write_array(os.path.join(self._folder, name), arrays, attributes, compressed=self._kind != RESULTS)
        self._places.update((w.key, Place(name, number)) for number, w in enumerate(waiting))

    def _open(self) -> None:
        sound = self._check_root()
        names = self._names()
        if not sound:
            for name in names:
                self._remove(name)
            _write_root(self.path, self._kind)
            names = []
        os.makedirs(self._folder, exist_ok=True)
        for name in names:
            if name.isdigit():
                self._number = max(self._number, int(name) + 1)
                self._take(name)
            elif name != "zarr.json":
                self._remove(name)  # what a killed run did not finish

    def _names(self) -> list[str]:
        """What lies where the batches are."""
        return sorted(os.listdir(self._folder)) if os.path.isdir(self._folder) else []

    def _check_root(self) -> bool:
        """Whether the root says that this is a store of this version; what else it says is told."""
        try:
            about = read_attributes(self.path)
        except FileNotFoundError:
            if any(name.isdigit() for name in self._names()):
                self._damaged("it has no metadata")
            return False
        except DamagedError as error:
            self._damaged(str(error))
            return False
        if about.get("kind") != self._kind:
            raise UsageError(f"--store: this holds {about.get('kind')}, not {self._kind}; name another", path=self.path)
        if about.get("store_version") != STORE_VERSION:
            self._other_version(f"layout {about.get('store_version')} of {about.get('tool_version')}")
            return False
        return True

    def _take(self, name: str) -> None:
        """Look through a batch; one that cannot be used is told and removed."""
        try:
            attributes, kept = self._read(name)
            if attributes["computed_by"] == computed_by():
                keys = [bytes.fromhex(key) for key in attributes["keys"]]
                if not len(keys) == len(kept.extras) == len(kept.finished.rows):
                    raise DamagedError("its parts do not fit together")
                self._places.update((key, Place(name, number)) for number, key in enumerate(keys))
                return
            self._other_version(f"batch {name} of {str(attributes['computed_by']).partition('-')[0]}")
        except (DamagedError, OSError, LookupError, ValueError) as error:
            self._damaged(f"batch {name}: {error}")
        self._remove(name)

    def _read(self, name: str) -> tuple[dict[str, Any], Kept]:
        attributes, data = read_array(os.path.join(self._folder, name))
        if attributes.get("store_version") != STORE_VERSION:
            raise DamagedError("it is of another layout")
        return attributes, decode(attributes, data)

    def _remove(self, name: str) -> None:
        path = os.path.join(self._folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def _damaged(self, what: str) -> None:
        self._oddities.append(Oddity("store_damaged", f"the store is damaged ({what}); it is computed anew", self.path))

    def _other_version(self, what: str) -> None:
        message = f"kept by another version or on another processor ({what}, this is {__version__}); it is computed anew"
        self._oddities.append(Oddity("store_version", message, self.path))


def _locked(path: str) -> int:
    """The descriptor that holds the lock of a store, which is made if there is nothing. Raises UsageError."""
    try:
        os.makedirs(path, exist_ok=True)
        inside = os.listdir(path)
        if inside and LOCK not in inside:
            raise UsageError("--store: this directory holds something else; name a new one, or a store", path=path)
        descriptor = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"--store cannot be used: {error.strerror}", path=path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        busy = isinstance(error, BlockingIOError)
        reason = "another run has it open; wait for that, or name another store" if busy else f"no lock: {error.strerror}"
        raise UsageError(f"--store: {reason}", path=path) from error
    return descriptor


def _write_root(path: str, kind: str) -> None:
    about = {"kind": kind, "store_version": STORE_VERSION, "tool_version": __version__}
    write_group(os.path.join(path, BATCHES), {})
    write_group(path, about)


def _side_by_side(waiting: list[_Waiting]) -> Iterator[Finished]:
    """What waits, tensors that were finished together still together."""
    first = 0
    for i in range(1, len(waiting) + 1):
        if i == len(waiting) or not _follows(waiting[i - 1].states, waiting[i].states):
            yield waiting[first].states.finished.part(waiting[first].states.place, waiting[i - 1].states.place + 1)
            first = i


def _follows(left: TensorStates, right: TensorStates) -> bool:
    return left.finished is right.finished and right.place == left.place + 1


def _nbytes(states: TensorStates) -> int:
    """Bytes of a tensor on the disk, about: its other statistics and a coarse histogram of each view."""
    extras = (value for columns in states.extras.values() for value in columns.values())
    return 8192 + sum(getattr(value, "nbytes", 16) for value in extras)
