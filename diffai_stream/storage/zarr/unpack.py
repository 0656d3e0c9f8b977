"""Bytes of a chunk, unpacked: never more than the chunk can hold, whatever the packed bytes claim."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Sequence

from diffai_stream.storage.crc32c import crc32c
from diffai_stream.storage.zarr.metadata import Codec, ZarrError

SLACK_NBYTES = 64  # checksums between two codecs
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_NBYTES = 1 << 17
MISSING = "pip install 'diffai-stream[zarr]'"


def unpacked(raw: bytes, codecs: Sequence[Codec], nbytes: int) -> bytes:
    """The `nbytes` bytes of a chunk. Raises ZarrError for damaged data, ImportError when numcodecs is not installed."""
    for step in reversed(codecs):
        try:
            raw = _undone(step.name, raw, nbytes + SLACK_NBYTES)
        except ZarrError:
            raise
        except (zlib.error, OSError, EOFError, lzma.LZMAError, RuntimeError, ValueError, MemoryError) as error:
            raise ZarrError(f"damaged {step.name} data: {str(error)[:100]}") from None
    if len(raw) != nbytes:
        raise ZarrError(f"a chunk holds {len(raw)} bytes instead of {nbytes}")
    return raw


def _undone(name: str, raw: bytes, limit: int) -> bytes:
    if name in ("zlib", "gzip"):
        return _inflated(raw, limit, zlib.MAX_WBITS | (16 if name == "gzip" else 0))
    if name == "bz2":
        return bz2.BZ2Decompressor().decompress(raw, limit)
    if name == "lzma":
        return lzma.LZMADecompressor().decompress(raw, limit)
    if name == "crc32c":
        return checked(raw, "the chunk")
    return _by_numcodecs(name, raw, limit)


def checked(raw: bytes, what: str) -> bytes:
    """The bytes before the CRC-32C that ends them. Raises ZarrError when it is not theirs."""
    content, stored = raw[:-4], int.from_bytes(raw[-4:], "little")
    if len(raw) < 4 or crc32c(content) != stored:
        raise ZarrError(f"the checksum of {what} is not that of its bytes: damaged, fetch or write it again")
    return content


def _inflated(raw: bytes, limit: int, bits: int) -> bytes:
    """All members of a gzip or zlib stream."""
    found = b""
    while raw and len(found) < limit:
        stream = zlib.decompressobj(bits)
        found += stream.decompress(raw, limit - len(found))
        if not stream.eof:
            break
        raw = stream.unused_data
    return found


def _by_numcodecs(name: str, raw: bytes, limit: int) -> bytes:
    import numcodecs

    claimed = {"zstd": zstd_bound, "blosc": _blosc_nbytes, "lz4": _lz4_nbytes}[name](raw)
    most = limit if name != "zstd" else 2 * limit + 4 * _ZSTD_BLOCK_NBYTES
    if claimed > most:
        raise ZarrError(f"{len(raw)} bytes claim to unpack to {claimed}, where {limit - SLACK_NBYTES} are due")
    decoder = {"zstd": numcodecs.Zstd, "blosc": numcodecs.Blosc, "lz4": numcodecs.LZ4}[name]
    return bytes(decoder().decode(raw))


def _blosc_nbytes(raw: bytes) -> int:
    if len(raw) < 16 or int.from_bytes(raw[12:16], "little") > len(raw):
        raise ZarrError("no whole Blosc frame")
    return int.from_bytes(raw[4:8], "little")


def _lz4_nbytes(raw: bytes) -> int:
    return int.from_bytes(raw[:4], "little")


def zstd_bound(raw: bytes) -> int:
    """At most how many bytes Zstandard frames unpack to, from their headers and those of their blocks (RFC 8878)."""
    total = place = 0
    while place < len(raw):
        magic = raw[place : place + 4]
        if magic[1:] == b"\x2a\x4d\x18" and magic[:1] and magic[0] >> 4 == 5:  # a frame to be stepped over
            place += 8 + int.from_bytes(raw[place + 4 : place + 8], "little")
            continue
        if magic != _ZSTD_MAGIC or place + 5 > len(raw):
            raise ZarrError("no Zstandard frame")
        place, declared, has_sum = _zstd_header(raw, place + 4)
        place, nbytes = _zstd_blocks(raw, place)
        total += nbytes if declared is None else max(declared, 0)
        place += 4 if has_sum else 0
    return total


def _zstd_header(raw: bytes, place: int) -> tuple[int, int | None, bool]:
    """Where the blocks begin, the declared content (None when not), whether a checksum follows."""
    descriptor = raw[place]
    is_single = bool(descriptor & 0x20)
    place += 1 + (0 if is_single else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    declared = int.from_bytes(raw[place : place + width], "little") + (256 if width == 2 else 0) if width else None
    return place + width, declared, bool(descriptor & 4)


def _zstd_blocks(raw: bytes, place: int) -> tuple[int, int]:
    """The end of the blocks, and at most how many bytes they unpack to."""
    total, is_last = 0, False
    while not is_last:
        header = int.from_bytes(raw[place : place + 3], "little")
        if place + 3 > len(raw):
            raise ZarrError("a Zstandard frame ends too early")
        is_last, kind, nbytes = bool(header & 1), header >> 1 & 3, header >> 3
        place += 3 + (1 if kind == 1 else nbytes)
        total += nbytes if kind < 2 else _ZSTD_BLOCK_NBYTES
    return place, total
