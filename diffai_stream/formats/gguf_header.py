"""The header of a GGUF file: metadata and the declarations of its tensors.

Layout (`docs/gguf.md` of ggml-org/ggml), little endian: `GGUF`, u32 version, u64 tensor count, u64 key count; a key is a string
(u64 length, bytes), u32 type and a value; a tensor is a string, u32 rank, u64 sizes (the fastest first), u32 type, u64 offset
from the data on. The data begins after the last declaration, at the next multiple of `general.alignment` (32 when absent).

Arrays are stepped over: a vocabulary has hundreds of thousands of strings. Nothing is allocated on the word of the file.
"""

from __future__ import annotations

import json
import struct
from io import FileIO
from typing import NamedTuple

from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import MAX_HEADER_NBYTES, Notes, open_regular, read_exactly

DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = "general.alignment"
_FIRST_NBYTES = 1 << 18
_MAX_ALIGNMENT = 1 << 30
_MAX_DEPTH = 8  # of arrays in arrays
_MAX_RANK = 64
_MAX_LISTED = 64  # values of an array told one by one, when they take at most
_MAX_LISTED_NBYTES = 4096
_MAX_KEYS = 1 << 16  # models have a few dozen
_MIN_KEY_NBYTES, _MIN_TENSOR_NBYTES = 13, 24
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_SCALARS = {
    **{0: ("u8", "<B"), 1: ("i8", "<b"), 2: ("u16", "<H"), 3: ("i16", "<h"), 4: ("u32", "<I"), 5: ("i32", "<i")},
    **{6: ("f32", "<f"), 7: ("bool", "<?"), 10: ("u64", "<Q"), 11: ("i64", "<q"), 12: ("f64", "<d")},
}
_LAYOUTS = {code: struct.Struct(layout) for code, (_, layout) in _SCALARS.items()}


class Declared(NamedTuple):
    """A tensor as declared: `dims` the fastest first (None: more than any library knows), `offset` from the data on."""

    name: bytes
    dims: tuple[int, ...] | None
    kind: int
    offset: int
    place: int


class Header(NamedTuple):
    """`nbytes` up to the end of the declarations; `data_start` is where offsets count from."""

    version: int
    metadata: dict[str, str]
    tensors: list[Declared]
    alignment: int
    nbytes: int

    @property
    def data_start(self) -> int:
        """Offset of the data in the file."""
        return -(-self.nbytes // self.alignment) * self.alignment


class _Cursor:
    """A place in the header; bytes are fetched as they are asked for, never beyond the end of the file."""

    def __init__(self, file: FileIO, file_nbytes: int, path: str) -> None:
        self._file, self._file_nbytes, self.path = file, file_nbytes, path
        self._limit = min(file_nbytes, MAX_HEADER_NBYTES)
        self.raw, self.place = b"", 0

    def need(self, nbytes: int) -> None:
        """Have the next bytes at hand. Raises FormatError when there are not so many."""
        end = self.place + nbytes
        if end <= len(self.raw):
            return
        if end > self._limit:
            raise FormatError(self._too_long(end), path=self.path, offset=min(self.place, self._file_nbytes))
        wanted = min(max(end, 2 * len(self.raw), _FIRST_NBYTES), self._limit)
        self.raw += read_exactly(self._file, len(self.raw), wanted - len(self.raw), self.path)

    def _too_long(self, end: int) -> str:
        if end > self._file_nbytes:
            reason = f"the header goes on to byte {end}" if end < 2**63 else "a length in the header is beyond all reason"
            return f"{reason}, the file has {self._file_nbytes}: truncated or damaged, fetch it again"
        return f"the header is longer than the {MAX_HEADER_NBYTES} bytes that are plausible"

    def number(self, layout: struct.Struct) -> int | float | bool:
        """The next number."""
        self.need(layout.size)
        (value,) = layout.unpack_from(self.raw, self.place)
        self.place += layout.size
        return value  # type: ignore[no-any-return]

    def u32(self) -> int:
        """The next u32."""
        return int(self.number(_U32))

    def u64(self) -> int:
        """The next u64."""
        return int(self.number(_U64))

    def text(self) -> bytes:
        """The next string."""
        nbytes = self.u64()
        self.need(nbytes)
        self.place += nbytes
        return self.raw[self.place - nbytes : self.place]

    def skip(self, nbytes: int) -> None:
        """Step over bytes."""
        self.need(nbytes)
        self.place += nbytes

    def skip_strings(self, count: int) -> None:
        """Step over that many strings: half a million take a tenth of a second."""
        self.need(8 * count)
        done, place, unpack = 0, self.place, _U64.unpack_from
        while done < count:
            raw = self.raw
            try:
                while done < count:
                    place += 8 + unpack(raw, place)[0]
                    done += 1
            except (struct.error, OverflowError):  # more bytes are needed, or the last string had no end
                self.place = place
                self.need(8)
        self.place = place


def read_header(file: FileIO, file_nbytes: int, path: str, notes: Notes) -> Header:
    """Read and check a header. Raises FormatError when it is not one that can be read to its end."""
    cursor = _Cursor(file, file_nbytes, path)
    version, tensor_count, key_count = _begin(cursor, file_nbytes)
    metadata: dict[str, str] = {}
    alignment = DEFAULT_ALIGNMENT
    for _ in range(key_count):
        key, value = _text(cursor.text()), _value(cursor, cursor.u32())
        if key in metadata:
            notes.add("duplicate_key", f"the key {key!r} occurs twice in the metadata, the last one counts")
        if key == _ALIGNMENT_KEY:
            alignment = _alignment(value, cursor, notes)
        metadata[key] = value
    tensors = [_declared(cursor) for _ in range(tensor_count)]
    return Header(version, metadata, tensors, alignment, cursor.place)


def read_texts(path: str, key: str) -> list[str] | None:
    """The array of strings that the metadata of a file holds under a key; None without one. Raises FormatError."""
    with open_regular(path) as (file, stamp):
        cursor = _Cursor(file, stamp.nbytes, path)
        _, _, key_count = _begin(cursor, stamp.nbytes)
        for _ in range(key_count):
            name, kind = _text(cursor.text()), cursor.u32()
            if name != key or kind != _ARRAY:
                _value(cursor, kind)
                continue
            element, count = cursor.u32(), cursor.u64()
            if element != _STRING:
                return None
            cursor.need(8 * count)
            return [_text(cursor.text()) for _ in range(count)]
    return None


def _begin(cursor: _Cursor, file_nbytes: int) -> tuple[int, int, int]:
    """Version, number of tensors, number of keys. Raises FormatError for numbers that the file cannot hold."""
    cursor.skip(4)
    version = _version(cursor)
    tensor_count, key_count = cursor.u64(), cursor.u64()
    if tensor_count * _MIN_TENSOR_NBYTES + key_count * _MIN_KEY_NBYTES > file_nbytes or key_count > _MAX_KEYS:
        message = f"{tensor_count} tensors and {key_count} keys are declared, more than {file_nbytes} bytes hold in a model"
        raise FormatError(f"{message}: truncated or damaged", path=cursor.path, offset=8)
    return version, tensor_count, key_count


def _version(cursor: _Cursor) -> int:
    version = cursor.u32()
    if version in (2, 3):
        return version
    if version == 1:
        message = "GGUF version 1 (2023), which is no longer read; convert the original weights again"
    elif version & 0xFFFF == 0 and version:
        message = "a big-endian GGUF file; convert it with `gguf-convert-endian FILE little` of the gguf package"
    else:
        message = f"GGUF version {version} is not known (2 and 3 are)"
    raise FormatError(message, path=cursor.path, offset=4)


def _alignment(value: str, cursor: _Cursor, notes: Notes) -> int:
    """The alignment that the metadata declares; without a usable one no tensor can be placed."""
    alignment = int(value) if value.isdecimal() else 0
    if not 0 < alignment <= _MAX_ALIGNMENT:
        raise FormatError(f"{_ALIGNMENT_KEY} is {value[:40]!r}, which is no alignment", path=cursor.path, offset=cursor.place)
    if alignment & (alignment - 1):
        notes.add("odd_alignment", f"{_ALIGNMENT_KEY} is {alignment}, no power of two")
    return alignment


def _declared(cursor: _Cursor) -> Declared:
    place = cursor.place
    name, rank = cursor.text(), cursor.u32()
    cursor.need(8 * rank)
    dims = struct.unpack_from(f"<{rank}Q", cursor.raw, cursor.place) if rank <= _MAX_RANK else None
    cursor.skip(8 * rank)
    return Declared(name, dims, cursor.u32(), cursor.u64(), place)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _value(cursor: _Cursor, kind: int) -> str:
    """The next value as text; long arrays by their length and hash."""
    if kind == _STRING:
        return _text(cursor.text())
    if kind == _ARRAY:
        return _array(cursor)
    if kind not in _LAYOUTS:
        raise FormatError(f"a value of type {kind} in the metadata, which is not known", path=cursor.path, offset=cursor.place)
    return _number_text(kind, cursor.number(_LAYOUTS[kind]))


def _array(cursor: _Cursor) -> str:
    start, kind, count = cursor.place, cursor.u32(), cursor.u64()
    begin = cursor.place
    _skip_array(cursor, kind, count, 1)
    if count <= _MAX_LISTED and cursor.place - begin <= _MAX_LISTED_NBYTES and kind != _ARRAY:
        end, cursor.place = cursor.place, begin
        values = [_value(cursor, kind) for _ in range(count)]
        cursor.place = end
        return json.dumps(values, ensure_ascii=False) if kind == _STRING else f"[{', '.join(values)}]"
    from xxhash import xxh3_64_hexdigest

    digest = xxh3_64_hexdigest(memoryview(cursor.raw)[start : cursor.place])
    names = {_STRING: "strings", _ARRAY: "arrays"}
    return f"{count} {names.get(kind) or _SCALARS[kind][0]} (xxh3 {digest})"


def _skip_array(cursor: _Cursor, kind: int, count: int, depth: int) -> None:
    if kind in _LAYOUTS:
        cursor.skip(count * _LAYOUTS[kind].size)
    elif kind == _STRING:
        cursor.skip_strings(count)
    elif kind == _ARRAY and depth < _MAX_DEPTH:
        cursor.need(12 * count)
        for _ in range(count):
            _skip_array(cursor, cursor.u32(), cursor.u64(), depth + 1)
    else:
        what = f"arrays nested more than {_MAX_DEPTH} deep" if kind == _ARRAY else f"an array of type {kind}"
        raise FormatError(f"{what} in the metadata, which is not known", path=cursor.path, offset=cursor.place)


def _number_text(kind: int, value: float | bool) -> str:
    """A number as text: float32 by the fewest digits that give it back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if kind != 6:
        return repr(value)
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    return next((text for text in texts if struct.pack("<f", float(text)) == struct.pack("<f", value)), repr(value))
