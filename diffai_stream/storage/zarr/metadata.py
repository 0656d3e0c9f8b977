"""The metadata of a zarr array: `.zarray` of version 2, `zarr.json` of version 3.

Layout: zarr specifications 2 and 3; what TensorStore adds (bfloat16 and 8-bit floats by name). Everything is checked here, so
that readers of chunks can believe it: sizes are integers, chunks are not empty, codecs are on a list.
"""

from __future__ import annotations

import base64
import json
import struct
from math import isinf, isnan, prod
from typing import NamedTuple

import numpy as np

MAX_METADATA_NBYTES = 1 << 24
MAX_RANK = 32
GROUP = "a group, no array"
OWN_CODECS = ("zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4", "crc32c")
LIBRARY_CODECS = (
    *("delta", "shuffle", "fixedscaleoffset", "quantize", "astype", "bitround", "packbits"),
    *("crc32", "adler32", "fletcher32"),
)
_NUMPY = {"b1": "BOOL", "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "c16": "C128"} | {
    f"{kind.lower()}{bits // 8}": f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)
}
_NAMED = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64", "complex128": "C128"},
    **{f"{'u' if kind == 'U' else ''}int{bits}": f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)},
    **{"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0"},
    **{"float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"},
}
_PACK = {
    **{"F16": "e", "F32": "f", "F64": "d", "C64": "f", "C128": "d", "BOOL": "?"},
    **dict(zip(("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"), "bBhHiIqQ", strict=True)),
}
_WIDTHS = {"BOOL": 1, "BF16": 2, "C64": 8, "C128": 16}


class ZarrError(ValueError):
    """The metadata or a chunk contradicts the specification, or uses what is not read."""


class Codec(NamedTuple):
    """A step from bytes to bytes, by the name it has in version 2, and its configuration."""

    name: str
    configuration: dict[str, object]


class Shards(NamedTuple):
    """Chunks within a chunk: `shape` of the outer ones, where the index lies, bytes of its checksum."""

    shape: tuple[int, ...]
    at_end: bool
    checksum_nbytes: int


class ZarrArray(NamedTuple):
    """One array. `chunk` is what is unpacked at once; `axes` the order its elements are stored in, outermost first.

    `codecs` are those of a chunk in the order they were applied; `by_library` where zarr itself must decode. Keys of chunks are
    `prefix` and their places in the grid of stored objects, with `separator` between.
    """

    version: int
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    encoding: str
    itemsize: int
    big_endian: bool
    axes: tuple[int, ...]
    codecs: tuple[Codec, ...]
    shards: Shards | None
    fill: bytes | None
    prefix: str
    separator: str
    by_library: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.itemsize

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of an unpacked chunk; those at the edge are as large as the others."""
        return prod(self.chunk) * self.itemsize

    def key(self, place: tuple[int, ...]) -> str:
        """The key of a stored object: a chunk, or a shard of them."""
        parts = [*([self.prefix] if self.prefix else []), *map(str, place)]
        return self.separator.join(parts) or "0"


def parse_array(raw: bytes, version: int) -> ZarrArray:
    """The array that a metadata document describes. Raises ZarrError."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ZarrError(f"its metadata is not JSON: {str(error)[:80]}") from None
    if not isinstance(found, dict) or found.get("zarr_format") != version:
        raise ZarrError(f"its metadata is not of zarr version {version}")
    if version == 3 and found.get("node_type") == "group":
        raise ZarrError(GROUP)
    try:
        array = _version_2(found) if version == 2 else _version_3(found)
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ZarrError(f"its metadata is not complete: {type(error).__name__} {str(error)[:80]}") from None
    return array


def _sizes(value: object, least: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_RANK or not all(type(size) is int and size >= least for size in value):
        raise ZarrError(f"{str(value)[:60]} is no shape")
    if prod(size or 1 for size in value) >= 1 << 62:
        raise ZarrError("its shape is larger than any array can be")
    return tuple(value)


def width_of(encoding: str) -> int:
    """Bytes of an element."""
    return 1 if encoding.startswith("F8_") else _WIDTHS.get(encoding) or int(encoding[1:]) // 8


def _version_2(found: dict) -> ZarrArray:
    shape, chunk, dtype = _sizes(found["shape"], 0), _sizes(found["chunks"], 0), found["dtype"]
    if not isinstance(dtype, str):
        raise ZarrError("a structured array mixes types in one element")
    encoding = _NAMED.get(dtype) or (_NUMPY.get(dtype[1:]) if dtype[:1] in ("<", ">", "|") else None)
    if encoding is None:
        raise ZarrError(f"dtype {dtype[:20]!r} is no number that is known here")
    codecs = [
        Codec(str(step["id"]), step) for step in (*(found.get("filters") or ()), *filter(None, [found.get("compressor")]))
    ]
    rank = len(shape)
    axes = tuple(reversed(range(rank))) if found.get("order") == "F" else tuple(range(rank))
    return ZarrArray(
        version=2,
        shape=shape,
        chunk=_as_deep(chunk, shape),
        encoding=encoding,
        itemsize=width_of(encoding),
        big_endian=dtype.startswith(">"),
        axes=axes,
        codecs=tuple(codecs),
        shards=None,
        fill=_fill(found.get("fill_value"), encoding, dtype.startswith(">")),
        prefix="",
        separator=_separator(found.get("dimension_separator") or "."),
        by_library=_by_library(codecs),
    )


def _as_deep(chunk: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a chunk; 0 is allowed where the array has 0 too."""
    if len(chunk) != len(shape):
        raise ZarrError(f"chunks of {len(chunk)} dimensions in an array of {len(shape)}")
    if any(step == 0 < size for step, size in zip(chunk, shape, strict=True)):
        raise ZarrError(f"{chunk} is no shape of a chunk")
    return tuple(max(step, 1) for step in chunk)


def _separator(value: object) -> str:
    if value not in (".", "/"):
        raise ZarrError(f"{str(value)[:20]!r} between the numbers of a chunk's key")
    return str(value)


def _by_library(codecs: list[Codec]) -> bool:
    """Whether zarr itself must decode. Raises ZarrError for codecs that are on no list: some of them run code."""
    for step in codecs:
        if step.name not in (*OWN_CODECS, *LIBRARY_CODECS):
            raise ZarrError(f"the codec {step.name[:40]!r} is not on the list of those that are read")
    return any(step.name not in OWN_CODECS for step in codecs)


def _version_3(found: dict) -> ZarrArray:
    shape, named = _sizes(found["shape"], 0), found["data_type"]
    encoding = _NAMED.get(named) if isinstance(named, str) else None
    if encoding is None:
        raise ZarrError(f"data_type {str(named)[:40]!r} is no number that is known here")
    if found["chunk_grid"]["name"] != "regular":
        raise ZarrError("its chunks are not all of one shape")
    outer = _as_deep(_sizes(found["chunk_grid"]["configuration"]["chunk_shape"], 0), shape)
    steps = [
        (step, {}) if isinstance(step, str) else (step["name"], step.get("configuration") or {}) for step in found["codecs"]
    ]
    shards: Shards | None = None
    chunk = outer
    if len(steps) == 1 and steps[0][0] == "sharding_indexed":
        shards, chunk, steps = _sharded(outer, steps[0][1])
    axes, big_endian, codecs = _pipeline(steps, len(shape))
    keys = found["chunk_key_encoding"]
    is_default = keys["name"] == "default"
    if not is_default and keys["name"] != "v2":
        raise ZarrError(f"chunk keys of the kind {str(keys['name'])[:40]!r}")
    separator = (keys.get("configuration") or {}).get("separator", "/" if is_default else ".")
    return ZarrArray(
        version=3,
        shape=shape,
        chunk=chunk,
        encoding=encoding,
        itemsize=width_of(encoding),
        big_endian=big_endian,
        axes=axes,
        codecs=tuple(codecs),
        shards=shards,
        fill=_fill(found.get("fill_value"), encoding, big_endian),
        prefix="c" if is_default else "",
        separator=_separator(separator),
        by_library=_by_library(codecs),
    )


def _step(step: str | dict) -> tuple[str, dict]:
    return (step, {}) if isinstance(step, str) else (str(step["name"]), step.get("configuration") or {})


def _sharded(outer: tuple[int, ...], how: dict) -> tuple[Shards, tuple[int, ...], list]:
    inner = _as_deep(_sizes(how["chunk_shape"], 1), outer)
    if any(size % step for size, step in zip(outer, inner, strict=True)):
        raise ZarrError(f"shards of {outer} are no whole number of chunks of {inner}")
    steps = [_step(step) for step in how["codecs"]]
    packing = [_step(step) for step in how.get("index_codecs", ["bytes", "crc32c"])]
    index = [name for name, _ in packing]
    if index not in (["bytes"], ["bytes", "crc32c"]) or packing[0][1].get("endian") == "big":
        raise ZarrError("an index of shards that is itself packed is not read")
    location = how.get("index_location", "end")
    if location not in ("end", "start"):
        raise ZarrError(f"an index of shards at {str(location)[:20]!r}")
    return Shards(outer, location == "end", 4 * (len(index) - 1)), inner, steps


def _pipeline(steps: list, rank: int) -> tuple[tuple[int, ...], bool, list[Codec]]:
    """Order of axes, byte order and byte codecs of a list of codecs: transposes, then bytes, then the rest."""
    axes, big_endian, codecs, is_bytes = tuple(range(rank)), False, list[Codec](), False
    for name, how in steps:
        if name == "transpose" and not is_bytes:
            order = how["order"]
            order = tuple(range(rank)) if order == "C" else tuple(reversed(range(rank))) if order == "F" else tuple(order)
            if sorted(order) != list(range(rank)):
                raise ZarrError(f"{str(order)[:40]} is no order of {rank} axes")
            axes = tuple(axes[axis] for axis in order)
        elif name == "bytes" and not is_bytes:
            big_endian, is_bytes = how.get("endian", "little") == "big", True
        elif is_bytes:
            codecs.append(Codec(name.removeprefix("numcodecs."), how))
        else:
            raise ZarrError(f"the codec {name[:40]!r} is not read")
    if not is_bytes:
        raise ZarrError("its codecs never give bytes")
    return axes, big_endian, codecs


def _fill(value: object, encoding: str, big_endian: bool) -> bytes | None:
    """The bytes of an element that was never written; None when they cannot be told."""
    width = width_of(encoding)
    if value is None or (not isinstance(value, str | list) and value == 0):
        return bytes(width)
    order = ">" if big_endian else "<"
    try:
        if encoding == "BF16":
            return _bfloat16(_number(value), order)
        if encoding not in _PACK:
            return None
        parts = value if encoding in ("C64", "C128") and isinstance(value, list) else [value]
        if encoding in ("C64", "C128") and len(parts) == 1:
            parts = [parts[0], 0]
        if isinstance(value, str) and value.startswith("0x"):
            return int(value, 16).to_bytes(width, "big" if big_endian else "little")
        kind = _PACK[encoding]
        return b"".join(struct.pack(order + kind, _number(part) if kind in "efd" else part) for part in parts)
    except (struct.error, ValueError, OverflowError, TypeError):
        return _raw_fill(value, width)


def _number(value: object) -> float:
    """A float of JSON, with the words that the specification has for those JSON has not."""
    found = float(value)  # type: ignore[arg-type]
    if isinstance(value, str) and not (isnan(found) or isinf(found)):
        raise ValueError("a number in quotes")
    return found


def _bfloat16(value: float, order: str) -> bytes:
    bits = int(np.float32(value).view(np.uint32))
    rounded = bits >> 16 if isnan(value) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return struct.pack(f"{order}H", rounded)


def _raw_fill(value: object, width: int) -> bytes | None:
    try:
        raw = base64.b64decode(str(value), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == width else None
