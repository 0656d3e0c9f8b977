"""The index file of sharded safetensors: which shard holds which tensor, as far as it can be believed.

Layout: `{"metadata": {"total_size": N, ...}, "weight_map": {tensor: shard}}`, shard paths relative to the index.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import NamedTuple

from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats.inert import Notes, Repeated, printable, read_json
from diffai_stream.storage.extent import FileStamp


class ShardIndex(NamedTuple):
    """`weight_map` holds the entries whose shard lies under the directory; the others are `errors`."""

    path: str
    weight_map: dict[str, str]
    metadata: dict[str, str]
    total_nbytes: int | None
    errors: tuple[CheckpointError, ...]
    stamp: FileStamp


def read_shard_index(path: str, notes: Notes) -> ShardIndex:
    """Read an index file. Raises FormatError when it is not JSON or has no weight_map."""
    root, stamp = read_json(path)
    weight_map = root.get("weight_map")
    if not isinstance(weight_map, dict):
        raise FormatError("not a usable index: it has no weight_map object", path=path)
    if isinstance(weight_map, Repeated):
        count = sum(count > 1 for count in Counter(name for name, _ in weight_map.pairs).values())
        notes.add("duplicate_key", f"{count} names occur twice in weight_map, the last one counts")
    try:
        kept, errors = _believable(weight_map, path)
        metadata, total = _metadata(root.get("metadata"), notes)
    except RecursionError:
        raise FormatError("the index nests JSON too deeply to be genuine", path=path) from None
    return ShardIndex(path, kept, metadata, total, tuple(errors), stamp)


def _believable(weight_map: dict[str, object], path: str) -> tuple[dict[str, str], list[CheckpointError]]:
    kept: dict[str, str] = {}
    errors: list[CheckpointError] = []
    refused: Counter[str] = Counter()
    for name, shard in weight_map.items():
        if isinstance(shard, str) and _stays_inside(shard):
            kept[name] = os.path.normpath(shard)
            continue
        place = printable(shard) if isinstance(shard, str) else json.dumps(shard)
        refused[place[:200]] += 1
        errors.append(TensorError(f"the index maps it to {place[:200]!r}, which is refused", path=path, tensor=printable(name)))
    reason = "no relative path below the directory of the index"
    shards = [
        FormatError(f"shard {place!r} is refused ({count} tensor(s)): {reason}", path=path) for place, count in refused.items()
    ]
    return kept, [*shards, *errors]


def _stays_inside(shard: str) -> bool:
    plain = shard.strip() and "\0" not in shard and printable(shard) == shard
    return (
        bool(plain)
        and not os.path.isabs(shard)
        and ".." not in shard.replace("\\", "/").split("/")
        and os.path.normpath(shard) != "."
    )


def _metadata(declared: object, notes: Notes) -> tuple[dict[str, str], int | None]:
    """The metadata as strings, and `total_size` apart from it (None when it is absent or no number)."""
    if declared is None:
        return {}, None
    if not isinstance(declared, dict):
        notes.add(
            "metadata_not_an_object", f"metadata of the index is a {type(declared).__name__}, not an object: it is left out"
        )
        return {}, None
    total = declared.get("total_size")
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    if total is not None and type(total) is not int:
        notes.add("wrong_total_size", f"total_size of the index is {str(total)[:40]!r}, not a number of bytes")
        total = None
    others = {key: value for key, value in declared.items() if key != "total_size"}
    text = {printable(key): printable(value if isinstance(value, str) else json.dumps(value)) for key, value in others.items()}
    return text, total if type(total) is int else None
