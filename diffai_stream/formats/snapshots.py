"""The Hugging Face cache: which snapshot a cache root stands for.

Layout (`huggingface_hub/file_download.py`): `models--org--name/` holds `refs/<revision>`, a file with a commit's name,
`snapshots/<commit>/`, whose files are links, and `blobs/`, where the bytes are.
"""

from __future__ import annotations

import os
import re

from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import file_error, listed, open_regular, read_exactly

_COMMIT = re.compile(r"[\w.-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_cache_root(path: str) -> bool:
    """Whether a directory has the layout of one repository in the cache."""
    if not os.path.isdir(os.path.join(path, "snapshots")):
        return False
    named = os.path.basename(os.path.realpath(path)).startswith("models--")
    return named or os.path.isdir(os.path.join(path, "refs")) or os.path.isdir(os.path.join(path, "blobs"))


def snapshot_of(path: str) -> str:
    """The snapshot directory of `refs/main`, or the only one there is. Raises FormatError when that leaves a choice."""
    folder = os.path.join(path, "snapshots")
    commit = _main_commit(path)
    if commit and os.path.isdir(os.path.join(folder, commit)):
        return os.path.join(folder, commit)
    try:
        found = sorted(item.name for item in os.scandir(folder) if item.is_dir())
    except OSError as error:
        raise file_error(folder, error) from None
    if len(found) == 1:
        return os.path.join(folder, found[0])
    if not found:
        raise FormatError("a cache without any snapshot: the download did not finish", path=path)
    told = f"refs/main names {commit!r}, which is not there" if commit else "there is no readable refs/main"
    raise FormatError(f"{told}; name one of snapshots/: {listed(found)}", path=path)


def cached_names(path: str) -> list[str]:
    """What lies in the snapshot that a cache root stands for; nothing where that cannot be told."""
    try:
        return sorted(os.listdir(snapshot_of(path)))
    except (OSError, FormatError):
        return []


def _main_commit(path: str) -> str | None:
    """The commit that `refs/main` names; None when it is missing or no plain name (nothing is followed out of the cache)."""
    try:
        with open_regular(os.path.join(path, "refs", "main")) as (file, stamp):
            text = read_exactly(file, 0, min(stamp.nbytes, 256), path).decode("ascii", "replace").strip()
    except FormatError:
        return None
    return text if _COMMIT.fullmatch(text) and text.strip(".") else None


def blob_identity(real_path: str) -> dict[str, str]:
    """The resolved path of a file -> the SHA-256 of its bytes, by which the cache names large blobs; else nothing."""
    folder, blob = os.path.split(real_path)
    return {real_path: blob} if os.path.basename(folder) == "blobs" and _SHA256.fullmatch(blob) else {}
