"""Variables of MATLAB files of level 4: a header of five integers, a name, real and then imaginary numbers, columns first.

Layout: "MAT-File Format" of MathWorks. The first integer is M·1000 + O·100 + P·10 + T: byte order, zero, precision, kind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from diffai_stream.formats.matlab_level5 import Array
from diffai_stream.formats.matlab_stream import Stored

HEADER_NBYTES = 20
_ENCODINGS = ("F64", "F32", "I32", "I16", "U16", "U8")
_WIDTHS = (8, 4, 4, 2, 2, 1)
_KINDS = ("", "text", "a sparse matrix")
_MAX_NAME_NBYTES = 512


class Header(NamedTuple):
    """The header of one variable."""

    order: str
    precision: int
    kind: int
    rows: int
    columns: int
    is_complex: bool
    name_nbytes: int

    @property
    def part_nbytes(self) -> int:
        """Bytes of all real parts."""
        return self.rows * self.columns * _WIDTHS[self.precision]


def header_of(raw: bytes) -> Header | None:
    """The header that some bytes begin with, None when they make no sense as one."""
    if len(raw) < HEADER_NBYTES:
        return None
    for order, machine in (("<", 0), (">", 1)):
        first, rows, columns, imaginary, name_nbytes = struct.unpack(f"{order}5i", raw[:HEADER_NBYTES])
        digits = first // 1000, first // 100 % 10, first // 10 % 10, first % 10
        known = digits[0] == machine and digits[1] == 0 and digits[2] < len(_ENCODINGS) and digits[3] < len(_KINDS)
        sizes = rows >= 0 and columns >= 0 and imaginary in (0, 1) and 1 < name_nbytes <= _MAX_NAME_NBYTES
        if first >= 0 and known and sizes:
            return Header(order, digits[2], digits[3], rows, columns, bool(imaginary), name_nbytes)
    return None


def looks_like_it(head: bytes, file_nbytes: int) -> bool:
    """Whether a file begins with a variable: there is no signature, so its name must be one and its data fit the file."""
    header = header_of(head)
    if header is None:
        return False
    name = head[HEADER_NBYTES : HEADER_NBYTES + header.name_nbytes]
    is_name = name.endswith(b"\0") and name[:-1].decode("latin-1").isidentifier()
    return is_name and HEADER_NBYTES + len(name) + header.part_nbytes <= file_nbytes


def arrays(stream: Stored) -> Iterator[tuple[Array, str]]:
    """All variables, each with its byte order. Raises ValueError where one cannot be followed by another."""
    while stream.place < stream.nbytes:
        header = header_of(stream.take(HEADER_NBYTES))
        if header is None:
            raise ValueError("there is no header of a variable where one is due")
        name = stream.take(header.name_nbytes).split(b"\0")[0].decode("latin-1")
        place, shape = stream.place, (header.rows, header.columns)
        stream.skip(header.part_nbytes * (2 if header.is_complex else 1))
        if header.kind:
            yield Array(name, problem=_KINDS[header.kind], is_number=header.kind == 2), header.order
        elif 0 not in shape:
            yield _numeric(header, name, shape, place), header.order


def _numeric(header: Header, name: str, shape: tuple[int, int], place: int) -> Array:
    encoding = _ENCODINGS[header.precision]
    if not header.is_complex:
        return Array(name, shape, encoding, place)
    pair = {"F32": "C64", "F64": "C128"}.get(encoding, "")
    return Array(name, shape, pair, place, header.part_nbytes, problem="" if pair else f"complex numbers of {encoding}")
