"""The files that torch wrote before 1.6, and still writes on request: five pickles, then the bytes of the storages.

Layout (`_legacy_load` in `torch/serialization.py`): magic number, protocol version, a description of the machine, the value,
the list of storage keys; then for each key an i64 count of elements and the raw elements, unaligned. Offsets follow from a walk
along the counts, so the storages can be mapped although torch itself refuses to.
"""

from __future__ import annotations

from io import FileIO

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import Notes, read_exactly
from diffai_stream.formats.pickled.allowed import Names
from diffai_stream.formats.pickled.entries import Place
from diffai_stream.formats.pickled.machine import Machine
from diffai_stream.formats.pickled.stream import Stream
from diffai_stream.formats.pickled.torch_values import ENCODINGS_OF, Storage, storage_of

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


class Legacy:
    """One file: its pickled value, and where its storages lie."""

    def __init__(self, file: FileIO, nbytes: int, path: str, real_path: str, notes: Notes, start: int = 0) -> None:
        self.file, self.nbytes, self.path, self.real_path, self.notes = file, nbytes, path, real_path, notes
        self.names = Names()
        self.places: dict[str, Place] = {}
        self.storages: dict[str, Storage] = {}
        self._machine = Machine(Stream(file, start, nbytes, path), self.names.find, self._persist)

    def _persist(self, identifier: object) -> object:
        found = storage_of(identifier)
        if isinstance(found, Storage):
            self.storages.setdefault(found.key, found)
        return found

    def limit(self, budget: int) -> None:
        """Allow only so many instructions, for a file that should hold little."""
        self._machine.budget = budget

    def value(self) -> object:
        """What was saved. Raises FormatError when it cannot be read."""
        machine = self._machine
        if machine.run() != MAGIC or machine.run() != _PROTOCOL:
            raise FormatError("it does not begin with the numbers that mark a checkpoint of torch", path=self.path, offset=0)
        machine.run()  # the writer's byte order and sizes: elements are written little-endian whatever it says
        found = machine.run()
        self._walk(machine.run(), machine.position)
        return found

    def _walk(self, keys: object, position: int) -> None:
        """Where each storage lies, as far as the file goes."""
        for key in keys if isinstance(keys, list) else ():
            storage = self.storages.get(key) if isinstance(key, str) else None
            if storage is None:
                self.notes.add("unknown_storage", f"the storage {str(key)[:40]!r} is of no tensor; what follows it is lost")
                return
            if position + 8 > self.nbytes:
                return
            numel = int.from_bytes(read_exactly(self.file, position, 8, self.path), "little", signed=True)
            nbytes = max(numel, 0) * itemsize_of(storage)
            self.places[storage.key] = Place(self.real_path, position + 8, min(nbytes, self.nbytes - position - 8))
            position += 8 + nbytes
        if position < self.nbytes:
            self.notes.add("trailing_bytes", f"{self.nbytes - position} bytes follow the last storage, from offset {position}")

    def locate(self, storage: Storage) -> Place:
        """Where a storage lies. Raises ValueError when the file ends before it."""
        place = self.places.get(storage.key)
        if place is None:
            raise ValueError(
                f"its storage {storage.key[:40]!r} is not in the file: truncated, or its list of storages is wrong"
            )
        return place


def itemsize_of(storage: Storage) -> int:
    """Bytes of one element of a storage."""
    return 1 if storage.dtype == "untyped" else ENCODINGS[ENCODINGS_OF[storage.dtype]].bits // 8
