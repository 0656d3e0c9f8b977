"""zarr directories of versions 2 and 3: groups of arrays, or one array (`zarr_tree.py` walks them)."""

from __future__ import annotations

import os

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import collection_paused
from diffai_stream.formats.zarr_tree import Tree

_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def probe(path: str, head: bytes) -> bool:
    """Whether it is a directory with zarr metadata, or that metadata itself."""
    if head:
        return os.path.basename(path) in _METADATA and b'"zarr_format"' in head
    return any(os.path.lexists(os.path.join(path, name)) for name in _METADATA)


def index(path: str) -> Checkpoint:
    """All arrays below the directory. Raises FormatError when there is none; one that cannot be read is an error by name."""
    tree = Tree(path)
    with collection_paused():
        tree.walk(path if os.path.isdir(path) else os.path.dirname(path) or ".")
    if not tree.tensors and not tree.errors:
        raise FormatError("no arrays in this zarr directory", path=path)
    return tree.checkpoint("zarr")
