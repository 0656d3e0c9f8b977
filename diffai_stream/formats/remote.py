"""Checkpoints by their address: the folder they lie in is mirrored by its names, then opened like any other.

A web server lists nothing, so the names that matter are asked for one by one; shards are named by their index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from diffai_stream.errors import DiffaiError, FormatError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.storage.remote.addresses import Address, parse
from diffai_stream.storage.remote.mirror import Mirror, enter
from diffai_stream.storage.remote.objects import RemoteObject
from diffai_stream.storage.remote.service import AbsentError, RefusedError
from diffai_stream.storage.remote.stores import Folder, open_folder, open_object

REQUESTS = 8  # at once
BESIDE = (
    *("config.json", "generation_config.json", "model_index.json", "trainer_state.json", "hparams.yaml"),
    *("tokenizer.json", "vocab.json", "vocab.txt"),
    *("quantize_config.json", "quant_config.json", "hf_quant_config.json"),
)
"""What explains a checkpoint and may lie beside it."""
E = TypeVar("E", bound=DiffaiError)


def open_remote(path: str, open_local: Callable[[str], Checkpoint]) -> Checkpoint:
    """Index the checkpoint at an address; `open_local` opens what stands for it on disk. Raises DiffaiError."""
    address = parse(path)
    folder = open_folder(address.folder)
    mirror = Mirror(folder.address.shown)
    _mirror_file(address, folder, mirror)
    known_as = enter(address, mirror, address.name)
    try:
        found = open_local(f"{mirror.folder}/{address.name}")
    except DiffaiError as error:
        raise _told(error, mirror) from None
    finally:
        for remote in mirror.objects.values():
            remote.trim()
    return _named(found, known_as, mirror)


def _mirror_file(address: Address, folder: Folder, mirror: Mirror) -> None:
    """One file, and what lies beside it. Raises CheckpointError when there is no such file."""
    remote = open_object(address, folder)
    remote.pin()
    mirror.add(address.name, remote)
    for name, neighbour in _present(folder, BESIDE):
        mirror.add(name, neighbour)


def _present(folder: Folder, names: Iterable[str]) -> Iterator[tuple[str, RemoteObject]]:
    """The objects of those names that are there, in their order."""
    remotes = {name: folder.object(name) for name in names}
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="probe") as pool:
        for (name, remote), is_there in zip(remotes.items(), pool.map(_is_there, remotes.values()), strict=True):
            if is_there:
                yield name, remote


def _is_there(remote: RemoteObject) -> bool:
    """Whether the server gives an object of that name; a page that it gives for any name is none."""
    try:
        head = bytes(remote.pin().data[:64]).lstrip()
    except (AbsentError, RefusedError):  # without leave to list, a store refuses what is not there
        return False
    except FormatError:  # told where the file is needed
        return False
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
