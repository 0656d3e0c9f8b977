"""Arrays as NumPy writes them: the header of `.npy`, the names of its types, members of archives.

Layout of `.npy` (NEP 1, `numpy/lib/_format_impl.py`): `\\x93NUMPY`, two version bytes, the header's length (u16 for version 1,
u32 for 2 and 3), a Python dict literal with `descr`, `fortran_order`, `shape`, then the data. The literal is matched, never
evaluated. The fields of a structured array lie at regular steps of its records, so each is an array of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import FileIO
from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.inert import Notes, element_count, printable
from diffai_stream.formats.zip_members import Member
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.spill import spilled
from diffai_stream.storage.swap import swapped

MAGIC = b"\x93NUMPY"
MAX_LITERAL_NBYTES = 65_536
_USUAL_HEADER_NBYTES = 512
_ITEM = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w{1,20})(?P=quote)\s*:\s*"""
    r"""(?:'(?P<text>[^']*)'|"(?P<text2>[^"]*)"|(?P<flag>True|False)|\((?P<shape>[\dL,\s]*)\)"""
    r"""|\[(?P<fields>(?:\([^()\[\]]*\)[,\s]*)*)\])\s*(?:,|$)""",
    re.DOTALL,
)
_FIELD = re.compile(r"""\(\s*'(?P<name>[^']*)'\s*,\s*'(?P<dtype>[^']*)'\s*,?\s*\)[,\s]*""")
_DIM = re.compile(r"\s*(\d{1,20})L?\s*")
NUMPY_ENCODINGS = {
    **{"f2": "F16", "f4": "F32", "f8": "F64", "b1": "BOOL", "c8": "C64", "c16": "C128"},
    **{f"{kind.lower()}{bits // 8}": f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)},
}


Locate = Callable[[int, int], Extent]


class Field(NamedTuple):
    """A field of a structured array, `offset` bytes into each record."""

    name: str
    dtype: str
    offset: int


class Header(NamedTuple):
    """What an `.npy` header says: `data` is the offset of the array from the magic on; a structured one has `fields`."""

    dtype: str
    fortran: bool
    shape: tuple[int, ...]
    data: int
    fields: tuple[Field, ...] = ()

    @property
    def itemsize(self) -> int:
        """Bytes of one element, or record. Raises ValueError for a dtype that has no encoding."""
        if self.fields:
            return int(self.dtype[2:])
        row = ENCODINGS[numpy_encoding(self.dtype)]
        return row.itemsize * row.components


def array_name(member_name: str) -> str:
    """The name of the array in a member of an archive."""
    return member_name.removesuffix(".npy")


def member_entries(file: FileIO, member: Member, real_path: str, notes: Notes) -> list[TensorEntry]:
    """The entries of a member that is an `.npy` file. Raises ValueError that says why there is none."""
    raw = member.head(file, _USUAL_HEADER_NBYTES)
    if _header_nbytes(raw) > len(raw):
        raw = member.head(file, min(_header_nbytes(raw), MAX_LITERAL_NBYTES + 12))
    name, header = array_name(member.name), read_header(raw)
    check_payload(name, header, member.nbytes, notes)

    def locate(first: int, nbytes: int) -> Extent:
        if member.deflated:
            return Extent(real_path, member.offset, nbytes, f"deflate:{header.data + first}:{member.stored_nbytes}")
        return Extent(real_path, member.offset + header.data + first, nbytes)

    return array_entries(name, header, locate)


def _header_nbytes(raw: bytes) -> int:
    """Bytes from the magic to the data, as far as the first twelve tell."""
    return 10 + int.from_bytes(raw[8:10], "little") if raw[6:7] == b"\x01" else 12 + int.from_bytes(raw[8:12], "little")


def read_header(raw: bytes) -> Header:
    """The header at the start of some bytes. Raises ValueError for what is not one."""
    if not raw.startswith(MAGIC) or len(raw) < 10:
        raise ValueError(f"it begins {raw[:8].hex(' ')} instead of 93 4e 55 4d 50 59 and a version")
    if raw[6] not in (1, 2, 3):
        raise ValueError(f"version {raw[6]}.{raw[7]} of the .npy format is not known (1, 2 and 3 are)")
    begin, data = (10 if raw[6] == 1 else 12), _header_nbytes(raw)
    nbytes = data - begin
    if nbytes > MAX_LITERAL_NBYTES:
        raise ValueError(f"a header of {nbytes} bytes is not plausible (at most {MAX_LITERAL_NBYTES})")
    if data > len(raw):
        raise ValueError(f"it should end at byte {data}, there are {len(raw)}: truncated")
    return _parsed(raw[begin:data].decode("utf-8" if raw[6] == 3 else "latin-1"), data)


def _parsed(literal: str, data: int) -> Header:
    """The header that a dict literal with descr, fortran_order and shape gives."""
    text = literal.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(f"no dict literal: {text[:40]!r}")
    found, place, body = dict[str, re.Match[str]](), 0, text[1:-1].strip()
    while place < len(body):
        match = _ITEM.match(body, place)
        if match is None and re.match(r"""\s*['"]descr['"]\s*:\s*[\[(]""", body[place:]):
            raise ValueError("a structured array with fields that are arrays or records themselves; save them apart")
        if match is None or match["key"] in found:
            raise ValueError(f"unexpected text in it: {body[place : place + 40]!r}")
        found[match["key"]], place = match, match.end()
    if found.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"its keys are {sorted(found)}")
    descr, order, shape = found["descr"], found["fortran_order"]["flag"], found["shape"]["shape"]
    if order is None or shape is None:
        raise ValueError("fortran_order or shape is of the wrong kind")
    fields, record = _fields(descr["fields"]) if descr["fields"] is not None else ((), 0)
    dtype = f"|V{record}" if fields else descr["text"] if descr["text"] is not None else descr["text2"]
    if dtype is None:
        raise ValueError("descr is no type string")
    return Header(dtype, order == "True", _dims(shape), data, fields)


def _fields(text: str) -> tuple[tuple[Field, ...], int]:
    """The named fields of a structured descr, and the bytes of a record; fields without a name are padding."""
    found, place, offset = list[Field](), 0, 0
    while place < len(text):
        match = _FIELD.match(text, place)
        if match is None:
            raise ValueError(f"a structured array with a field that is no plain number: {text[place : place + 40]!r}")
        name, dtype = match["name"], match["dtype"]
        if name:
            found.append(Field(name, dtype, offset))
        padding = re.fullmatch(r"\|V(\d{1,9})", dtype)
        offset += int(padding[1]) if padding and not name else Header(dtype, False, (), 0).itemsize
        place = match.end()
    return tuple(found), offset


def _dims(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not parts[-1].strip():
        parts.pop()
    matches = [_DIM.fullmatch(part) for part in parts]
    if None in matches or (len(matches) == 1 and "," not in text):
        raise ValueError(f"shape ({text[:40]}) is no tuple of sizes")
    return tuple(int(match[1]) for match in matches if match)


def numpy_encoding(dtype: str) -> str:
    """The encoding of a numpy type string. Raises ValueError that says why there is none."""
    order, code = dtype[:1], dtype[1:]
    if code.startswith("O") or order == "O":
        raise ValueError("an object array holds pickled Python objects, which are never loaded; save it with a number dtype")
    if code == "V2":
        raise ValueError(
            "dtype V2 is how numpy saves ml_dtypes.bfloat16, it no longer says which type it was; save as safetensors"
        )
    if code not in NUMPY_ENCODINGS or order not in "<>|=":
        raise ValueError(f"numpy dtype {dtype[:20]!r} has no encoding here (numbers are f2 f4 f8, i1 to u8, b1, c8 c16)")
    return NUMPY_ENCODINGS[code]


def check_payload(name: str, header: Header, file_nbytes: int, notes: Notes) -> int:
    """Bytes that an array takes, of `file_nbytes` from its magic on. Raises ValueError when they are not all there."""
    nbytes = header.itemsize * element_count(header.shape)
    there = file_nbytes - header.data
    if there < nbytes:
        raise ValueError(f"its data takes {nbytes} bytes, only {max(there, 0)} follow the header: truncated")
    if there > nbytes:
        notes.add("trailing_bytes", f"{there - nbytes} bytes follow the data of {name!r}", printable(name))
    return nbytes


def array_entries(name: str, header: Header, locate: Locate, part: str = "weights") -> list[TensorEntry]:
    """The entry of an array, or of each field of a structured one; `locate(first, nbytes)` gives the extent of its bytes.

    An extent may be a deflate stream. Raises ValueError that says why there is none.
    """
    if header.fields:
        return [_field_entry(f"{name}.{field.name}", header, field, locate, part) for field in header.fields]
    strides = fortran_strides(header.shape) if header.fortran and len(header.shape) > 1 else None
    extent = locate(0, header.itemsize * element_count(header.shape))
    return [_entry(name, header.shape, header.dtype, extent, strides, part)]


def _field_entry(name: str, header: Header, field: Field, locate: Locate, part: str) -> TensorEntry:
    """One field: a strided view of all the records."""
    record, item = header.itemsize, Header(field.dtype, False, (), 0).itemsize
    if record % item or not 0 <= field.offset <= record - item:
        raise ValueError(f"its field {field.name[:40]!r} does not lie at steps of its own size in the records")
    steps = fortran_strides(header.shape) if header.fortran else c_strides(header.shape)
    numel = element_count(header.shape)
    extent = locate(field.offset, (numel - 1) * record + item if numel else 0)
    return _entry(name, header.shape, field.dtype, extent, tuple(step * (record // item) for step in steps), part)


def _entry(
    name: str, shape: tuple[int, ...], dtype: str, extent: Extent, strides: tuple[int, ...] | None, part: str
) -> TensorEntry:
    encoding = numpy_encoding(dtype)
    itemsize = ENCODINGS[encoding].itemsize
    is_swapped = dtype.startswith(">") and itemsize > 1
    if extent.codec.startswith("deflate:") and (strides or is_swapped):
        extent = spilled(extent)
    if is_swapped:
        extent = swapped(extent, itemsize)
    return TensorEntry(name, shape, encoding, {"data": Component((extent,), encoding, shape, strides)}, part=part)


def fortran_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of columns-first order, in elements."""
    return tuple(element_count(shape[:axis]) for axis in range(len(shape)))


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of rows-first order, in elements."""
    return tuple(element_count(shape[axis + 1 :]) for axis in range(len(shape)))
