"""NumPy files: `.npy` is one array, `.npz` a zip archive of such files.

Layout of `.npy` (NEP 1, `numpy/lib/_format_impl.py`): `\\x93NUMPY`, two version bytes, the header's length (u16 for version 1,
u32 for 2 and 3), a Python dict literal with `descr`, `fortran_order`, `shape`, then the data. The literal is matched, never
evaluated. The data of an `.npz` member is not aligned in the file (`zip_members.py` says where it lies).

A stored member is an extent in place. Of a deflated one `Extent(path, offset, nbytes, codec)` means: `offset` is where its raw
deflate stream (no zlib header) begins in the file, `nbytes` how many bytes the array takes, and `codec` is
`deflate:<header_len>:<compressed_nbytes>`: inflate that many compressed bytes, drop `header_len` of the result, yield `nbytes`.
Columns first (`fortran_order`) or big-endian it is `spill` instead, which is read out of order.
"""

from __future__ import annotations

import os
import re
from io import FileIO
from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, element_count, open_regular, printable, read_exactly
from diffai_stream.formats.zip_members import LOCAL_HEADER, Member, read_members
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.spill import spilled
from diffai_stream.storage.swap import swapped

_MAGIC = b"\x93NUMPY"
_MAX_LITERAL_NBYTES = 65_536
_USUAL_HEADER_NBYTES = 512
_ITEM = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w{1,20})(?P=quote)\s*:\s*"""
    r"""(?:'(?P<text>[^']*)'|"(?P<text2>[^"]*)"|(?P<flag>True|False)|\((?P<shape>[\dL,\s]*)\))\s*(?:,|$)""",
    re.DOTALL,
)
_STRUCTURED = re.compile(r"""['"]descr['"]\s*:\s*[\[(]""")
_DIM = re.compile(r"\s*(\d{1,20})L?\s*")
_ENCODINGS = {
    **{"f2": "F16", "f4": "F32", "f8": "F64", "b1": "BOOL", "c8": "C64", "c16": "C128"},
    **{f"{kind.lower()}{bits // 8}": f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)},
}


class _Header(NamedTuple):
    """What an `.npy` header says: `data` is the offset of the array from the magic on."""

    dtype: str
    fortran: bool
    shape: tuple[int, ...]
    data: int


class _Array(NamedTuple):
    """Where an array is allowed to lie: after the header, `nbytes` bytes in all from the magic on."""

    name: str
    header: _Header
    nbytes: int


def probe(path: str, head: bytes) -> bool:
    """Whether it is an `.npy` file, or a zip archive whose first member is one (empty archives count by their suffix)."""
    if head.startswith(b"PK\x03\x04") and len(head) >= LOCAL_HEADER.size:
        name_nbytes = LOCAL_HEADER.unpack_from(head)[9]
        return head[LOCAL_HEADER.size : LOCAL_HEADER.size + name_nbytes].endswith(b".npy")
    return head.startswith(_MAGIC)


def index(path: str) -> Checkpoint:
    """The arrays of one file in file order; an `.npy` array is named by the file's stem, a member by its own name.

    Raises FormatError when the file is neither; an array of a kind that cannot be read is a TensorError in `errors`.
    """
    notes, errors = Notes(path), list[TensorError]()
    with open_regular(path) as (file, stamp), collection_paused():
        if read_exactly(file, 0, min(6, stamp.nbytes), path) == _MAGIC:
            tensors = _single(file, stamp, path, notes, errors)
        else:
            tensors = _archive(file, stamp, path, notes, errors)
    return Checkpoint(
        path=path,
        format="numpy",
        tensors=tuple(tensors),
        metadata={},
        stamps={stamp.path: stamp},
        oddities=notes.oddities(),
        errors=tuple(errors),
    )


def _single(file: FileIO, stamp: FileStamp, path: str, notes: Notes, errors: list[TensorError]) -> list[TensorEntry]:
    name = os.path.splitext(os.path.basename(path))[0]
    raw = read_exactly(file, 0, min(stamp.nbytes, 12 + _MAX_LITERAL_NBYTES), path)
    try:
        header = _read_header(raw)
    except ValueError as error:
        raise FormatError(f"not a readable .npy file: {error}", path=path, offset=0) from None
    try:
        encoding, nbytes = _payload(_Array(name, header, stamp.nbytes), notes)
    except ValueError as error:
        errors.append(TensorError(str(error), path=path, tensor=printable(name), offset=header.data))
        return []
    return [_entry(name, header, encoding, Extent(stamp.path, header.data, nbytes))]


def _archive(file: FileIO, stamp: FileStamp, path: str, notes: Notes, errors: list[TensorError]) -> list[TensorEntry]:
    members, flaws = read_members(file, stamp.nbytes, path)
    errors += [
        TensorError(flaw.message, path=path, tensor=_array_name(flaw.tensor or ""), offset=flaw.offset) for flaw in flaws
    ]
    arrays = [member for member in members if member.name.endswith(".npy")]
    if members and not arrays:
        raise FormatError(f"a zip archive without .npy members (it holds {members[0].name!r}): not an .npz file", path=path)
    for member in members:
        if not member.name.endswith(".npy"):
            notes.add("ignored_member", f"the member {member.name!r} is no array", member.name)
    tensors = []
    for member in arrays:
        try:
            tensors.append(_member(file, member, stamp.path, notes))
        except ValueError as error:
            errors.append(TensorError(str(error), path=path, tensor=_array_name(member.name), offset=member.offset))
    return tensors


def _array_name(member_name: str) -> str:
    return member_name.removesuffix(".npy")


def _member(file: FileIO, member: Member, real_path: str, notes: Notes) -> TensorEntry:
    raw = member.head(file, _USUAL_HEADER_NBYTES)
    if _header_nbytes(raw) > len(raw):
        raw = member.head(file, min(_header_nbytes(raw), _MAX_LITERAL_NBYTES + 12))
    name, header = _array_name(member.name), _read_header(raw)
    encoding, nbytes = _payload(_Array(name, header, member.nbytes), notes)
    if member.deflated:
        extent = Extent(real_path, member.offset, nbytes, f"deflate:{header.data}:{member.stored_nbytes}")
    else:
        extent = Extent(real_path, member.offset + header.data, nbytes)
    return _entry(name, header, encoding, extent)


def _header_nbytes(raw: bytes) -> int:
    """Bytes from the magic to the data, as far as the first twelve tell."""
    return 10 + int.from_bytes(raw[8:10], "little") if raw[6:7] == b"\x01" else 12 + int.from_bytes(raw[8:12], "little")


def _read_header(raw: bytes) -> _Header:
    """The header at the start of some bytes. Raises ValueError for what is not one."""
    if not raw.startswith(_MAGIC) or len(raw) < 10:
        raise ValueError(f"it begins {raw[:8].hex(' ')} instead of 93 4e 55 4d 50 59 and a version")
    if raw[6] not in (1, 2, 3):
        raise ValueError(f"version {raw[6]}.{raw[7]} of the .npy format is not known (1, 2 and 3 are)")
    begin, data = (10 if raw[6] == 1 else 12), _header_nbytes(raw)
    nbytes = data - begin
    if nbytes > _MAX_LITERAL_NBYTES:
        raise ValueError(f"a header of {nbytes} bytes is not plausible (at most {_MAX_LITERAL_NBYTES})")
    if data > len(raw):
        raise ValueError(f"it should end at byte {data}, there are {len(raw)}: truncated")
    fields = _fields(raw[begin:data].decode("utf-8" if raw[6] == 3 else "latin-1"))
    return _Header(*fields, data)


def _fields(literal: str) -> tuple[str, bool, tuple[int, ...]]:
    """descr, fortran_order and shape of the dict literal."""
    text = literal.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(f"no dict literal: {text[:40]!r}")
    found, place, body = dict[str, re.Match[str]](), 0, text[1:-1].strip()
    if _STRUCTURED.search(body):
        raise ValueError("a structured array mixes types in one element; save its fields as arrays of their own")
    while place < len(body):
        match = _ITEM.match(body, place)
        if match is None or match["key"] in found:
            raise ValueError(f"unexpected text in it: {body[place : place + 40]!r}")
        found[match["key"]], place = match, match.end()
    if found.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"its keys are {sorted(found)}")
    descr, order, shape = found["descr"], found["fortran_order"]["flag"], found["shape"]["shape"]
    if order is None or shape is None:
        raise ValueError("fortran_order or shape is of the wrong kind")
    dtype = descr["text"] if descr["text"] is not None else descr["text2"]
    if dtype is None:
        raise ValueError("descr is no type string")
    return dtype, order == "True", _dims(shape)


def _dims(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not parts[-1].strip():
        parts.pop()
    matches = [_DIM.fullmatch(part) for part in parts]
    if None in matches or (len(matches) == 1 and "," not in text):
        raise ValueError(f"shape ({text[:40]}) is no tuple of sizes")
    return tuple(int(match[1]) for match in matches if match)


def _encoding(dtype: str) -> str:
    """The encoding of a numpy type string. Raises ValueError that says why there is none."""
    order, code = dtype[:1], dtype[1:]
    if code.startswith("O") or order == "O":
        raise ValueError("an object array holds pickled Python objects, which are never loaded; save it with a number dtype")
    if code == "V2":
        raise ValueError(
            "dtype V2 is how numpy saves ml_dtypes.bfloat16, it no longer says which type it was; save as safetensors"
        )
    if code not in _ENCODINGS or order not in "<>|=":
        raise ValueError(f"numpy dtype {dtype[:20]!r} has no encoding here (numbers are f2 f4 f8, i1 to u8, b1, c8 c16)")
    return _ENCODINGS[code]


def _payload(array: _Array, notes: Notes) -> tuple[str, int]:
    """Encoding and bytes of an array. Raises ValueError when it cannot be read or its bytes are not all there."""
    encoding = _encoding(array.header.dtype)
    nbytes = ENCODINGS[encoding].nbytes(element_count(array.header.shape))
    there = array.nbytes - array.header.data
    if there < nbytes:
        raise ValueError(f"its data takes {nbytes} bytes, only {max(there, 0)} follow the header: truncated")
    if there > nbytes:
        notes.add("trailing_bytes", f"{there - nbytes} bytes follow the data of {array.name!r}", printable(array.name))
    return encoding, nbytes


def _entry(name: str, header: _Header, encoding: str, extent: Extent) -> TensorEntry:
    strides = None
    if header.fortran and len(header.shape) > 1:
        strides = tuple(element_count(header.shape[:axis]) for axis in range(len(header.shape)))
    is_swapped = header.dtype.startswith(">") and ENCODINGS[encoding].itemsize > 1
    if extent.codec and (strides or is_swapped):
        extent = spilled(extent)
    if is_swapped:
        extent = swapped(extent, ENCODINGS[encoding].itemsize)
    return TensorEntry(name, header.shape, encoding, {"data": Component((extent,), encoding, header.shape, strides)})
