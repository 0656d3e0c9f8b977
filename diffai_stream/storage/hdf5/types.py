"""Datatypes and dataspaces: what the elements of a dataset or an attribute are, and how many there are."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from diffai_stream.storage.hdf5.source import Cursor, Damaged, Unsupported

MAX_DEPTH = 16
MAX_RANK = 32
_CLASSES = (
    *("integers", "floats", "times", "text", "bit fields", "opaque bytes", "records", "references"),
    *("enumerations", "sequences of variable length", "arrays", "complex numbers"),
)
INTEGER, FLOAT, _, TEXT, BITS, OPAQUE, RECORD, REFERENCE, ENUM, SEQUENCE, ARRAY, COMPLEX = range(12)
_FLOATS = {
    (2, 5, 10): "F16",
    (2, 8, 7): "BF16",
    (4, 8, 23): "F32",
    (8, 11, 52): "F64",
    (1, 4, 3): "F8_E4M3",
    (1, 5, 2): "F8_E5M2",
}


class Datatype(NamedTuple):
    """One element: its class, bytes, and encoding ("" where it is no number); `part_nbytes` are swapped if `big_endian`.

    `base` is what an enumeration or sequence is made of; `members` the names of an enumeration or the fields of a record.
    """

    kind: int
    nbytes: int
    encoding: str = ""
    big_endian: bool = False
    part_nbytes: int = 0
    base: Datatype | None = None
    members: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is, in a word or two."""
        return f"{_CLASSES[self.kind]} ({self.nbytes} bytes each)"


class Dataspace(NamedTuple):
    """The shape, () for a scalar, None for the null space that holds nothing; `limits` how far it can grow."""

    shape: tuple[int, ...] | None
    limits: tuple[int, ...]


def dataspace(cursor: Cursor) -> Dataspace:
    """The dataspace described at the cursor. Raises Damaged, Unsupported."""
    version, rank, flags = cursor.uint(1), cursor.uint(1), cursor.uint(1)
    if version not in (1, 2):
        raise Unsupported(f"dataspaces of version {version} are not known")
    is_null = cursor.uint(1) == 2 and version == 2
    cursor.take(4 if version == 1 else 0)
    if rank > MAX_RANK:
        raise Damaged(f"a shape of {rank} dimensions", cursor.offset)
    shape = tuple(cursor.length() for _ in range(rank))
    if prod(size or 1 for size in shape) >= 1 << 63:
        raise Damaged("its shape is larger than any array can be", cursor.offset)
    limits = tuple(cursor.length() for _ in range(rank)) if flags & 1 else shape
    return Dataspace(None if is_null else shape, limits)


def datatype(cursor: Cursor, depth: int = 0) -> Datatype:
    """The datatype whose description begins at the cursor, which is left after it."""
    if depth > MAX_DEPTH:
        raise Damaged("a datatype within a datatype without end", cursor.offset)
    first, bits, nbytes = cursor.uint(1), cursor.uint(3), cursor.uint(4)
    kind, version = first & 15, first >> 4
    if kind >= len(_CLASSES):
        raise Unsupported(f"the datatype class {kind} is not known")
    if kind == INTEGER:
        return _integer(cursor, bits, nbytes)
    if kind == FLOAT:
        return _float(cursor, bits, nbytes)
    if kind == TEXT:
        return Datatype(kind, nbytes)
    if kind == RECORD:
        return _record(cursor, bits & 0xFFFF, nbytes, version, depth)
    if kind == ENUM:
        return _enumeration(cursor, bits & 0xFFFF, nbytes, version, depth)
    if kind == SEQUENCE:
        base = datatype(cursor, depth + 1)
        return Datatype(TEXT if bits & 15 == 1 else SEQUENCE, nbytes, base=base)
    if kind == COMPLEX:
        part = datatype(cursor, depth + 1)
        return _complex(kind, nbytes, part) if bits & 1 or nbytes == 2 * part.nbytes else Datatype(kind, nbytes)
    cursor.take({OPAQUE: bits & 0xFF, BITS: 4, 2: 2}.get(kind, 0))
    if kind == ARRAY:
        _array(cursor, version, depth)
    return Datatype(kind, nbytes)


def _integer(cursor: Cursor, bits: int, nbytes: int) -> Datatype:
    offset, precision = cursor.uint(2), cursor.uint(2)
    whole = (offset, precision) == (0, 8 * nbytes) and nbytes in (1, 2, 4, 8)
    return Datatype(INTEGER, nbytes, f"{'I' if bits & 8 else 'U'}{precision}" if whole else "", bool(bits & 1), nbytes)


def _float(cursor: Cursor, bits: int, nbytes: int) -> Datatype:
    offset, precision, _, exponent, _, mantissa, _ = (cursor.uint(width) for width in (2, 2, 1, 1, 1, 1, 4))
    whole = (offset, precision) == (0, 8 * nbytes) and not bits & 0x40  # that is the byte order of a VAX
    return Datatype(FLOAT, nbytes, _FLOATS.get((nbytes, exponent, mantissa), "") if whole else "", bool(bits & 1), nbytes)


def _complex(kind: int, nbytes: int, part: Datatype) -> Datatype:
    encoding = {"F32": "C64", "F64": "C128"}.get(part.encoding, "")
    return Datatype(kind, nbytes, encoding, part.big_endian, part.nbytes)


def _record(cursor: Cursor, count: int, nbytes: int, version: int, depth: int) -> Datatype:
    """A record; two equal floats in a row, as h5py and MATLAB write them, are a complex number."""
    width = max(1, -(-nbytes.bit_length() // 8))
    fields = []
    for _ in range(count):
        name = cursor.text(1 if version >= 3 else 8)
        offset = cursor.uint(width if version >= 3 else 4)
        cursor.take(28 if version == 1 else 0)
        fields.append((name, offset, datatype(cursor, depth + 1)))
    names = tuple(name for name, _, _ in fields)
    if names in (("r", "i"), ("real", "imag")):
        (_, first, part), (_, second, other) = fields
        if part == other and (first, second, nbytes) == (0, part.nbytes, 2 * part.nbytes):
            return _complex(RECORD, nbytes, part)._replace(members=names)
    return Datatype(RECORD, nbytes, members=names)


def _enumeration(cursor: Cursor, count: int, nbytes: int, version: int, depth: int) -> Datatype:
    """An enumeration is read as its integers; that of h5py for bool is one."""
    base = datatype(cursor, depth + 1)
    names = tuple(cursor.text(1 if version >= 3 else 8) for _ in range(count))
    cursor.take(count * base.nbytes)
    is_bool = nbytes == 1 and sorted(names) == ["FALSE", "TRUE"]
    return base._replace(kind=ENUM, encoding="BOOL" if is_bool else base.encoding, base=base, members=names)


def _array(cursor: Cursor, version: int, depth: int) -> None:
    rank = cursor.uint(1)
    cursor.take((3 if version < 3 else 0) + rank * (8 if version < 3 else 4))
    datatype(cursor, depth + 1)
