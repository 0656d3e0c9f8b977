"""An object read like a file, for readers of headers: only `read_at` gives bytes, whoever wants a descriptor is refused."""

from __future__ import annotations

import os
from io import FileIO
from typing import NoReturn

from diffai_stream.errors import UsageError
from diffai_stream.storage.remote.objects import RemoteObject


class RemoteFile(FileIO):
    """An open object. Readers that bypass `read_at` would see an empty file: they get a UsageError instead."""

    def __init__(self, remote: RemoteObject) -> None:
        super().__init__(os.devnull)
        self._remote = remote
        self.nbytes = remote.stamp.nbytes

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """Bytes from `offset` on, fewer at the end of the object. Raises CheckpointError."""
        stop = min(offset + nbytes, self.nbytes)
        return bytes(self._remote.read(offset, stop)) if offset < stop else b""

    def _refuse(self, *_: object) -> NoReturn:
        raise UsageError("this format is not read remotely; download it first", path=self._remote.path)

    fileno = read = readinto = readall = seek = tell = _refuse
