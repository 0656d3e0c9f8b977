"""A remote folder as an empty one on disk: files of no bytes stand for objects, so that names are listed and joined as ever.

Nothing is ever read from these files: `open_regular` knows them and opens the object. What is said of them is said with the
address (`Mirror.told`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from functools import lru_cache

from diffai_stream.storage.remote import objects
from diffai_stream.storage.remote.addresses import Address
from diffai_stream.storage.remote.objects import RemoteObject

_lock = threading.Lock()
_mirrors: list[Mirror] = []
_entered: dict[str, tuple[str, str]] = {}


class Mirror:
    """The stand-in of one remote folder; `shown` is its address without secrets and without a slash at its end."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        name = shown.rpartition("/")[2]
        with _lock:
            parent = os.path.join(_root(), str(len(_mirrors)))
            self.folder = os.path.join(parent, name if name.strip(".") and len(name.encode()) < 256 else "folder")
            _mirrors.append(self)
        os.makedirs(self.folder)
        self.objects: dict[str, RemoteObject] = {}

    def add(self, name: str, remote: RemoteObject) -> None:
        """Let a file stand for an object; a name that no file can have is left out."""
        path = os.path.normpath(os.path.join(self.folder, name))
        if not path.startswith(self.folder + os.sep) or "\0" in name or name in self.objects:
            return
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb"):
                pass
        except OSError:  # too long, or a file and a folder of one name
            return
        self.objects[name] = remote
        objects.keep(path, remote)

    def add_folder(self, name: str) -> None:
        """Let a folder in it be seen."""
        path = os.path.normpath(os.path.join(self.folder, name))
        if path.startswith(self.folder + os.sep):
            os.makedirs(path, exist_ok=True)

    def told(self, text: str) -> str:
        """Text with the address where the folder on disk was named."""
        return text.replace(self.folder, self.shown)


@lru_cache(maxsize=1)
def _root() -> str:
    """The temporary folder of this process, removed at its end."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="diffai-remote-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def enter(address: Address, mirror: Mirror, name: str) -> str:
    """The name under which a checkpoint is known: its address without secrets, `#2` and so on after it where two of these are
    equal but for their secrets. `name` is its file in the mirror, empty for the folder itself."""
    with _lock:
        path, number = address.shown, 2
        while path in _entered and _entered[path][0] != address.full:
            path, number = f"{address.shown}#{number}", number + 1
        _entered[path] = address.full, os.path.join(mirror.folder, name) if name else mirror.folder
    return path


def local(path: str) -> str:
    """The path on disk that stands for a checkpoint that was entered; other paths as they are."""
    return _entered[path][1] if path in _entered else path


def told(text: str) -> str:
    """Text with addresses where folders that stand for them were named."""
    for mirror in _mirrors:
        text = mirror.told(text)
    return text
