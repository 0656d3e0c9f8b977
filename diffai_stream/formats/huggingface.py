"""Hugging Face directories: shards under an index, a single file, or a cache root with snapshots.

Of several copies of the same weights in one directory the index comes before `model.safetensors`, that before the names of
diffusers, those before the same in `.bin` files of torch, those before whatever else lies there
(`transformers/modeling_utils.py`, `diffusers/models/model_loading_utils.py`); the copies that are left are named in an oddity,
never read.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from diffai_stream.errors import CheckpointError, FormatError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import Notes, collection_paused, file_error, listed
from diffai_stream.formats.shard_index import ShardIndex, read_shard_index
from diffai_stream.formats.shards import Shards
from diffai_stream.formats.snapshots import cached_names, is_cache_root, snapshot_of
from diffai_stream.formats.tied import tied_by_config

_SUFFIX = ".safetensors"
_SINGLE = (
    *("model.safetensors", "diffusion_pytorch_model.safetensors"),
    *("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.bin"),
)
_INDEX = re.compile(r".*\.(safetensors|bin)\.index(\.[\w-]+)?\.json")
_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})(?P<variant>.*)(?P<suffix>\.safetensors|\.bin)")
_BIN = re.compile(r"(pytorch_model|diffusion_pytorch_model|adapter_model|model)(-\d+-of-\d+)?(\.[\w-]+)?\.bin")
_COPY = re.compile(
    r"(consolidated|adapter_model).*\.(safetensors|bin)(\.index\.json)?"
    r"|.+\.(fp16|bf16|fp32|non_ema|ema)(-\d+-of-\d+)?\.(safetensors|bin)"
)
_OTHER_WEIGHTS = re.compile(
    r"(pytorch_model|diffusion_pytorch_model|adapter_model|consolidated).*\.(bin|pth?|bin\.index\.json)|original"
)
_MAX_TOLD = 100


class _Chosen(NamedTuple):
    """What of a directory is read: an index file, or the shards themselves."""

    index_name: str | None
    shards: tuple[str, ...] = ()


def probe(path: str, head: bytes) -> bool:
    """Whether it is a directory that holds safetensors or pytorch_model.bin, a cache root, or the index file of one."""
    if head:
        named = _INDEX.fullmatch(os.path.basename(path)) is not None
        return head.lstrip()[:1] == b"{" and (
            named or (b'"weight_map"' in head and (_SUFFIX.encode() in head or b".bin" in head))
        )
    if not os.path.isdir(path):
        return False
    names = cached_names(path) if is_cache_root(path) else _listing(path)
    has_weights = any(_is_shard(name) or _INDEX.fullmatch(name) for name in names)
    return has_weights or (is_cache_root(path) and not any(name.endswith(".gguf") for name in names))


def index(path: str) -> Checkpoint:
    """The tensors of all shards, shard by shard in the order of their names.

    Raises FormatError when no shard can be read; a shard or a tensor that cannot is an error in `errors`, each by name.
    """
    with collection_paused():
        if os.path.isdir(path):
            directory = snapshot_of(path) if is_cache_root(path) else path
            return _from_directory(path, directory)
        notes = Notes(path)
        return _from_index(path, os.path.dirname(path), read_shard_index(path, notes), notes)


def _listing(directory: str) -> list[str]:
    """The names in a directory, sorted; hidden ones (`._model.safetensors` of macOS, `.cache`) are no weights."""
    try:
        return sorted(name for name in os.listdir(directory or ".") if not name.startswith("."))
    except OSError as error:
        raise file_error(directory, error) from None


def _from_directory(path: str, directory: str) -> Checkpoint:
    names, notes = _listing(directory), Notes(directory)
    chosen = _choose(names, directory)
    if chosen.index_name is None:
        return _from_files(path, directory, chosen.shards, notes)
    try:
        shard_index = read_shard_index(os.path.join(directory, chosen.index_name), notes)
    except FormatError as error:
        left = _choose([name for name in names if not _INDEX.fullmatch(name)], directory)
        return _from_files(path, directory, left.shards, notes, error)
    return _from_index(path, directory, shard_index, notes)


def _choose(names: list[str], directory: str) -> _Chosen:
    """Which of the copies in a directory counts. Raises FormatError when there is none, or no way to tell."""
    for single in _SINGLE:
        if f"{single}.index.json" in names:
            return _Chosen(f"{single}.index.json")
        if single in names:
            return _Chosen(None, (single,))
    indexes = _originals([name for name in names if _INDEX.fullmatch(name)])
    if len(indexes) == 1:
        return _Chosen(indexes[0])
    if indexes:
        raise FormatError(f"several index files, name one of them: {listed(indexes)}", path=directory)
    shards = _originals([name for name in names if name.endswith(_SUFFIX)] or [name for name in names if _is_shard(name)])
    if not shards:
        raise FormatError("no *.safetensors file and no pytorch_model.bin in this directory", path=directory)
    return _Chosen(None, tuple(shards))


def _is_shard(name: str) -> bool:
    return name.endswith(_SUFFIX) or _BIN.fullmatch(name) is not None


def _originals(names: list[str]) -> list[str]:
    """The names without those of known copies and variants, unless there is nothing else."""
    return [name for name in names if not _COPY.fullmatch(name)] or names


def _from_index(path: str, directory: str, shard_index: ShardIndex, notes: Notes) -> Checkpoint:
    mapped = set(shard_index.weight_map.values())
    families = {_family(shard) for shard in mapped} - {None}
    unlisted = [name for name in _listing(directory) if name not in mapped and _family(name) in families]
    for name in unlisted:
        notes.add("unlisted_shard", f"the shard {name!r} is not in the index but belongs to its series: it is read too")
    shards = Shards(directory, notes, shard_index, list(shard_index.errors))
    shards.read(sorted([*mapped, *unlisted]))
    return _checkpoint(path, directory, shards, {*mapped, *unlisted, os.path.basename(shard_index.path)})


def _from_files(path: str, directory: str, names: tuple[str, ...], notes: Notes, *errors: CheckpointError) -> Checkpoint:
    shards = Shards(directory, notes, None, [*errors, *_numbers_missing(names, directory)])
    shards.read(list(names))
    return _checkpoint(path, directory, shards, {*names, *(os.path.basename(error.path or "") for error in errors)})


def _family(name: str) -> tuple[str, str, str, str] | None:
    match = _NUMBERED.fullmatch(name)
    return (match["stem"], match["count"], match["variant"], match["suffix"]) if match else None


def _numbers_missing(names: tuple[str, ...], directory: str) -> list[CheckpointError]:
    """An error for each number missing in a series `name-00001-of-00003.safetensors`; one for all when they are many."""
    series: dict[tuple[str, str, str, str], set[int]] = {}
    for name in names:
        if (match := _NUMBERED.fullmatch(name)) and (family := _family(name)):
            series.setdefault(family, set()).add(int(match["number"]))
    errors: list[CheckpointError] = []
    for (stem, count, variant, suffix), present in series.items():
        first = min(1, min(present))
        missing = [number for number in range(first, first + int(count)) if number not in present]
        more = f"; {len(missing) - 1} more of the series are missing too" if len(missing) > _MAX_TOLD else ""
        for number in missing[:1] if more else missing:
            shard = f"{stem}-{number:0{len(count)}}-of-{count}{variant}{suffix}"
            message = f"the shard is missing, and no index tells which tensors it held{more}"
            errors.append(FormatError(message, path=os.path.join(directory, shard)))
    return errors


def _checkpoint(path: str, directory: str, shards: Shards, read: set[str]) -> Checkpoint:
    copies = [name for name in _listing(directory) if name not in read and _is_weights(name)]
    if copies:
        message = f"not read, taken for copies or variants of the weights: {listed(copies)}"
        shards.notes.add("ignored_weights", message)
    tied, oddities, stamps = tied_by_config(directory, shards.names())
    return Checkpoint(
        path=path,
        format="huggingface",
        tensors=tuple(shards.tensors.values()),
        metadata=shards.metadata,
        stamps=shards.stamps | {stamp.path: stamp for stamp in stamps},
        oddities=(*shards.oddities, *shards.notes.oddities(), *oddities),
        errors=tuple(shards.errors),
        aliases=tied | shards.aliases,
        identities=shards.identities,
        hyperparameters=shards.hyperparameters,
        unsafe_globals=tuple(sorted(shards.unsafe_globals)),
        container="directory",
    )


def _is_weights(name: str) -> bool:
    return _is_shard(name) or bool(_INDEX.fullmatch(name) or _OTHER_WEIGHTS.fullmatch(name))
