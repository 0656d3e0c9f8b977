"""The way to a dask scheduler: an address, a scheduler file, or a cluster on this machine; over TLS where asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffai_stream.errors import ClusterError, MissingExtraError, UsageError
from diffai_stream.options import Options

CONNECT_SECONDS = 20


@contextmanager
def connected(options: Options) -> Iterator[Any]:
    """A client of the scheduler asked for, or of a cluster on this machine that lives as long as the run.

    Raises MissingExtraError without distributed, UsageError for wrong addresses and files, ClusterError when nobody answers.
    """
    distributed = _library()
    if options.scheduler is None and options.scheduler_file is None:
        workers = options.workers or len(os.sched_getaffinity(0))
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    address = options.scheduler or _address(options.scheduler_file or "")
    security = security_of(options, address)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, security=security)
    except ValueError as error:
        raise UsageError(f"{address!r} is no address of a scheduler: {error}; they look like tcp://host:8786") from error
    except (OSError, TypeError) as error:  # TypeError: distributed, for TLS without its files
        raise ClusterError(
            f"no scheduler answers at {address}: {_first_line(error)}; is `dask scheduler` running there?"
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _library() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("--executor distributed needs distributed: pip install 'diffai-stream[distributed]'") from error
    return distributed


def security_of(options: Options, address: str) -> Any:
    """The TLS files as distributed takes them; None without any. Raises UsageError for files that cannot be read."""
    files = {"tls_ca_file": options.tls_ca_file, "tls_client_cert": options.tls_cert, "tls_client_key": options.tls_key}
    told = {name: path for name, path in files.items() if path is not None}
    if not told:
        return None
    if not address.startswith(("tls://", "wss://")):
        raise UsageError(f"--tls-ca-file, --tls-cert and --tls-key are for an address tls://..., not {address}")
    for path in told.values():
        if not os.access(path, os.R_OK):
            raise UsageError("cannot be read; it should be a PEM file", path=path)
    return _library().Security(require_encryption=True, **told)


def _address(path: str) -> str:
    """The address in a scheduler file; distributed itself would wait for a missing file for ever."""
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--scheduler-file {path}: {error}; it is written by `dask scheduler --scheduler-file`") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
