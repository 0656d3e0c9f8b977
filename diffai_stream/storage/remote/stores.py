"""The store of each scheme, as obstore opens it; credentials come from the environment and from nowhere else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote

from diffai_stream.errors import UsageError
from diffai_stream.storage.remote import service
from diffai_stream.storage.remote.addresses import Address
from diffai_stream.storage.remote.objects import RemoteObject
from diffai_stream.storage.remote.service import Service, Version

HINTS = {
    "http": "a user and password, or a signed query, belong in the address",
    "https": "a user and password, or a signed query, belong in the address",
}


class Folder(NamedTuple):
    """A folder of a store: `address` without a slash at its end; keys begin with `prefix`."""

    address: Address
    service: Service
    prefix: str

    def object(self, name: str, version: Version | None = None) -> RemoteObject:
        """The object of a name in the folder, not asked for yet."""
        place = self.address._replace(path=f"{self.address.path}/{name}")
        return RemoteObject(self.service, f"{self.prefix}{name}", place.shown, place.full, version)


def open_folder(address: Address) -> Folder:
    """The folder that an address names. Raises UsageError, MissingExtraError."""
    address = address._replace(path=address.path.rstrip("/"))
    store, prefix = _opened(address)
    return Folder(address, Service(store, HINTS[address.scheme]), prefix)


def open_object(address: Address, folder: Folder) -> RemoteObject:
    """The object that an address names, in its folder; one with a query is asked for by the address as it is written."""
    if not address.query:
        return folder.object(address.name)
    store, _ = _opened(address)
    return RemoteObject(Service(store, HINTS[address.scheme]), "", address.shown, address.full)


def _opened(address: Address) -> tuple[Any, str]:
    """The store and where in it the address lies."""
    service.require()
    try:
        return _OPEN[address.scheme](address)
    except Exception as error:  # what obstore says may hold the address
        raise UsageError(f"the address cannot be used ({type(error).__name__})", path=address.shown) from None


def _client() -> dict[str, Any]:
    return {
        "connect_timeout": timedelta(seconds=service.CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=service.STALL_SECONDS),
        "timeout": timedelta(hours=1),
        "user_agent": "diffai-stream",
    }


def _retry() -> dict[str, Any]:
    """None: `Service` repeats requests, bodies included."""
    return {"max_retries": 0, "retry_timeout": timedelta(seconds=service.PATIENCE_SECONDS)}


def _web(address: Address) -> tuple[Any, str]:
    from obstore.store import HTTPStore

    options = {**_client(), "allow_http": address.scheme == "http"}
    if address.user:  # obstore leaves it out; it is not passed on to another server that this one may name
        told = b64encode(unquote(address.user).encode()).decode()
        options["default_headers"] = {"authorization": f"Basic {told}"}
    return HTTPStore.from_url(address._replace(user="").full, client_options=options, retry_config=_retry()), ""


_OPEN: dict[str, Callable[[Address], tuple[Any, str]]] = {"http": _web, "https": _web}
