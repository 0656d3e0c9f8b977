"""Addresses of remote objects, taken apart so that what may be secret in them is never shown."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from diffai_stream.errors import UsageError

SCHEMES = ("s3", "gs", "hf", "http", "https")
_REMOTE = re.compile(rf"({'|'.join(SCHEMES)})://", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<scheme>\w+)://(?:(?P<user>[^/?#]*)@)?(?P<host>[^/?#@]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?", re.DOTALL
)
_REPOSITORY = re.compile(r"/(?P<name>[^/@]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/+(?P<inside>.+))?")
_WEB = ("http", "https")


class Address(NamedTuple):
    """`host` is a bucket, an organization or a server; `path` is empty or begins with /; `user` and `query` are secret."""

    scheme: str
    host: str
    path: str
    user: str = ""
    query: str = ""

    @property
    def shown(self) -> str:
        """The address without what may be secret."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def full(self) -> str:
        """The address with everything; never to be printed."""
        user = f"{self.user}@" if self.user else ""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{user}{self.host}{self.path}{query}"

    @property
    def name(self) -> str:
        """The last part of the path as a file name, empty for what ends in a slash."""
        last = self.path.rpartition("/")[2]
        return unquote(last) if self.scheme in _WEB else last

    @property
    def is_folder(self) -> bool:
        """Whether it can only be a folder: it ends in a slash, or is a whole server, bucket or repository."""
        return not self.name or (self.scheme == "hf" and not self.repository()[2])

    def repository(self) -> tuple[str, str, str]:
        """Of the hub: organization/repository, revision, path in it. Raises UsageError."""
        match = _REPOSITORY.fullmatch(self.path.rstrip("/"))
        if match is None:
            raise UsageError("an address of the hub is hf://ORGANIZATION/REPOSITORY[@REVISION][/PATH]", path=self.shown)
        return f"{self.host}/{match['name']}", unquote(match["revision"] or "main"), match["inside"] or ""

    @property
    def folder(self) -> Address:
        """What the address lies in, without a slash at its end; of a folder that is itself."""
        return self._replace(path=self.path.rpartition("/")[0])


def is_remote(path: str) -> bool:
    """Whether a path is an address of a scheme that is read here."""
    return _REMOTE.match(path) is not None


def shown(path: str) -> str:
    """A path as it may be printed: an address loses its user, password, query and fragment."""
    return parse(path).shown if is_remote(path) else path


def parse(path: str) -> Address:
    """The parts of an address. Raises UsageError, which shows nothing secret, for one without a host."""
    match = _ADDRESS.fullmatch(path)
    if match is None:
        raise UsageError(f"{path.partition('://')[0]}:// begins an address that cannot be understood")
    scheme = match["scheme"].lower()
    if scheme not in _WEB:  # only the web has queries: ? and # are letters of a key
        user, host, rest = "", *_split(path.partition("://")[2])
        return _checked(Address(scheme, host, rest, user))
    return _checked(Address(scheme, match["host"], match["path"], match["user"] or "", match["query"] or ""))


def _split(rest: str) -> tuple[str, str]:
    host, slash, path = rest.partition("/")
    return host, slash + path


def _checked(address: Address) -> Address:
    if not address.host:
        what = {"s3": "bucket", "gs": "bucket", "hf": "organization"}.get(address.scheme, "server")
        raise UsageError(f"{address.scheme}:// needs a {what}: {address.scheme}://{what.upper()}/PATH")
    return address
