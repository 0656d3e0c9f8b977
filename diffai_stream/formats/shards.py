"""Several files as one checkpoint: which copy of a name counts, and what is missing.

The index decides where a tensor is read when it is right; when it is wrong the tensor is taken from where it is found, and
said so. What is promised and found nowhere is an error by name, so that nothing is left out in silence.
"""

from __future__ import annotations

import os

from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats import safetensors, torch_files
from diffai_stream.formats.base import Checkpoint, Format, Oddity, TensorEntry
from diffai_stream.formats.inert import Notes, listed, open_regular, printable, read_exactly
from diffai_stream.formats.shard_index import ShardIndex
from diffai_stream.formats.tied import tied_by_metadata
from diffai_stream.storage.extent import FileStamp


class Shards:
    """The union of some safetensors or torch files of a directory; `read` fills it."""

    def __init__(self, directory: str, notes: Notes, index: ShardIndex | None, errors: list[CheckpointError]) -> None:
        self.directory, self.notes, self.index, self.errors = directory, notes, index, errors
        self.expected = index.weight_map if index else {}
        self._promised: dict[str, list[str]] = {}
        for name, shard in self.expected.items():
            self._promised.setdefault(shard, []).append(name)
        self.tensors: dict[str, TensorEntry] = {}
        self.metadata: dict[str, str] = dict(index.metadata) if index else {}
        self.stamps: dict[str, FileStamp] = {index.stamp.path: index.stamp} if index else {}
        self.aliases: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self.identities: dict[str, str] = {}
        self.hyperparameters: dict[str, str | int | float | bool] = {}
        self.unsafe_globals: set[str] = set()
        self.oddities: list[Oddity] = []
        self._failed: set[str] = {error.tensor for error in errors if error.tensor}

    def names(self) -> set[str]:
        """All names that were met, readable or not."""
        return self.tensors.keys() | self._failed

    def read(self, shards: list[str]) -> None:
        """Index the shards. Raises FormatError when none of them can be read."""
        found: dict[str, Checkpoint] = {}
        unreadable: list[FormatError] = []
        for shard in shards:
            try:
                found[shard] = self._open(shard)
            except FormatError as error:
                unreadable.append(error)
        if unreadable and not found:
            raise _nothing_readable(unreadable, self.directory)
        self.errors += unreadable
        for shard, checkpoint in found.items():
            self._take_surroundings(shard, checkpoint)
        self._take_tensors(found)
        self._shared = dict(self.aliases)
        self.aliases |= tied_by_metadata(self.metadata, self.tensors.keys())
        self._tell_missing(found)
        self._check_total()

    def _open(self, shard: str) -> Checkpoint:
        path = os.path.join(self.directory, shard)
        if os.path.exists(path):
            return _reader(path).index(path)
        reason = "is a link to a blob that is not there (an unfinished download?)" if os.path.islink(path) else "is missing"
        raise FormatError(f"the shard {reason}{self._told(shard)}", path=path)

    def _told(self, shard: str, limit: int = 3) -> str:
        """How many tensors the index expects in a shard, with the first few names."""
        names = self._promised.get(shard, [])
        return f"; by the index it holds {len(names)} tensor(s): {listed(names, limit)}" if names else ""

    def _take_surroundings(self, shard: str, checkpoint: Checkpoint) -> None:
        for key, value in checkpoint.metadata.items():
            if self.metadata.setdefault(key, value) != value:
                self.metadata[f"{key}@{shard}"] = value
        self.stamps |= checkpoint.stamps
        self.identities |= checkpoint.identities
        self.aliases |= checkpoint.aliases
        self.hyperparameters |= checkpoint.hyperparameters
        self.unsafe_globals |= set(checkpoint.unsafe_globals)
        self.oddities += checkpoint.oddities
        self.errors += checkpoint.errors
        self._failed |= {error.tensor for error in checkpoint.errors if error.tensor}

    def _take_tensors(self, found: dict[str, Checkpoint]) -> None:
        holders: dict[str, list[str]] = {}
        for shard, checkpoint in found.items():
            for entry in checkpoint.tensors:
                holders.setdefault(entry.name, []).append(shard)
        for shard, checkpoint in found.items():
            for entry in checkpoint.tensors:
                if self._counts(entry.name, shard, holders[entry.name]):
                    self.tensors[entry.name] = entry

    def _counts(self, name: str, shard: str, holders: list[str]) -> bool:
        """Whether the copy of a tensor in this shard is the one to read; tells what is odd about it."""
        promised = self.expected.get(name)
        if promised == shard:
            return True
        if promised in holders:
            self.notes.add("duplicate_tensor", f"{name!r} is in {shard!r} too, the index names {promised!r}: that counts", name)
            return False
        if len(holders) > 1:
            if shard == holders[0]:
                self._fail(
                    name, f"several shards hold it ({listed(holders)}) and no index tells which counts; name one file", shard
                )
            return False
        if promised is not None:
            self.notes.add("wrong_index_entry", f"the index maps {name!r} to {promised!r}, it is in {shard!r}", name)
        elif self.index is not None:
            self.notes.add("not_in_index", f"{name!r} of {shard!r} is not in the index", name)
        return True

    def _fail(self, name: str, message: str, shard: str) -> None:
        self._failed.add(name)
        path = os.path.join(self.directory, shard)
        self.errors.append(TensorError(message, path=path, tensor=printable(name)))

    def _tell_missing(self, found: dict[str, Checkpoint]) -> None:
        """An error for each tensor that the index promises and no shard gives."""
        for name, shard in self.expected.items():
            if name in self.tensors or name in self._failed or name in self._shared:
                continue
            if name in self.aliases:
                kept = self.aliases[name]
                self.notes.add("wrong_index_entry", f"the index maps {name!r} to {shard!r}, it is stored as {kept!r}", name)
            elif shard in found:
                self._fail(name, "the index maps it to this shard, which does not hold it, nor does any other", shard)
            else:
                self._fail(name, "its shard is missing or cannot be read", shard)

    def _check_total(self) -> None:
        declared = self.index.total_nbytes if self.index else None
        if declared is None or self.errors:
            return
        nbytes = sum(entry.stored_nbytes for entry in self.tensors.values())
        shared = sum(self.tensors[kept].stored_nbytes for kept in self._shared.values() if kept in self.tensors)
        if declared not in (nbytes, nbytes + shared):  # writers count a shared tensor once or twice
            self.notes.add("wrong_total_size", f"the index declares {declared} bytes of tensors, the shards hold {nbytes}")


def _reader(path: str) -> Format:
    """The format of a shard: safetensors, unless its first bytes are those of a torch file."""
    if path.endswith(".safetensors"):
        return safetensors
    with open_regular(path) as (file, stamp):
        head = read_exactly(file, 0, min(512, stamp.nbytes), path)
    return torch_files if torch_files.probe(path, head) else safetensors


def _nothing_readable(errors: list[FormatError], directory: str) -> FormatError:
    if len(errors) == 1:
        return errors[0]
    return FormatError(f"none of the {len(errors)} shards can be read; the first: {errors[0]}", path=directory)
