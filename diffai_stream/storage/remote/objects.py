"""Remote objects by name, each pinned to the size and version that were seen first; every later byte is of that version."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from diffai_stream.errors import ChangedFileError, FormatError
from diffai_stream.storage.extent import FileStamp
from diffai_stream.storage.remote.service import Answer, OutsideError, Service, UnrangedError, Version

if TYPE_CHECKING:
    from obstore import Bytes

Buffer: TypeAlias = "Bytes | memoryview"
HEAD_NBYTES = 256 << 10  # read when an object is seen first: most headers, and the size and version along with them
WHOLE_NBYTES = 16 << 20  # up to here an object is taken whole from a server that sends no ranges

_lock = threading.Lock()
_objects: dict[str, RemoteObject] = {}


class RemoteObject:
    """One object. `path` is its address without secrets, made unique: extents, stamps and errors carry it.

    `identity` is the full address and never shown; `version` is given where a listing told it, else it is that of the first
    answer.
    """

    def __init__(self, service: Service, key: str, path: str, identity: str, version: Version | None = None) -> None:
        self.path, self.identity = path, identity
        self._service, self._key, self._version = service, key, version
        self._lock = threading.Lock()
        self._head: Answer | None = None

    def pin(self) -> Answer:
        """The first bytes, size and version, asked for once. Raises CheckpointError."""
        with self._lock:
            if self._head is None:
                head = self._first()
                self._check(head, 0, max(min(HEAD_NBYTES, head.nbytes), len(head.data)))
                self._head = head
                _name(self)
            return self._head

    def _first(self) -> Answer:
        try:
            return self._service.get(self._key, 0, HEAD_NBYTES, self.path, self._version)
        except OutsideError:  # of no bytes there are no first ones
            return Answer(b"", 0, self._version or Version())
        except UnrangedError:
            return self._service.whole(self._key, WHOLE_NBYTES, self.path)

    @property
    def stamp(self) -> FileStamp:
        """Size and version as the stamp of a file; the time is 0 where the server tells no version. Raises CheckpointError."""
        head = self.pin()
        text = "\n".join(head.version)
        told = int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big") + 1 if any(head.version) else 0
        return FileStamp(self.path, head.nbytes, told, (0, 0))

    def read(self, start: int, stop: int) -> Buffer:
        """Bytes [start, stop), all of them. Raises CheckpointError, ChangedFileError when it is another object now."""
        head = self.pin()
        if stop > head.nbytes:
            raise FormatError(f"it ends at byte {head.nbytes}, before {stop}", path=self.path, offset=head.nbytes)
        if stop <= len(head.data):
            return memoryview(head.data)[start:stop]
        answer = self._service.get(self._key, start, stop, self.path, head.version)
        self._check(answer, start, stop)
        return answer.data

    def trim(self) -> None:
        """Let go of the first bytes, unless they are all there is."""
        with self._lock:
            if self._head is not None and self._head.nbytes > len(self._head.data):
                self._head = self._head._replace(data=b"")

    def is_same(self, other: RemoteObject) -> bool:
        """Whether another one is the same version of the same object, as far as servers tell."""
        a, b = self._head, other._head
        if a is None or b is None or (a.nbytes, a.version) != (b.nbytes, b.version):
            return False
        return self.identity == other.identity or bool(a.version.etag)

    def _check(self, answer: Answer, start: int, stop: int) -> None:
        """Raise unless an answer holds the bytes [start, stop) of the version that is pinned."""
        known = self._head.version if self._head else self._version
        is_same = known is None or known.fits(answer.version)
        if not is_same or (self._head is not None and answer.nbytes != self._head.nbytes):
            raise ChangedFileError("the object was replaced while it was read; compare again", path=self.path, offset=start)
        if len(answer.data) != stop - start:
            message = f"its server sent {len(answer.data)} bytes where {stop - start} are due; download it first"
            raise FormatError(message, path=self.path, offset=start)


def found(path: str) -> RemoteObject | None:
    """The object of a name that is pinned, or of its stand-in on disk."""
    return _objects.get(path)


def keep(stand_in: str, remote: RemoteObject) -> None:
    """A path on disk that stands for an object."""
    _objects[stand_in] = remote


def _name(remote: RemoteObject) -> None:
    """Enter an object under its name; another one of that name (another query, another version) makes it `name#2`."""
    with _lock:
        name, number = remote.path, 2
        while name in _objects and not _objects[name].is_same(remote):
            name, number = f"{remote.path}#{number}", number + 1
        remote.path = name
        _objects[name] = remote
