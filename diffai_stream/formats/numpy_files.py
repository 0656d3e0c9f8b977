"""NumPy files: `.npy` is one array, `.npz` a zip archive of such files (`npy.py` says how one is written).

A stored member is an extent in place; its data is not aligned in the file (`zip_members.py` says where it lies). Of a deflated
one `Extent(path, offset, nbytes, codec)` means: `offset` is where its raw deflate stream (no zlib header) begins in the file,
`nbytes` how many bytes the array takes, and `codec` is `deflate:<header_len>:<compressed_nbytes>`: inflate that many compressed
bytes, drop `header_len` of the result, yield `nbytes`. Columns first (`fortran_order`) or big-endian it is `spill` instead,
which is read out of order.
"""

from __future__ import annotations

import os
from io import FileIO

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, open_regular, printable, read_exactly
from diffai_stream.formats.npy import (
    MAGIC,
    MAX_LITERAL_NBYTES,
    array_entries,
    array_name,
    check_payload,
    member_entries,
    read_header,
)
from diffai_stream.formats.zip_members import LOCAL_HEADER, read_members
from diffai_stream.storage.extent import Extent, FileStamp


def probe(path: str, head: bytes) -> bool:
    """Whether it is an `.npy` file, or a zip archive whose first member is one (empty archives count by their suffix)."""
    if head.startswith(b"PK\x03\x04") and len(head) >= LOCAL_HEADER.size:
        name_nbytes = LOCAL_HEADER.unpack_from(head)[9]
        return head[LOCAL_HEADER.size : LOCAL_HEADER.size + name_nbytes].endswith(b".npy")
    return head.startswith(MAGIC)


def index(path: str) -> Checkpoint:
    """The arrays of one file in file order; an `.npy` array is named by the file's stem, a member by its own name.

    Raises FormatError when the file is neither; an array of a kind that cannot be read is a TensorError in `errors`.
    """
    notes, errors = Notes(path), list[TensorError]()
    with open_regular(path) as (file, stamp), collection_paused():
        if read_exactly(file, 0, min(6, stamp.nbytes), path) == MAGIC:
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
    raw = read_exactly(file, 0, min(stamp.nbytes, 12 + MAX_LITERAL_NBYTES), path)
    try:
        header = read_header(raw)
    except ValueError as error:
        raise FormatError(f"not a readable .npy file: {error}", path=path, offset=0) from None
    try:
        check_payload(name, header, stamp.nbytes, notes)
        return array_entries(name, header, lambda first, nbytes: Extent(stamp.path, header.data + first, nbytes))
    except ValueError as error:
        errors.append(TensorError(str(error), path=path, tensor=printable(name), offset=header.data))
        return []


def _archive(file: FileIO, stamp: FileStamp, path: str, notes: Notes, errors: list[TensorError]) -> list[TensorEntry]:
    members, flaws = read_members(file, stamp.nbytes, path)
    errors += [TensorError(flaw.message, path=path, tensor=array_name(flaw.tensor or ""), offset=flaw.offset) for flaw in flaws]
    arrays = [member for member in members if member.name.endswith(".npy")]
    if members and not arrays:
        raise FormatError(f"a zip archive without .npy members (it holds {members[0].name!r}): not an .npz file", path=path)
    for member in members:
        if not member.name.endswith(".npy"):
            notes.add("ignored_member", f"the member {member.name!r} is no array", member.name)
    tensors: list[TensorEntry] = []
    for member in arrays:
        try:
            tensors += member_entries(file, member, stamp.path, notes)
        except ValueError as error:
            errors.append(TensorError(str(error), path=path, tensor=array_name(member.name), offset=member.offset))
    return tensors
