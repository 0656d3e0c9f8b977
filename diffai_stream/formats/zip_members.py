"""Where the members of a zip archive lie in its file, each checked before anyone believes it.

Layout: PKWARE APPNOTE 6.3. The central directory at the end names members and sizes, the data of one begins at its local
header + 30 + name + extra field. Names are only names: nothing is ever extracted, so a path that escapes does no harm.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from io import FileIO
from typing import NamedTuple

from diffai_stream.errors import FormatError, TensorError

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # traditional, strong, masked headers
_UTF8_NAME = 0x0800
_MAX_DEFLATE_RATIO = 1032  # a deflate stream cannot do better: 258 bytes for 2 bits
_METHODS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma", 9: "deflate64", 93: "zstd", 95: "xz"}
_PIECE_NBYTES = 4096


class Member(NamedTuple):
    """One member: `stored_nbytes` bytes from `offset` on, which are `nbytes` bytes once inflated."""

    name: str
    header_offset: int
    offset: int
    stored_nbytes: int
    nbytes: int
    deflated: bool

    @property
    def end(self) -> int:
        """Offset of the first byte after the member's data."""
        return self.offset + self.stored_nbytes

    def head(self, file: FileIO, nbytes: int) -> bytes:
        """The first bytes of its content, at most `nbytes`. Raises ValueError for a damaged deflate stream."""
        if not self.deflated:
            return os.pread(file.fileno(), min(nbytes, self.nbytes), self.offset)
        return _inflate_head(file, self, nbytes)

    def content(self, file: FileIO) -> bytes:
        """Its whole content, for members whose `nbytes` were found plausible. Raises ValueError when it is damaged."""
        raw = os.pread(file.fileno(), self.stored_nbytes, self.offset)
        if not self.deflated:
            return raw
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            found = stream.decompress(raw, self.nbytes + 1)
        except zlib.error as error:
            raise ValueError(f"its deflate stream is damaged: {error}") from None
        if len(found) != self.nbytes:
            raise ValueError(f"its deflate stream does not hold the {self.nbytes} bytes that are declared")
        return found


def _inflate_head(file: FileIO, member: Member, nbytes: int) -> bytes:
    stream, found, place = zlib.decompressobj(-zlib.MAX_WBITS), b"", member.offset
    limit = min(member.end, member.offset + 4 * nbytes + 16 * _PIECE_NBYTES)
    try:
        while len(found) < nbytes and place < limit and not stream.eof:
            piece = os.pread(file.fileno(), min(_PIECE_NBYTES, limit - place), place)
            if not piece:
                break
            place += len(piece)
            found += stream.decompress(piece, nbytes - len(found))
    except zlib.error as error:
        raise ValueError(f"its deflate stream is damaged: {error}") from None
    return found


def read_members(file: FileIO, file_nbytes: int, path: str) -> tuple[list[Member], list[TensorError]]:
    """The members in file order, and an error for each that is not what the archive says.

    Raises FormatError when the central directory cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos, limit = archive.infolist(), min(archive.start_dir, file_nbytes)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, EOFError, OSError) as error:
        raise FormatError(f"its zip directory cannot be read ({str(error)[:100]}): truncated or damaged", path=path) from None
    errors, members = [], []
    counts = Counter(info.orig_filename for info in infos)
    for info in infos:
        try:
            if counts[info.orig_filename] > 1:
                raise ValueError("the archive holds several members of this name")
            members.append(_locate(file, info, limit))
        except ValueError as error:
            offset = info.header_offset if 0 <= info.header_offset < file_nbytes else None
            errors.append(TensorError(str(error), path=path, tensor=info.orig_filename, offset=offset))
    members.sort(key=lambda member: (member.header_offset, member.end))
    return list(_disjoint(members, errors, path)), errors


def _locate(file: FileIO, info: zipfile.ZipInfo, limit: int) -> Member:
    """One member by its local header. Raises ValueError when that contradicts the directory or the file."""
    start, deflated = info.header_offset, info.compress_type == zipfile.ZIP_DEFLATED
    if info.flag_bits & _ENCRYPTED:
        raise ValueError("it is encrypted; decrypt the archive first")
    if not deflated and info.compress_type != zipfile.ZIP_STORED:
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise ValueError(f"its compression ({method}) is not supported; store or deflate it")
    if not deflated and info.compress_size != info.file_size:
        raise ValueError(f"stored as {info.compress_size} bytes, declared as {info.file_size}: the archive contradicts itself")
    if info.file_size > _MAX_DEFLATE_RATIO * info.compress_size:
        raise ValueError(f"{info.compress_size} bytes cannot inflate to {info.file_size}: no deflate stream does, refused")
    name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_NAME else "cp437")
    raw = os.pread(file.fileno(), LOCAL_HEADER.size + len(name), start) if 0 <= start < limit else b""
    if len(raw) < LOCAL_HEADER.size or not raw.startswith(_SIGNATURE):
        raise ValueError("there is no local header where the archive says")
    name_nbytes, extra_nbytes = LOCAL_HEADER.unpack_from(raw)[-2:]
    if name_nbytes != len(name) or raw[LOCAL_HEADER.size :] != name:
        raise ValueError("its local header carries another name")
    offset = start + LOCAL_HEADER.size + name_nbytes + extra_nbytes
    if offset + info.compress_size > limit:
        raise ValueError(f"its data would end at {offset + info.compress_size}, past the {limit} bytes that hold data")
    return Member(info.orig_filename, start, offset, info.compress_size, info.file_size, deflated)


def _disjoint(members: list[Member], errors: list[TensorError], path: str) -> Iterator[Member]:
    """The members that share no byte with one before; the others become errors."""
    reach, owner = 0, ""
    for member in members:
        if member.header_offset < reach:
            message = f"overlaps the member {owner!r}, which reaches to offset {reach}: refused"
            errors.append(TensorError(message, path=path, tensor=member.name, offset=member.header_offset))
            continue
        reach, owner = member.end, member.name
        yield member
