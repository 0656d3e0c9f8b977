"""Where the objects of zarr arrays lie: files of a directory, or keys of an OCDBT database that TensorStore reads."""

from __future__ import annotations

import os
import stat
import threading
from functools import lru_cache
from typing import Any, Protocol

from diffai_stream.storage.extent import FileStamp
from diffai_stream.storage.zarr.metadata import ZarrError

CACHE_NBYTES = 16 << 20  # of nodes of the database's tree
MANIFEST = "manifest.ocdbt"


class Store(Protocol):
    """Objects by key."""

    def read(self, key: str, limit: int) -> bytes | None:
        """A whole object, None when there is none. Raises ZarrError when it is larger than `limit`."""

    def part(self, key: str, start: int, nbytes: int) -> bytes | None:
        """Bytes of an object; a negative `start` counts from its end. None when there is none."""


class Files:
    """The files below a directory; only regular ones are opened."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def read(self, key: str, limit: int) -> bytes | None:
        """The whole file."""
        return self._read(key, 0, limit, whole=True)

    def part(self, key: str, start: int, nbytes: int) -> bytes | None:
        """Some bytes of it."""
        return self._read(key, start, nbytes, whole=False)

    def _read(self, key: str, start: int, nbytes: int, whole: bool) -> bytes | None:
        try:
            descriptor = os.open(os.path.join(self._folder, key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ZarrError(f"cannot open {key}: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ZarrError(f"{key} is no regular file")
            if whole and status.st_size > nbytes:
                raise ZarrError(f"{key} has {status.st_size} bytes, more than the {nbytes} that make sense")
            return _pread(descriptor, status.st_size if whole else nbytes, start if start >= 0 else status.st_size + start)
        except OSError as error:
            raise ZarrError(f"cannot read {key}: {error.strerror}") from None
        finally:
            os.close(descriptor)


def _pread(descriptor: int, nbytes: int, offset: int) -> bytes:
    """Bytes of a file, fewer at its end; one call gives less than 2 GiB."""
    first = os.pread(descriptor, nbytes, max(0, offset))
    if len(first) == nbytes or not first:
        return first
    return first + _pread(descriptor, nbytes - len(first), offset + len(first))


class Database:
    """The keys of an OCDBT database that begin with a prefix."""

    def __init__(self, folder: str, prefix: str = "") -> None:
        self._values, self._prefix = _opened(folder, stamp_of_manifest(folder)), prefix

    def keys(self) -> list[str]:
        """All keys. Raises ZarrError when the database cannot be read."""
        return [key.decode("utf-8", "backslashreplace") for key in _result(self._values.list())]

    def read(self, key: str, limit: int) -> bytes | None:
        """The whole value."""
        found = _result(self._values.read(self._prefix + key))
        value = found.value if found.state == "value" else None
        if value is not None and len(value) > limit:
            raise ZarrError(f"{key} has {len(value)} bytes, more than the {limit} that make sense")
        return value

    def part(self, key: str, start: int, nbytes: int) -> bytes | None:
        """Some bytes of it; the database gives whole values, of which the last is kept."""
        value = _last.get(self._values, self._prefix + key)
        return None if value is None else value[start : start + nbytes if start >= 0 or start + nbytes < 0 else None]


class _Last:
    """The value that this thread read last: the parts of a shard are asked for one after the other."""

    def __init__(self) -> None:
        self._local = threading.local()

    def get(self, values: Any, key: str) -> bytes | None:
        if getattr(self._local, "key", None) != (id(values), key):
            found = _result(values.read(key))
            self._local.key, self._local.value = (id(values), key), found.value if found.state == "value" else None
        return self._local.value  # type: ignore[no-any-return]


_last = _Last()


def stamp_of_manifest(folder: str) -> FileStamp:
    """What tells whether a database was written to. Raises ZarrError when it has no manifest."""
    try:
        return FileStamp.of(os.path.join(folder, MANIFEST))
    except OSError as error:
        raise ZarrError(f"cannot open {MANIFEST}: {error.strerror}") from None


@lru_cache(maxsize=16)
def _opened(folder: str, stamp: FileStamp) -> Any:
    """The database in a directory; opened anew when it was written to. Raises ImportError without tensorstore."""
    import tensorstore

    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_NBYTES}})
    base = {"driver": "file", "path": folder.rstrip("/") + "/"}
    return _result(tensorstore.KvStore.open({"driver": "ocdbt", "base": base}, context=context))


def _result(future: Any) -> Any:
    try:
        return future.result()
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        raise ZarrError(f"TensorStore cannot read it: {' '.join(str(error).split())[:200]}") from None
