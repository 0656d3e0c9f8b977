"""The zip archives that torch has written since 1.6: a pickle, and one member a storage.

Layout (`torch/serialization.py`): `<root>/data.pkl`, `<root>/data/<key>`, `<root>/byteorder`; a TorchScript archive has
`<root>/constants.pkl` and `<root>/constants/<key>` too. Members are stored, so a storage lies in the file as it is; archives
that someone compressed again are read through their deflate streams.
"""

from __future__ import annotations

import struct
import zipfile
from io import FileIO

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.inert import open_regular
from diffai_stream.formats.pickled.allowed import Names
from diffai_stream.formats.pickled.entries import Place
from diffai_stream.formats.pickled.machine import BUDGET, Machine
from diffai_stream.formats.pickled.stream import Inflated, Stream
from diffai_stream.formats.pickled.torch_values import Storage, storage_of
from diffai_stream.formats.zip_members import Member, read_members

MAX_INFLATED_NBYTES = 1 << 26
_PICKLE, _CONSTANTS = "data.pkl", "constants.pkl"


def has_pickle(path: str) -> bool:
    """Whether a zip archive holds a pickle where torch puts it; members come in any order."""
    try:
        with open_regular(path) as (file, _), zipfile.ZipFile(file) as archive:
            return any(name.endswith("/" + _PICKLE) for name in archive.namelist())
    except (FormatError, zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error):
        return False


class Archive:
    """One archive: its pickled value, and where its storages lie. It may end `nbytes` bytes into a larger file."""

    def __init__(self, file: FileIO, nbytes: int, path: str, real_path: str, names: Names | None = None) -> None:
        self.file, self.path, self.real_path = file, path, real_path
        found, flaws = read_members(file, nbytes, path)
        self.members = {member.name: member for member in found}
        self.flaws: dict[str, TensorError] = {flaw.tensor or "": flaw for flaw in flaws}
        self.root = self._root()
        self.big_endian = self._order() == b"big"
        self.names, self.budget = names or Names(), BUDGET

    def _root(self) -> str:
        names = [name for name in (*self.members, *self.flaws) if name.endswith("/" + _PICKLE)]
        if not names:
            raise FormatError("a zip archive without data.pkl: no checkpoint of torch", path=self.path)
        return min(names, key=len)[: -len(_PICKLE)]

    def _order(self) -> bytes:
        """What the archive says of its byte order, nothing in older ones. Raises FormatError when that cannot be read."""
        member = self.members.get(self.root + "byteorder")
        try:
            return member.head(self.file, 16).strip() if member else b""
        except ValueError as error:
            raise FormatError(f"its byteorder cannot be read: {error}", path=self.path) from None

    def value(self) -> object:
        """What was saved. Raises FormatError when the pickle cannot be read."""
        return self._unpickled(_PICKLE)

    @property
    def is_script(self) -> bool:
        """Whether it is a TorchScript archive."""
        return self.root + _CONSTANTS in self.members

    def constants(self) -> object:
        """The tensors that a TorchScript archive keeps apart from its modules; a frozen one has all of them there."""
        return self._unpickled(_CONSTANTS)

    def _unpickled(self, name: str) -> object:
        member = self.members.get(self.root + name)
        if member is None:
            flaw = self.flaws.get(self.root + name)
            raise FormatError(f"its {name} cannot be read: {flaw.message if flaw else 'there is none'}", path=self.path)
        folder = "constants/" if name == _CONSTANTS else "data/"

        def persist(identifier: object) -> object:
            found = storage_of(identifier)
            return found._replace(key=folder + found.key) if isinstance(found, Storage) else found

        machine = Machine(self._stream(member), self.names.find, persist)
        machine.budget = self.budget
        return machine.run()

    def _stream(self, member: Member) -> Stream:
        if not member.deflated:
            return Stream(self.file, member.offset, member.end, self.path)
        if member.nbytes > MAX_INFLATED_NBYTES:
            message = (
                f"its compressed pickle of {member.nbytes} bytes is larger than the {MAX_INFLATED_NBYTES} that are plausible"
            )
            raise FormatError(message, path=self.path, offset=member.offset)
        try:
            return Inflated(member.content(self.file), self.path)
        except ValueError as error:
            raise FormatError(f"its pickle cannot be read: {error}", path=self.path, offset=member.offset) from None

    def locate(self, storage: Storage) -> Place:
        """Where a storage lies. Raises ValueError when its member is missing or damaged."""
        name = self.root + storage.key
        member = self.members.get(name)
        if member is None:
            flaw = self.flaws.get(name)
            raise ValueError(flaw.message if flaw else f"the archive holds no member {name!r}")
        compressed = member.stored_nbytes if member.deflated else None
        return Place(self.real_path, member.offset, member.nbytes, compressed, self.big_endian)
