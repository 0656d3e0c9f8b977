"""The little of zarr v3 that a store needs: groups, and arrays of bytes in one checksummed chunk, written then committed.

Importing the zarr library takes longer than comparing small checkpoints, so the few files are written here; the library
opens them. What is read is believed only when its checksums hold: CRC-32C of the chunk (the codec of the format), BLAKE2b of
the metadata. Format: "Zarr core specification", version 3.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from diffai_stream.storage.crc32c import crc32c

METADATA, CHUNK, UNFINISHED = "zarr.json", "0", ".unfinished"
ALIGNMENT = 8
CRC_NBYTES = 4
GZIP_LEVEL = 6


class DamagedError(ValueError):
    """What was written is not what is there; the message says what is wrong."""


def write_group(folder: str, attributes: Mapping[str, Any]) -> None:
    """Make the folder a group, or give the group that it is other attributes, in one step. Raises OSError."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, METADATA)
    _write(f"{path}{UNFINISHED}", [_document({"zarr_format": 3, "node_type": "group"}, attributes)])
    os.replace(f"{path}{UNFINISHED}", path)
    _sync(folder)


def read_attributes(folder: str) -> dict[str, Any]:
    """The attributes of a group or array. Raises DamagedError, FileNotFoundError, other OSError."""
    with open(os.path.join(folder, METADATA), "rb") as file:
        raw = file.read()
    try:
        document = orjson.loads(raw)
        attributes = document["attributes"]
        checksum = attributes.pop("checksum")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError("its metadata cannot be read") from error
    if checksum != _checksum(document):
        raise DamagedError("its metadata is not what was written")
    return dict(attributes)


def write_array(folder: str, arrays: Iterable[NDArray[Any]], attributes: Mapping[str, Any], compressed: bool = False) -> None:
    """Write arrays end to end as one array of bytes; all of it is there, or nothing. Raises OSError."""
    data = b"".join(_padded(array) for array in arrays)
    metadata = _array(len(data), compressed)
    if compressed:
        data = gzip.compress(data, GZIP_LEVEL, mtime=0)
    unfinished = os.path.join(os.path.dirname(folder), f"{UNFINISHED}-{os.path.basename(folder)}")
    shutil.rmtree(unfinished, ignore_errors=True)
    os.mkdir(unfinished)
    try:
        crc = crc32c(data) if data else 0
        _write(os.path.join(unfinished, CHUNK), [data, crc.to_bytes(CRC_NBYTES, "little")])
        told = {**attributes, "crc32c": crc, "is_compressed": compressed}
        _write(os.path.join(unfinished, METADATA), [_document(metadata, told)])
        _sync(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(unfinished, folder)
        _sync(os.path.dirname(folder))
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read_array(folder: str) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Attributes and bytes of an array. Raises DamagedError, OSError."""
    attributes = read_attributes(folder)
    with open(os.path.join(folder, CHUNK), "rb") as file:
        raw = file.read()
    data, crc = raw[:-CRC_NBYTES], raw[-CRC_NBYTES:]
    found = crc32c(data) if data else 0
    if len(raw) < CRC_NBYTES or found != int.from_bytes(crc, "little") or found != attributes.get("crc32c"):
        raise DamagedError("its checksum does not fit its bytes")
    if attributes.get("is_compressed"):
        data = gzip.decompress(data)
    return attributes, np.frombuffer(data, np.uint8)


def split(data: NDArray[np.uint8], layout: Iterable[tuple[str, list[int]]]) -> list[NDArray[Any]]:
    """The arrays of these types and shapes that were written end to end. Raises DamagedError when they do not fit."""
    arrays: list[NDArray[Any]] = []
    start = 0
    for dtype, shape in layout:
        nbytes = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        if start + nbytes > data.size:
            raise DamagedError("it is shorter than its metadata says")
        arrays.append(data[start : start + nbytes].view(dtype).reshape(shape))
        start += nbytes + -nbytes % ALIGNMENT
    return arrays


def _padded(array: NDArray[Any]) -> bytes:
    raw = np.ascontiguousarray(array).tobytes()
    return raw + bytes(-len(raw) % ALIGNMENT)


def _array(nbytes: int, compressed: bool) -> dict[str, Any]:
    """The metadata of an array of so many bytes in one chunk."""
    gzipped = [{"name": "gzip", "configuration": {"level": GZIP_LEVEL}}] if compressed else []
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [nbytes],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, nbytes)]}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}, *gzipped, {"name": "crc32c"}],
    }


def _document(metadata: Mapping[str, Any], attributes: Mapping[str, Any]) -> bytes:
    document = {**metadata, "attributes": dict(attributes)}
    document["attributes"]["checksum"] = _checksum(document)
    return orjson.dumps(document)


def _checksum(document: Mapping[str, Any]) -> str:
    return blake2b(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _write(path: str, pieces: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: str) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
