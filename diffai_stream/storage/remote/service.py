"""Requests to one object store: a range at a time, repeated when the network fails, each answer checked.

What a store says of an error may hold secrets (a signed address, a key), so none of it is passed on: it is sorted into a few
sentences. A store that has not answered after all attempts is given up, so that a run ends instead of waiting at each tensor.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from diffai_stream.errors import ChangedFileError, CheckpointError, FormatError, MissingExtraError

if TYPE_CHECKING:
    from obstore import Bytes

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.2  # doubled each time, less a random part of it
PATIENCE_SECONDS = 90.0  # no attempt is begun later than that after the first
CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # without a byte
NO_RANGES = "its server cannot send parts of it (it ignores ranges); download it first"
_STATUS = re.compile(r"status code: (\d{3})")
_TRANSIENT = (408, 425, 429)
_REASONS = (
    (re.compile("dns error|failed to lookup", re.IGNORECASE), "the name of its server cannot be resolved"),
    (re.compile("timed ?out|timeout", re.IGNORECASE), "no answer in time"),
    (re.compile("certificate", re.IGNORECASE), "the certificate of its server is not trusted"),
    (re.compile("kind: connect|refused|ConnectError", re.IGNORECASE), "its server cannot be reached"),
    (re.compile("Interrupted|kind: Body|IncompleteMessage|UnexpectedEof", re.IGNORECASE), "the connection was cut"),
)
_ABSENT = (404, 410)
_ELSEWHERE = 301
_CREDENTIALS = re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google|/token|credential", re.IGNORECASE)
T = TypeVar("T")


class Version(NamedTuple):
    """What tells one content of an object from another: an ETag, the time of its last change; empty what is not told."""

    etag: str = ""
    modified: str = ""

    @property
    def is_strong(self) -> bool:
        """Whether a server compares it itself (`If-Match`)."""
        return self.etag not in ("", "*") and not self.etag.startswith("W/")

    def fits(self, other: Version) -> bool:
        """Whether both may be of one content: equal ETags, or where one side tells none, equal times."""
        if self.etag and other.etag:
            return self.etag == other.etag
        return self.modified == other.modified or not (self.modified and other.modified)


class Answer(NamedTuple):
    """Bytes of a range, with the size and the version of the whole object."""

    data: Bytes
    nbytes: int
    version: Version


class AbsentError(FormatError):
    """There is no such object."""


class RefusedError(FormatError):
    """The store does not let us read it."""


class UnrangedError(FormatError):
    """The server sends only whole objects."""


class OutsideError(FormatError):
    """The range lies outside of the object."""


class _Again(Exception):
    """Worth another attempt; says why."""


class Service:
    """One store of obstore and what is known of its health. `hint` is what to try when access is refused."""

    def __init__(self, store: Any, hint: str) -> None:
        self.store, self._hint = store, hint
        self._lost = ""

    def get(self, key: str, start: int, stop: int, path: str, version: Version | None = None) -> Answer:
        """Bytes [start, stop) of an object, fewer at its end; `path` is its name in errors.

        Raises ChangedFileError when it is not of that version any more, AbsentError, RefusedError, else FormatError.
        """
        options: dict[str, Any] = {"range": (start, stop)}
        if version is not None and version.is_strong:
            options["if_match"] = version.etag
        return self._repeated(lambda: self._once(key, options, path), path)

    def whole(self, key: str, limit: int, path: str) -> Answer:
        """A small object in one piece, where no ranges are sent. Raises what `get` raises, FormatError above the limit."""
        return self._repeated(lambda: self._once(key, {}, path, limit), path)

    def names(self, prefix: str, path: str) -> tuple[dict[str, Version], list[str]]:
        """What lies directly under a prefix: objects by key with their versions, and folders. Raises what `get` raises."""
        return self._repeated(lambda: self._listed(prefix, path), path)

    def _repeated(self, attempt_once: Callable[[], T], path: str) -> T:
        begun, attempt = time.monotonic(), 0
        while True:
            if self._lost:
                raise FormatError(self._lost, path=path)
            try:
                return attempt_once()
            except _Again as reason:
                attempt += 1
                if attempt == ATTEMPTS or time.monotonic() - begun > PATIENCE_SECONDS:
                    self._lost = f"{reason} (after {attempt} attempts); try again later, or download it first"
                    continue
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1))

    def _once(self, key: str, options: dict[str, Any], path: str, limit: int | None = None) -> Answer:
        import obstore

        try:
            result = obstore.get(self.store, key, options=options)
            meta, (start, stop) = result.meta, result.range
            data = result.bytes() if limit is None or stop - start <= limit else None
        except Exception as error:
            raise self._told(error, path) from None
        if data is None:
            raise FormatError(NO_RANGES, path=path)
        if len(data) != stop - start:
            raise _Again(f"the server sent {len(data)} bytes where {stop - start} are due")
        return Answer(data, meta["size"], version_of(meta))

    def _listed(self, prefix: str, path: str) -> tuple[dict[str, Version], list[str]]:
        import obstore

        try:
            found = obstore.list_with_delimiter(self.store, prefix or None)
        except Exception as error:
            raise self._told(error, path) from None
        # the time of a listing is finer than that of an answer
        return {meta["path"]: Version(meta["e_tag"] or "") for meta in found["objects"]}, list(found["common_prefixes"])

    def _told(self, error: Exception, path: str) -> CheckpointError | _Again:
        """What an error of obstore means, without its words."""
        import obstore.exceptions as kinds

        text = str(error)
        match = _STATUS.search(text)
        status = int(match[1]) if match else 0
        if isinstance(error, (FileNotFoundError, kinds.NotFoundError)) or status in _ABSENT:
            return AbsentError("there is no such object", path=path)
        if isinstance(error, kinds.PreconditionError):
            return ChangedFileError("the object was replaced while it was read; compare again", path=path)
        if isinstance(error, (kinds.PermissionDeniedError, kinds.UnauthenticatedError)):
            return RefusedError(f"access is refused{f' (HTTP {status})' if status else ''}: {self._hint}", path=path)
        if isinstance(error, kinds.NotSupportedError):
            return UnrangedError(NO_RANGES, path=path)
        if _CREDENTIALS.search(text):
            return RefusedError(f"no usable credentials: {self._hint}", path=path)
        if status == _ELSEWHERE:
            return RefusedError(f"it lies elsewhere (HTTP {status}): {self._hint}", path=path)
        if 300 <= status < 500 and status not in _TRANSIENT:
            return (OutsideError if status == 416 else FormatError)(f"its server answers HTTP {status}", path=path)
        if status:
            return _Again(f"its server answers HTTP {status}")
        return _Again(next((reason for pattern, reason in _REASONS if pattern.search(text)), "the request failed"))


def version_of(meta: Any) -> Version:
    """The version that a store tells of an object."""
    modified = meta["last_modified"]
    return Version(meta["e_tag"] or "", modified.isoformat() if modified is not None and modified.timestamp() > 0 else "")


def require() -> None:
    """Raise MissingExtraError unless obstore is installed."""
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("remote objects need obstore: pip install 'diffai-stream[remote]'") from error
