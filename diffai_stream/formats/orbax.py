"""Orbax checkpoints (JAX, Flax): a step of items, or one item, whose arrays lie in an OCDBT database or in directories.

Layout (Orbax's "Checkpoint format"): an item holds `_METADATA` (JSON: the tree of keys and the kind of each leaf),
`manifest.ocdbt` with its data in `d/` and `ocdbt.process_<N>/`, where the keys are those of zarr stores named by the path of
the leaf with dots; without OCDBT each leaf is a directory. TensorStore gives the values of keys, the arrays are unpacked here.
"""

from __future__ import annotations

import os

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import collection_paused, file_error, printable, read_json
from diffai_stream.formats.zarr_tree import Tree, check_claim, entry_of
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.zarr.metadata import GROUP, MAX_METADATA_NBYTES, ZarrError, parse_array
from diffai_stream.storage.zarr.stores import MANIFEST, Database, stamp_of_manifest

_ITEM, _STEP = "_METADATA", "_CHECKPOINT_METADATA"
_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
_UNFINISHED = ".orbax-checkpoint-tmp"
_MAX_JSON_NBYTES = 1 << 28


def probe(path: str, head: bytes) -> bool:
    """Whether it is a directory with the metadata of a step or an item, or with an OCDBT manifest."""
    return not head and any(os.path.lexists(os.path.join(path, name)) for name in (MANIFEST, _ITEM, _STEP))


def index(path: str) -> Checkpoint:
    """The arrays of all items; names begin with the item where there are several.

    Raises FormatError when there are none, ImportError when tensorstore is needed and not installed.
    """
    tree = Tree(path)
    if _UNFINISHED in os.path.basename(os.path.realpath(path)):
        tree.notes.add("unfinished", "its name says that it was never finished by Orbax")
    with collection_paused():
        items = _items(path)
        for item in items:
            prefix = f"{os.path.basename(item)}." if len(items) > 1 else ""
            _read_item(tree, item, prefix)
    if not tree.tensors and not tree.errors:
        raise FormatError("no arrays in this Orbax checkpoint", path=path)
    return tree.checkpoint("orbax")


def _items(path: str) -> list[str]:
    """The directories that hold arrays: the path itself, or those in a step."""
    if any(os.path.lexists(os.path.join(path, name)) for name in (MANIFEST, _ITEM)):
        return [path]
    try:
        inside = sorted(item.path for item in os.scandir(path) if item.is_dir())
    except OSError as error:
        raise file_error(path, error) from None
    items = [item for item in inside if any(os.path.lexists(os.path.join(item, name)) for name in (MANIFEST, _ITEM))]
    if not items:
        raise FormatError("none of the items of this Orbax step holds arrays", path=path)
    return items


def _read_item(tree: Tree, folder: str, prefix: str) -> None:
    """Add the arrays of an item, and an error for each that its metadata names and that is not stored."""
    if os.path.lexists(os.path.join(folder, MANIFEST)):
        _read_database(tree, os.path.realpath(folder), prefix)
    else:
        tree.walk(folder, prefix.removesuffix("."))
    named = _named(tree, folder)
    known = tree.tensors.keys() | {error.tensor for error in tree.errors}
    for name in named:
        if prefix + name not in known:
            message = f"{_ITEM} names it, but it is not stored: incomplete, or copied without its parts"
            tree.errors.append(TensorError(message, path=folder, tensor=prefix + name))


def _read_database(tree: Tree, folder: str, prefix: str) -> None:
    manifest = os.path.join(folder, MANIFEST)
    try:
        keys = Database(folder).keys()
        tree.stamps[manifest] = stamp_of_manifest(folder)._replace(inode=(0, 0))  # its data lies in other files
    except ZarrError as error:
        raise FormatError(str(error), path=manifest) from None
    for key in keys:
        place, _, leaf = key.rpartition("/")
        if leaf not in (".zarray", "zarr.json"):
            continue
        name, version = printable(prefix + place.replace("/", ".")), 2 if leaf == ".zarray" else 3
        try:
            array = parse_array(Database(folder, f"{place}/").read(leaf, MAX_METADATA_NBYTES) or b"", version)
            check_claim(array, folder)
            extent = Extent(manifest, 0, array.nbytes, f"ocdbt:{version}:{place}/")
            tree.tensors[name] = entry_of(array, name, (extent,))
        except ZarrError as error:
            if str(error) != GROUP:
                tree.errors.append(TensorError(str(error), path=manifest, tensor=name))


def _named(tree: Tree, folder: str) -> list[str]:
    """The leaves that the metadata of an item says are arrays."""
    path = os.path.join(folder, _ITEM)
    if not os.path.lexists(path):
        return []
    try:
        declared, _ = read_json(path, _MAX_JSON_NBYTES)
    except FormatError as error:
        tree.notes.add("broken_metadata", f"{_ITEM} was not used: {error.message}")
        return []
    leaves = declared.get("tree_metadata")
    found = []
    for leaf in leaves.values() if isinstance(leaves, dict) else ():
        kind = leaf.get("value_metadata", {}).get("value_type") if isinstance(leaf, dict) else None
        keys = leaf.get("key_metadata") if kind in _ARRAYS else None
        if isinstance(keys, list) and all(isinstance(key, dict) and "key" in key for key in keys):
            found.append(printable(".".join(str(key["key"]) for key in keys)))
    return found
