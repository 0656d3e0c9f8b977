"""Keras archives (`.keras`) and sharded Keras weights (`.weights.json`): HDF5 files inside of a zip archive or beside an index.

Layout (`keras/src/saving/saving_lib.py`): an archive holds `metadata.json`, `config.json` and `model.weights.h5`, stored as
they are, so that a dataset lies at the member's offset + its own. The index maps groups of variables to shards
`<stem>_00000.weights.h5`; a group that did not fit continues in the next shard, which the index does not say, so all are read.
`config.json` may hold code of Lambda layers and is never looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import FileIO

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.hdf5_walk import Found, Place, checkpoint_of, read_file
from diffai_stream.formats.inert import Notes, collection_paused, file_error, open_regular, parse_json
from diffai_stream.formats.shard_index import read_shard_index
from diffai_stream.formats.zip_members import LOCAL_HEADER, Member, read_members
from diffai_stream.storage.extent import FileStamp

_FIRST_MEMBERS = (b"metadata.json", b"config.json", b"model.weights.h5", b"model.weights.json")
_SUFFIX = ".weights.h5"
_INDEX_SUFFIX = ".weights.json"
_SHARD = re.compile(r"(?P<stem>.*)_\d{5,6}\.weights\.h5")
_MAX_METADATA_NBYTES = 1 << 20


def probe(path: str, head: bytes) -> bool:
    """Whether it is an archive that Keras began, the index of sharded weights, or a directory with one."""
    if head.startswith(b"PK\x03\x04") and len(head) >= LOCAL_HEADER.size:
        name_nbytes = LOCAL_HEADER.unpack_from(head)[9]
        first = head[LOCAL_HEADER.size : LOCAL_HEADER.size + name_nbytes]
        return first in _FIRST_MEMBERS or (first.endswith(b".json") and path.endswith(".keras"))
    if head:
        is_object = head.lstrip()[:1] == b"{"
        return is_object and (path.endswith(_INDEX_SUFFIX) or (b'"weight_map"' in head and _SUFFIX.encode() in head))
    return os.path.isdir(path) and _inside(path) is not None


def index(path: str) -> Checkpoint:
    """The variables of all HDF5 files of the archive or index, by their paths in the model.

    Raises FormatError when there is none that can be read; a shard that cannot is an error by its name.
    """
    with collection_paused():
        inner = _inside(path) if os.path.isdir(path) else None
        if inner is not None and inner.endswith(_SUFFIX):
            return _shards(path, os.path.dirname(inner), {os.path.basename(inner)}, Found(path), {}, {})
        if inner is not None or path.endswith(".json"):
            return _from_index(path, inner or path)
        return _archive(path)


def _inside(directory: str) -> str | None:
    """The index or the one weights file of a directory."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise file_error(directory, error) from None
    for suffix in (_INDEX_SUFFIX, _SUFFIX):
        found = [name for name in names if name.endswith(suffix) and not name.startswith(".")]
        if len(found) == 1 or f"model{suffix}" in found:
            return os.path.join(directory, f"model{suffix}" if f"model{suffix}" in found else found[0])
    return None


def _from_index(path: str, index_path: str) -> Checkpoint:
    found = Found(path)
    declared = read_shard_index(index_path, found.notes)
    found.errors += [error for error in declared.errors if isinstance(error, FormatError)]
    directory = os.path.dirname(index_path)
    shards = set(declared.weight_map.values())
    return _shards(
        path,
        directory,
        shards | _series(directory, shards, found.notes),
        found,
        {declared.stamp.path: declared.stamp},
        declared.metadata,
    )


def _series(directory: str, shards: set[str], notes: Notes) -> set[str]:
    """Shards that the index does not name: those in which a group is continued."""
    stems = {match["stem"] for shard in shards if (match := _SHARD.fullmatch(shard))}
    try:
        names = os.listdir(directory or ".")
    except OSError as error:
        raise file_error(directory, error) from None
    others = {name for name in names if (match := _SHARD.fullmatch(name)) and match["stem"] in stems} - shards
    for name in sorted(others):
        notes.add("unlisted_shard", f"the shard {name!r} is not in the index but belongs to its series: it is read too")
    return others


def _shards(
    path: str, directory: str, shards: set[str], found: Found, stamps: dict[str, FileStamp], metadata: Mapping[str, str]
) -> Checkpoint:
    for shard in sorted(shards):
        try:
            with open_regular(os.path.join(directory, shard)) as (file, stamp):
                stamps[stamp.path] = stamp
                read_file(file, Place(stamp, 0, stamp.nbytes), found)
        except FormatError as error:
            found.errors.append(FormatError(error.message, path=os.path.join(directory, shard), offset=error.offset))
    if not found.tensors and found.errors:
        raise found.errors[0]
    return checkpoint_of(found, "keras", stamps, dict(metadata))


def _archive(path: str) -> Checkpoint:
    found = Found(path)
    with open_regular(path) as (file, stamp):
        members, flaws = read_members(file, stamp.nbytes, path)
        found.errors += flaws
        weights = [member for member in members if member.name.endswith(_SUFFIX)]
        if not weights:
            raise _without_weights(path, members)
        for member in weights:
            if member.deflated:
                message = f"its member {member.name!r} is compressed, Keras stores it; unzip it and name {member.name!r}"
                raise FormatError(message, path=path, offset=member.offset)
            read_file(file, Place(stamp, member.offset, member.nbytes), found)
        metadata = _metadata(file, members, path)
    return checkpoint_of(found, "keras", {stamp.path: stamp}, metadata)


def _without_weights(path: str, members: list[Member]) -> FormatError:
    if any(member.name.endswith(".weights.npz") for member in members):
        return FormatError("its weights are an .npz of pickled objects, which are never loaded; save it as HDF5", path=path)
    return FormatError(f"a Keras archive without *{_SUFFIX} (it holds {', '.join(m.name for m in members[:5])})", path=path)


def _metadata(file: FileIO, members: list[Member], path: str) -> dict[str, str]:
    """The versions that `metadata.json` names."""
    member = next((member for member in members if member.name == "metadata.json"), None)
    if member is None or member.nbytes > _MAX_METADATA_NBYTES:
        return {}
    try:
        declared = parse_json(member.head(file, member.nbytes), path, member.offset, "metadata.json")
    except (FormatError, ValueError):
        return {}
    return {key: value for key, value in declared.items() if isinstance(value, str)}
