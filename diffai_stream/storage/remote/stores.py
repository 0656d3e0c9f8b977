"""The store of each scheme, as obstore opens it; credentials come from the environment and from nowhere else."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from diffai_stream.errors import FormatError, UsageError
from diffai_stream.storage.remote import service
from diffai_stream.storage.remote.addresses import Address
from diffai_stream.storage.remote.objects import RemoteObject
from diffai_stream.storage.remote.service import AbsentError, RefusedError, Service, Version

HUB = "https://huggingface.co"
_WEB_HINT = "a user and password, or a signed query, belong in the address"
HINTS = {
    "http": _WEB_HINT,
    "https": _WEB_HINT,
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "hf": "set HF_TOKEN to a token that may read the repository",
}
_TRUE = ("1", "true", "yes", "on")
_LISTING_NBYTES = 64 << 20


class Listing(NamedTuple):
    """What lies directly in a folder: files with the version that the store told, and folders."""

    files: Mapping[str, Version]
    folders: frozenset[str]


class Folder(NamedTuple):
    """A folder of a store: `address` without a slash at its end, keys begin with `prefix`; `known` is all of a repository."""

    address: Address
    service: Service
    prefix: str
    known: tuple[str, ...] | None = None

    def object(self, name: str, version: Version | None = None) -> RemoteObject:
        """The object of a name in the folder, not asked for yet."""
        place = self.address._replace(path=f"{self.address.path}/{name}")
        return RemoteObject(self.service, f"{self.prefix}{name}", place.shown, place.full, version)

    def inner(self, name: str) -> Folder:
        """A folder in it."""
        return self._replace(address=self.address._replace(path=f"{self.address.path}/{name}"), prefix=f"{self.prefix}{name}/")

    def listing(self) -> Listing | None:
        """What is in it; None where that cannot be asked for. Raises CheckpointError."""
        if self.known is not None:
            return _under(self.prefix, self.known)
        if self.address.scheme not in ("s3", "gs"):
            return None
        try:
            files, folders = self.service.names(self.prefix.rstrip("/"), self.address.shown)
        except RefusedError:  # leave to read does not mean leave to list
            return None
        cut = len(self.prefix)
        return Listing(
            {key[cut:]: version for key, version in files.items()}, frozenset(key[cut:].strip("/") for key in folders)
        )


def open_folder(address: Address) -> Folder:
    """The folder that an address names. Raises UsageError, MissingExtraError, of the hub CheckpointError."""
    service.require()
    address = address._replace(path=address.path.rstrip("/"))
    if address.scheme == "hf":
        return _hub(address)
    if address.scheme in ("s3", "gs"):
        prefix = address.path.strip("/")
        return Folder(address, _service(address, _BUCKETS[address.scheme]), f"{prefix}/" if prefix else "")
    return Folder(address, _service(address, _web), "")


def open_object(address: Address, folder: Folder) -> RemoteObject:
    """The object that an address names, in its folder; one with a query is asked for by the address as it is written."""
    if not address.query:
        return folder.object(address.name)
    return RemoteObject(_service(address, _web), "", address.shown, address.full)


def _service(address: Address, opened: Callable[[Address], Any]) -> Service:
    try:
        store = opened(address)
    except UsageError:
        raise
    except Exception as error:  # what obstore says may hold the address
        raise UsageError(f"the address cannot be used ({type(error).__name__})", path=address.shown) from None
    return Service(store, HINTS[address.scheme])


def _client(allow_http: bool) -> dict[str, Any]:
    return {
        "connect_timeout": timedelta(seconds=service.CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=service.STALL_SECONDS),
        "timeout": timedelta(hours=1),
        "user_agent": "diffai-stream",
        "allow_http": allow_http,
    }


def _retry() -> dict[str, Any]:
    """None: `Service` repeats requests, bodies included."""
    return {"max_retries": 0, "retry_timeout": timedelta(seconds=service.PATIENCE_SECONDS)}


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in _TRUE


def _s3(address: Address) -> Any:
    from obstore.store import S3Store

    endpoint, allow_http = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT", ""), _is_set("AWS_ALLOW_HTTP")
    if endpoint.startswith("http://") and not allow_http:
        raise UsageError("the endpoint of S3 is not encrypted; AWS_ALLOW_HTTP=true allows that", path=address.shown)
    return S3Store(address.host, client_options=_client(allow_http), retry_config=_retry())


def _gs(address: Address) -> Any:
    from obstore.store import GCSStore

    return GCSStore(address.host, client_options=_client(_is_set("GOOGLE_ALLOW_HTTP")), retry_config=_retry())


_BUCKETS: dict[str, Callable[[Address], Any]] = {"s3": _s3, "gs": _gs}


def _web(address: Address) -> Any:
    """obstore leaves user and password out; they are not passed on to another server that this one may name."""
    user = b64encode(unquote(address.user).encode()).decode()
    return _web_store(address._replace(user="").full, f"Basic {user}" if user else "")


def _web_store(url: str, authorization: str) -> Any:
    from obstore.store import HTTPStore

    options = _client(url.startswith("http://"))
    if authorization:
        options["default_headers"] = {"authorization": authorization}
    return HTTPStore.from_url(url, client_options=options, retry_config=_retry())


def _hub(address: Address) -> Folder:
    """A folder of a repository: all of it is read at the commit that its revision names now."""
    repository, revision, inside = address.repository()
    hub, token = os.environ.get("HF_ENDPOINT", HUB).rstrip("/"), os.environ.get("HF_TOKEN", "")

    def opened(path: str) -> Service:
        return _service(address, lambda _: _web_store(f"{hub}{path}", f"Bearer {token}" if token else ""))

    named = quote(revision, safe="")
    commit, known = _files_of(opened(f"/api/models/{repository}/revision/{named}"), address)
    return Folder(address, opened(f"/{repository}/resolve/{commit or named}"), f"{inside}/" if inside else "", known)


def _files_of(api: Service, address: Address) -> tuple[str, tuple[str, ...] | None]:
    """The commit of a revision and the files in it; nothing where the hub does not tell. Raises AbsentError, RefusedError."""
    try:
        told = json.loads(bytes(api.whole("", _LISTING_NBYTES, address.shown).data))
        return str(told["sha"]), tuple(str(file["rfilename"]) for file in told["siblings"])
    except AbsentError:
        raise AbsentError(f"there is no such repository or revision, or {HINTS['hf']}", path=address.shown) from None
    except RefusedError:
        raise
    except (FormatError, ValueError, KeyError, TypeError):
        return "", None


def _under(prefix: str, names: tuple[str, ...]) -> Listing:
    """The files below a prefix, inner ones too, and the folders directly in it."""
    inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return Listing(dict.fromkeys(inside, Version()), frozenset(name.partition("/")[0] for name in inside if "/" in name))
