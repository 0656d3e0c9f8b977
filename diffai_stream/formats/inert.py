"""Reading files that others wrote, on their word for nothing.

What the format modules share: only regular files are opened (a FIFO or a device would block or act), sizes are checked
before anything is allocated, JSON keeps its repeated keys visible, and oddities are counted instead of listed by the thousand.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Oddity
from diffai_stream.storage.extent import FileStamp
from diffai_stream.storage.remote import objects
from diffai_stream.storage.remote.files import RemoteFile

MAX_HEADER_NBYTES = 100_000_000  # the limit of the reference reader of safetensors; the largest known header is 6 MB
_MAX_NUMEL = 2**63 - 1
_MAX_RANK = 64
_ESCAPED_SURROGATES = ("\\ud", "\\uD")
_REASONS = {
    errno.ENOENT: "there is no such file or directory",
    errno.ENOTDIR: "a part of this path is a file, not a directory",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ELOOP: "its symbolic links form a loop",
    errno.ENAMETOOLONG: "the name is too long for a file",
}


class Repeated(dict[str, object]):
    """A JSON object in which a key occurs twice: the last value wins, `pairs` has them all."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class Notes:
    """Oddities of one file, one a code: the first is told in full, the others are counted."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._first: dict[str, Oddity] = {}
        self._count: dict[str, int] = {}

    def add(self, code: str, message: str, tensor: str | None = None) -> None:
        """Count an oddity of the kind `code`."""
        self._first.setdefault(code, Oddity(code, message, self.path, tensor))
        self._count[code] = self._count.get(code, 0) + 1

    def oddities(self) -> tuple[Oddity, ...]:
        """One oddity a code, in the order of their first occurrence."""
        return tuple(self._told(code) for code in self._first)

    def _told(self, code: str) -> Oddity:
        first, more = self._first[code], self._count[code] - 1
        return first._replace(message=f"{first.message} (and {more} more such)") if more else first


def file_error(path: str, error: OSError | ValueError) -> FormatError:
    """A FormatError in plain words for what the operating system said about a path."""
    if isinstance(error, OSError):
        reason = _REASONS.get(error.errno or 0) or os.strerror(error.errno or 0)
        return FormatError(reason, path=path)
    return FormatError(f"not a usable path: {error}", path=path)


def path_status(path: str) -> os.stat_result:
    """`os.stat` of a path. Raises FormatError in plain words, also for what is neither a file nor a directory."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise file_error(path, error) from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise FormatError(f"a {_kind(status.st_mode)} cannot be read as a checkpoint; save it to a file first", path=path)
    return status


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "named pipe",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


@contextmanager
def open_regular(path: str) -> Iterator[tuple[FileIO, FileStamp]]:
    """An open regular file and its stamp, whose path is the resolved one. Raises FormatError for all else, never blocks."""
    if remote := objects.found(path):
        with RemoteFile(remote) as opened:
            yield opened, remote.stamp
        return
    if stat.S_ISDIR(path_status(path).st_mode):
        raise FormatError("this is a directory, a file was expected", path=path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"a {_kind(status.st_mode)} cannot be read as a checkpoint", path=path)
            inode = (status.st_dev, status.st_ino)
            yield file, FileStamp(os.path.realpath(path), status.st_size, status.st_mtime_ns, inode)
    except OSError as error:
        raise file_error(path, error) from None


def read_exactly(file: FileIO, offset: int, nbytes: int, path: str) -> bytes:
    """`nbytes` bytes from `offset` on. Raises FormatError when the file ends before."""
    parts, left = [], nbytes
    while left:
        part = read_at(file, offset + nbytes - left, left)
        if not part:
            raise FormatError(f"the file ends {left} bytes too early", path=path, offset=offset + nbytes - left)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_at(file: FileIO, offset: int, nbytes: int) -> bytes:
    """At most `nbytes` bytes from `offset` on, of a local or a remote file; none at its end."""
    return file.read_at(offset, nbytes) if isinstance(file, RemoteFile) else os.pread(file.fileno(), nbytes, offset)


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection inside: a large index is all live objects, walking them again and again triples the time.

    What was made is old at the end, so that the collections of the young, which follow at once, need not walk it either.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # else someone keeps objects frozen, which would thaw
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def stand_in(head: bytes) -> str | None:
    """What a file is, in a sentence, when it only stands where weights should be: its reader's message would mislead."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights themselves; run `git lfs pull` in its repository"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, not weights: the download was answered by a login or error page; fetch the file itself"
    return None


def parse_json(raw: bytes, path: str, start: int = 0, what: str = "the header") -> dict[str, object]:
    """A JSON object whose repeated keys are kept (`Repeated`); `start` is its offset in the file, `what` its name in messages.

    Raises FormatError for text that is not UTF-8, not JSON, not an object, or nested beyond all reason.
    """
    try:
        text = raw.decode("utf-8")
        found = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8 text", path=path, offset=start + error.start) from None
    except json.JSONDecodeError as error:
        place = start + len(text[: error.pos].encode("utf-8"))
        raise FormatError(f"{what} is not JSON: {error.msg}", path=path, offset=place) from None
    except RecursionError:
        raise FormatError(f"{what} nests JSON too deeply to be genuine", path=path, offset=start) from None
    except ValueError as error:
        raise FormatError(f"{what} is not JSON: {str(error)[:80]}", path=path, offset=start) from None
    if not isinstance(found, dict):
        raise FormatError(f"{what} is JSON but not an object: it begins {text[:20]!r}", path=path, offset=start)
    return found


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(pairs)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def read_json(path: str, limit: int = MAX_HEADER_NBYTES) -> tuple[dict[str, object], FileStamp]:
    """The JSON object that a small file beside a checkpoint holds, and its stamp. Raises FormatError."""
    with open_regular(path) as (file, stamp):
        if stamp.nbytes > limit:
            raise FormatError(f"{stamp.nbytes} bytes of JSON are more than the {limit} that are plausible", path=path)
        return parse_json(read_exactly(file, 0, stamp.nbytes, path), path, what="the file"), stamp


def may_hold_surrogates(raw: bytes) -> bool:
    r"""Whether JSON text escapes surrogates (`\ud83d`); only then can a parsed string be unprintable as UTF-8."""
    return any(mark.encode() in raw for mark in _ESCAPED_SURROGATES)


def printable(text: str) -> str:
    """The text with unpaired surrogates escaped, so that it can be encoded as UTF-8; other text as it is."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def listed(names: Sequence[str], limit: int = 8) -> str:
    """The first few names, escaped and quoted, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def element_count(shape: Sequence[object]) -> int:
    """The product of a shape. Raises ValueError unless it is made of integers >= 0 that an array could have."""
    if len(shape) > _MAX_RANK:
        raise ValueError(f"shape has {len(shape)} dimensions, no array library knows more than {_MAX_RANK}")
    numel, extent = 1, 1
    for dim in shape:
        if type(dim) is not int or dim < 0:
            raise ValueError(f"shape holds {str(dim)[:40]!r}, which is no size")
        numel *= dim
        extent *= dim or 1
        if extent > _MAX_NUMEL:
            raise ValueError("shape is larger than any array can be (its product overflows 63 bits)")
    return numel
