"""Variables of MATLAB files of level 5 (versions 5 to 7): tagged elements, columns first, each perhaps a zlib stream.

Layout: "MAT-File Format" of MathWorks. A tag is the type and the number of bytes, both u32, or both u16 with up to four bytes
of data in the same eight; data is padded to eight. A matrix holds flags, dimensions, name, real and imaginary parts; a struct
or cell holds matrices again. Numbers may be stored in a smaller type than their class.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from diffai_stream.formats.inert import element_count
from diffai_stream.formats.matlab_stream import Inflated, Stored

MATRIX, COMPRESSED = 14, 15
_ENCODINGS = {1: "I8", 2: "U8", 3: "I16", 4: "U16", 5: "I32", 6: "U32", 7: "F32", 9: "F64", 12: "I64", 13: "U64"}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _OPAQUE = 1, 2, 3, 4, 5, 17
_TITLES = {_CHAR: "text", _SPARSE: "a sparse matrix", 16: "a function", _OPAQUE: "an object of a class"}
_COMPLEX, _LOGICAL = 8, 2
_MAX_RANK = 64
_MAX_NAME_NBYTES = 4096
_MAX_FIELDS = 4096
_MAX_DEPTH = 32


class Array(NamedTuple):
    """A variable or a part of one: numbers at `place` of their stream, imaginary ones `distance` further; else `problem`.

    `is_number` is False for text and functions, which a comparison of weights leaves out; a problem with numbers is an error.
    """

    name: str
    shape: tuple[int, ...] = ()
    encoding: str = ""
    place: int = 0
    distance: int = 0
    problem: str = ""
    is_number: bool = True


class _Tag(NamedTuple):
    kind: int
    nbytes: int
    data: bytes | None  # of a small element


class Elements:
    """The elements of one stream in the file's byte order (`<` or `>`)."""

    def __init__(self, stream: Stored | Inflated, order: str) -> None:
        self.stream, self.order = stream, order

    def tag(self) -> _Tag:
        """The next tag. Raises ValueError at the end of the stream."""
        raw = self.stream.take(8)
        kind, nbytes = struct.unpack(f"{self.order}II", raw)
        if kind >> 16 and kind & 0xFFFF != COMPRESSED:
            nbytes = kind >> 16
            if nbytes > 4:
                raise ValueError(f"a small element of {nbytes} bytes")
            return _Tag(kind & 0xFFFF, nbytes, raw[4 : 4 + nbytes])
        return _Tag(kind, nbytes, None)

    def data(self, limit: int) -> bytes:
        """The data of the next element, at most `limit` bytes."""
        tag = self.tag()
        if tag.data is not None:
            return tag.data
        if tag.nbytes > limit:
            raise ValueError(f"{tag.nbytes} bytes where at most {limit} make sense")
        raw = self.stream.take(tag.nbytes)
        self.stream.skip(-tag.nbytes % 8)
        return raw

    def ints(self, limit: int) -> tuple[int, ...]:
        """The next element as 32-bit integers."""
        raw = self.data(4 * limit)
        return struct.unpack(f"{self.order}{len(raw) // 4}i", raw[: len(raw) // 4 * 4])

    def numbers(self) -> tuple[int, int, int]:
        """Type, place and bytes of the next element, whose data is stepped over."""
        tag = self.tag()
        place = self.stream.place - 4 if tag.data is not None else self.stream.place
        if tag.data is None:
            self.stream.skip(tag.nbytes + -tag.nbytes % 8)
        return tag.kind, place, tag.nbytes


def arrays(elements: Elements, nbytes: int, prefix: str = "", depth: int = 0) -> Iterator[Array]:
    """What the matrix holds whose tag was just taken. Raises ValueError when its layout cannot be followed."""
    if depth > _MAX_DEPTH:
        raise ValueError("it nests without end")
    if nbytes == 0:
        return
    end = elements.stream.place + nbytes
    words = elements.ints(2)
    if not words:
        raise ValueError("its flags are missing")
    kind, flags = words[0] & 0xFF, words[0] >> 8 & 0xFF
    if kind == _OPAQUE:
        yield Array(prefix or elements.data(_MAX_NAME_NBYTES).decode("latin-1"), problem=_TITLES[kind], is_number=False)
    else:
        shape = elements.ints(_MAX_RANK)
        count = element_count(shape)
        name = elements.data(_MAX_NAME_NBYTES).decode("utf-8", "replace")
        name = prefix or name or "(unnamed)"
        if kind in (_CELL, _STRUCT, _OBJECT):
            yield from _inner(elements, kind, count, name, depth)
        elif kind in _TITLES:
            yield Array(name, problem=_TITLES[kind], is_number=kind == _SPARSE)
        elif shape and count:
            yield _numeric(elements, name, shape, flags)
    if end < elements.stream.place:
        raise ValueError(f"{name} reaches beyond its end")
    elements.stream.skip(end - elements.stream.place)


def _inner(elements: Elements, kind: int, count: int, name: str, depth: int) -> Iterator[Array]:
    """The matrices of a cell array, or of a struct: element by element, in each field by field."""
    fields = [""]
    if kind == _OBJECT:
        elements.data(_MAX_NAME_NBYTES)
    if kind != _CELL:
        width = (elements.ints(1) or (0,))[0]
        if not 0 < width <= _MAX_NAME_NBYTES:
            raise ValueError(f"field names of {width} bytes")
        raw = elements.data(width * _MAX_FIELDS)
        fields = [raw[at : at + width].split(b"\0")[0].decode("utf-8", "replace") for at in range(0, len(raw), width)]
    is_one = kind != _CELL and count == 1
    for number in range(count):
        for field in fields:
            tag = elements.tag()
            if tag.kind != MATRIX:
                raise ValueError(f"an element of type {tag.kind} where a matrix is due")
            parts = (name, "" if is_one else str(number), field)
            yield from arrays(elements, tag.nbytes, ".".join(part for part in parts if part), depth + 1)


def _numeric(elements: Elements, name: str, shape: tuple[int, ...], flags: int) -> Array:
    kind, place, nbytes = elements.numbers()
    encoding = _ENCODINGS.get(kind, "")
    count = element_count(shape)
    if not encoding:
        return Array(name, problem=f"numbers of type {kind}, which is not known")
    width = nbytes // count
    if width * count != nbytes or width * 8 != int(encoding[1:]):
        return Array(name, problem=f"{nbytes} bytes for {count} numbers of {encoding}")
    if flags & _LOGICAL:
        encoding = "BOOL" if encoding in ("I8", "U8") else encoding
    if not flags & _COMPLEX:
        return Array(name, shape, encoding, place)
    other, imaginary, other_nbytes = elements.numbers()
    pair = {"F32": "C64", "F64": "C128"}.get(encoding, "")
    if not pair or (other, other_nbytes) != (kind, nbytes):
        return Array(name, problem=f"complex numbers whose parts are stored as {encoding} and type {other}")
    return Array(name, shape, pair, place, imaginary - place)
