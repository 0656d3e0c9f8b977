"""Checkpoints by their address: the folder they lie in is mirrored by its names, then opened like any other.

A web server lists nothing, so the names that matter are asked for one by one; shards are named by their index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from diffai_stream.errors import CheckpointError, DiffaiError, FormatError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import Notes
from diffai_stream.formats.shard_index import read_shard_index
from diffai_stream.storage.remote.addresses import Address, parse
from diffai_stream.storage.remote.mirror import Mirror, enter
from diffai_stream.storage.remote.objects import RemoteObject
from diffai_stream.storage.remote.service import AbsentError, RefusedError
from diffai_stream.storage.remote.stores import Folder, Listing, open_folder, open_object

REQUESTS = 8  # at once
BESIDE = (
    *("config.json", "generation_config.json", "model_index.json", "trainer_state.json", "hparams.yaml"),
    *("tokenizer.json", "vocab.json", "vocab.txt"),
    *("quantize_config.json", "quant_config.json", "hf_quant_config.json"),
)
"""What explains a checkpoint and may lie beside it."""
WEIGHTS = (
    *("model.safetensors.index.json", "model.safetensors"),
    *("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"),
    *("adapter_model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"),
)
"""What the weights of a folder are called where it cannot be listed."""
_INDEX = ".safetensors.index.json"
_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_HEADERS = (".safetensors", ".gguf")
E = TypeVar("E", bound=DiffaiError)


def open_remote(path: str, open_local: Callable[[str], Checkpoint], suffixes: Sequence[str]) -> Checkpoint:
    """Index the checkpoint at an address; `open_local` opens what stands for it on disk, `suffixes` are those of files.

    Raises DiffaiError.
    """
    address = parse(path)
    mirror, name = _mirrored(address, tuple(suffixes))
    known_as = enter(address, mirror, name)
    try:
        found = open_local(f"{mirror.folder}/{name}" if name else mirror.folder)
    except DiffaiError as error:
        raise _told(error, mirror) from None
    finally:
        for remote in mirror.objects.values():
            remote.trim()
    return _named(found, known_as, mirror)


def _mirrored(address: Address, suffixes: tuple[str, ...]) -> tuple[Mirror, str]:
    """The mirror of the folder of a checkpoint, and the name of its file there, empty for the folder itself.

    Raises CheckpointError when there is nothing.
    """
    if address.is_folder:
        folder = open_folder(address)
        return _of_folder(folder, folder.listing()), ""
    folder = open_folder(address.folder)
    is_file, is_index = address.name.lower().endswith(suffixes), address.name.endswith(_INDEX)
    listing = None if is_file and not is_index else folder.listing()  # what lies beside a file has known names
    if not is_file and (listing is None or address.name in listing.folders):
        inner = folder.inner(address.name)
        return _of_folder(inner, inner.listing()), ""
    return _of_file(address, folder, listing), address.name


def _of_file(address: Address, folder: Folder, listing: Listing | None) -> Mirror:
    """A file and what lies beside it. Raises AbsentError when there is no such file."""
    mirror, remote = Mirror(folder.address.shown), open_object(address, folder)
    remote.pin()
    mirror.add(address.name, remote)
    _add_neighbours(mirror, folder, listing, (*BESIDE, *_parts(address.name)))
    return mirror


def _of_folder(folder: Folder, listing: Listing | None) -> Mirror:
    """Everything in a folder, or what has a usual name there. Raises FormatError where that is nothing."""
    mirror = Mirror(folder.address.shown)
    _add_neighbours(mirror, folder, listing, (*WEIGHTS, *BESIDE))
    if listing is None and not mirror.objects.keys() & set(WEIGHTS):
        looked = f"looked for {', '.join(WEIGHTS)}"
        raise FormatError(f"no weights there ({looked}); it cannot be listed, so name the file", path=mirror.shown)
    if listing is not None and not listing.files and not listing.folders:
        raise AbsentError("there is no such object and no such folder", path=mirror.shown)
    return mirror


def _add_neighbours(mirror: Mirror, folder: Folder, listing: Listing | None, usual: Iterable[str]) -> None:
    """Add what a folder holds: as listed, else of the usual names those that are there; and the shards that an index names."""
    if listing is None:
        _add_present(mirror, folder, usual)
    else:
        for name, version in listing.files.items():
            mirror.add(name, folder.object(name, version))
        for name in listing.folders:
            mirror.add_folder(name)
    shards = sorted({shard for name in tuple(mirror.objects) if name.endswith(_INDEX) for shard in _shards(mirror, name)})
    _add_present(mirror, folder, [shard for shard in shards if listing is None or "/" in shard])
    headers = shards or [name for name in mirror.objects if name.endswith(_HEADERS) and "/" not in name]
    _pin([mirror.objects[name] for name in headers if name in mirror.objects])


def _shards(mirror: Mirror, index: str) -> set[str]:
    """The files that an index names; none for one that cannot be read, which its reader tells."""
    try:
        return set(read_shard_index(os.path.join(mirror.folder, index), Notes(index)).weight_map.values())
    except CheckpointError:
        return set()


def _parts(name: str) -> Iterator[str]:
    """All parts of a split GGUF model by one of them."""
    if match := _PART.fullmatch(name):
        count = min(int(match["count"]), 1000)
        yield from (f"{match['stem']}-{number:05}-of-{match['count']}.gguf" for number in range(1, count + 1))


def _add_present(mirror: Mirror, folder: Folder, names: Iterable[str]) -> None:
    """Add the objects of those names that are there."""
    there = None if folder.known is None else {*folder.known}
    wanted = [name for name in names if name not in mirror.objects and (there is None or f"{folder.prefix}{name}" in there)]
    remotes = {name: folder.object(name) for name in wanted}
    for (name, remote), is_there in zip(remotes.items(), _pin(remotes.values()), strict=True):
        if is_there:
            mirror.add(name, remote)


def _pin(remotes: Iterable[RemoteObject]) -> list[bool]:
    """Ask for the heads of objects, several at once; whether each is there."""
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="probe") as pool:
        return list(pool.map(_is_there, remotes))


def _is_there(remote: RemoteObject) -> bool:
    """Whether the server gives an object of that name; a page that it gives for any name is none."""
    try:
        head = bytes(memoryview(remote.pin().data)[:64]).lstrip()
    except (AbsentError, RefusedError):  # without leave to list, a store refuses what is not there
        return False
    except CheckpointError:  # told by who reads it
        return True
    return not head.startswith(b"<")


def _named(found: Checkpoint, known_as: str, mirror: Mirror) -> Checkpoint:
    """The checkpoint with addresses in place of paths on disk."""
    oddities = [o._replace(message=mirror.told(o.message), path=_shown(o.path, mirror)) for o in found.oddities]
    errors = [_told(error, mirror) for error in found.errors]
    return found._replace(path=known_as, oddities=tuple(oddities), errors=tuple(errors))


def _told(error: E, mirror: Mirror) -> E:
    return type(error)(mirror.told(error.message), path=_shown(error.path, mirror), tensor=error.tensor, offset=error.offset)


def _shown(path: str | None, mirror: Mirror) -> str | None:
    return None if path is None else mirror.told(path)
