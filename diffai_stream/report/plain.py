"""Records as plain JSON values: what every record output shares before the bytes of its own notation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from diffai_stream.report.records import Record

METADATA_NBYTES: Final = 8 * 1024
"""Metadata of a header beyond this many bytes of JSON is left out, so that container logs do not split the line."""


def sanitised(value: Any) -> Any:
    """A copy that any notation can hold.

    NaN and Inf become null; lone surrogates are written out as `\\udcff`, so that names stay distinct; keys become
    strings, tuples and arrays lists, NumPy scalars Python numbers, any other object its text.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {encodable(str(key)): sanitised(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [sanitised(item) for item in value]
    if hasattr(value, "tolist"):
        return sanitised(value.tolist())
    return encodable(str(value))


def encodable(text: str) -> str:
    r"""The text in UTF-8, a lone surrogate written out as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fitted(record: Record) -> Record:
    """The record as it is printed: a header whose metadata is too long without the entries that do not fit."""
    if record.get("type") != "header":
        return record
    sides = [key for key in ("old", "new") if record.get(key)]
    checkpoints = record.get("checkpoints", [])
    limit = METADATA_NBYTES // max(1, len(sides) + len(checkpoints))
    cut = {**record, **{key: _cut(record[key], limit) for key in sides}}
    if checkpoints:
        cut["checkpoints"] = [_cut(side, limit) for side in checkpoints]
    return cut


def _cut(side: Mapping[str, Any], limit: int) -> Mapping[str, Any]:
    kept, used = [], 2
    for item in side.get("metadata", []):
        nbytes = len(json.dumps(sanitised(item), ensure_ascii=False).encode()) + 1
        if used + nbytes <= limit:
            kept.append(item)
            used += nbytes
    complete = len(kept) == len(side.get("metadata", []))
    return side if complete else {**side, "metadata": kept, "metadata_truncated": True}
