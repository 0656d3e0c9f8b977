"""safetensors: 8 bytes of length N (little endian), N bytes of JSON header, then the data.

Layout and rules: `safetensors/src/tensor.rs` of huggingface/safetensors. The header maps each name to `dtype`, `shape` and
`data_offsets` [begin, end), which count from 8 + N; data is row-major, little endian. The reference reader refuses the whole
file for one flaw; this one reads all that is readable and reports the rest, tensor by tensor.
"""

from __future__ import annotations

import json
from io import FileIO
from typing import NamedTuple

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.inert import (
    MAX_HEADER_NBYTES,
    Notes,
    Repeated,
    collection_paused,
    element_count,
    may_hold_surrogates,
    open_regular,
    parse_json,
    printable,
    read_exactly,
    stand_in,
)
from diffai_stream.formats.snapshots import blob_identity
from diffai_stream.formats.tied import tied_by_metadata
from diffai_stream.storage.extent import Extent, FileStamp

_DTYPES = (
    *("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64"),
    *("F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
)
_BITS = {name: ENCODINGS[name].bits for name in _DTYPES}
_KEYS = {"dtype", "shape", "data_offsets"}
_METADATA = "__metadata__"
_MAX_OFFSET = 2**62
_WHITESPACE = b" \t\r\n"


class _Placed(NamedTuple):
    """A tensor whose offsets make sense; named tuples sort by begin, end, name as the layout does."""

    begin: int
    end: int
    name: str
    entry: dict[str, object]


class _File:
    """What is known of one file while its header is read: places, and the lists that grow."""

    def __init__(self, path: str, stamp: FileStamp, data_start: int) -> None:
        self.path = path
        self.stamp = stamp
        self.data_start = data_start
        self.data_nbytes = stamp.nbytes - data_start
        self.notes = Notes(path)
        self.errors: list[TensorError] = []

    def fail(self, name: str, message: str, begin: int | None = None) -> None:
        offset = None if begin is None else self.data_start + begin
        self.errors.append(TensorError(message, path=self.path, tensor=printable(name), offset=offset))


def probe(path: str, head: bytes) -> bool:
    """Whether a possible length and the opening brace of a header stand at the start."""
    return int.from_bytes(head[:8], "little") <= MAX_HEADER_NBYTES and head[8:].lstrip(_WHITESPACE)[:1] == b"{"


def index(path: str) -> Checkpoint:
    """The tensors of one file, in the order of their offsets.

    Raises FormatError when the header cannot be read (then nothing can); a tensor that cannot is a TensorError in `errors`.
    """
    with open_regular(path) as (file, stamp):
        header = _read_header(file, stamp.nbytes, path)
    try:
        with collection_paused():
            return _index(header, _File(path, stamp, 8 + len(header)))
    except RecursionError:  # JSON nested just below the parser's limit, met again when it is compared or told
        raise FormatError("the header nests JSON too deeply to be genuine", path=path, offset=8) from None


def _index(header: bytes, found: _File) -> Checkpoint:
    path, stamp = found.path, found.stamp
    if header[:1] != b"{":
        found.notes.add("leading_whitespace", "the header begins with white space")
    declared = _unique(parse_json(header, path, start=8), found)
    metadata = _metadata(declared.pop(_METADATA, None), found)
    if may_hold_surrogates(header):
        declared = _utf8_names(declared, found)
        text = {printable(key): printable(value) for key, value in metadata.items()}
        if text != metadata:
            found.notes.add("metadata_not_text", f"{_METADATA} holds half of a surrogate pair, which is escaped here")
        metadata = text
    tensors = _tensors(_placed(declared, found), found)
    return Checkpoint(
        path=path,
        format="safetensors",
        tensors=tensors,
        metadata=metadata,
        stamps={stamp.path: stamp},
        oddities=found.notes.oddities(),
        errors=tuple(found.errors),
        aliases=tied_by_metadata(metadata, declared.keys()),
        identities=blob_identity(stamp.path),
    )


def _read_header(file: FileIO, file_nbytes: int, path: str) -> bytes:
    if file_nbytes < 8:
        raise FormatError(
            f"{file_nbytes} bytes are too few for a safetensors file, whose header length alone takes 8", path=path
        )
    nbytes = int.from_bytes(read_exactly(file, 0, 8, path), "little")
    if nbytes > MAX_HEADER_NBYTES:
        other = stand_in(read_exactly(file, 0, min(64, file_nbytes), path))
        message = other or f"a header of {nbytes} bytes is declared, the format allows {MAX_HEADER_NBYTES}: no safetensors file"
        raise FormatError(message, path=path, offset=0)
    if nbytes == 0:
        raise FormatError("the header is empty", path=path, offset=0)
    if 8 + nbytes > file_nbytes:
        message = f"the header should end at byte {8 + nbytes} but the file has {file_nbytes}: it is truncated, fetch it again"
        raise FormatError(message, path=path, offset=file_nbytes)
    return read_exactly(file, 8, nbytes, path)


def _unique(declared: dict[str, object], found: _File) -> dict[str, object]:
    """The header with each name once; names whose repeats disagree about their place are errors and left out."""
    if not isinstance(declared, Repeated):
        return declared
    values: dict[str, list[object]] = {}
    for name, value in declared.pairs:
        values.setdefault(name, []).append(value)
    kept: dict[str, object] = {}
    for name, candidates in values.items():
        if len(candidates) > 1 and name != _METADATA and len({_offsets_text(value) for value in candidates}) > 1:
            found.fail(name, f"declared {len(candidates)} times with different data_offsets")
            continue
        if len(candidates) > 1:
            differ = "" if all(value == candidates[0] for value in candidates) else " with different content"
            message = f"{name!r} is declared {len(candidates)} times{differ}, the last one counts"
            found.notes.add("duplicate_key", message, printable(name))
        kept[name] = candidates[-1]
    return kept


def _offsets_text(entry: object) -> str:
    return repr(entry.get("data_offsets")) if isinstance(entry, dict) else ""


def _utf8_names(declared: dict[str, object], found: _File) -> dict[str, object]:
    """The tensors whose names are text; half a surrogate pair cannot be printed, matched or stored."""
    kept = {}
    for name, entry in declared.items():
        if printable(name) == name:
            kept[name] = entry
        else:
            found.fail(name, "its name holds half of a surrogate pair, which is no text")
    return kept


def _metadata(declared: object, found: _File) -> dict[str, str]:
    """`__metadata__` as strings; what is not a string is kept as JSON text."""
    if declared is None:
        return {}
    if not isinstance(declared, dict):
        found.notes.add("metadata_not_an_object", f"{_METADATA} is a {type(declared).__name__}, not an object: it is left out")
        return {}
    if isinstance(declared, Repeated):
        found.notes.add("duplicate_key", f"a key occurs twice in {_METADATA}, the last one counts")
    for key in (key for key, value in declared.items() if type(value) is not str):
        found.notes.add("metadata_not_a_string", f"{_METADATA} holds a value for {key!r} that is not a string")
    return {key: value if type(value) is str else json.dumps(value) for key, value in declared.items()}


def _placed(declared: dict[str, object], found: _File) -> list[_Placed]:
    """The tensors with sound offsets, in file order; the others become errors."""
    placed = []
    for name, entry in declared.items():
        try:
            begin, end = _offsets(entry)
        except ValueError as error:
            found.fail(name, str(error))
        else:
            placed.append(_Placed(begin, end, name, entry))  # type: ignore[arg-type]
    placed.sort()
    return placed


def _offsets(entry: object) -> tuple[int, int]:
    if not isinstance(entry, dict):
        raise ValueError(f"its header entry is a {type(entry).__name__}, not an object")
    if not ("dtype" in entry and "shape" in entry and "data_offsets" in entry):
        raise ValueError(f"its header entry lacks {', '.join(sorted(_KEYS - entry.keys()))}")
    if isinstance(entry, Repeated):
        raise ValueError("a key occurs twice in its header entry")
    offsets = entry["data_offsets"]
    if type(offsets) is not list or len(offsets) != 2 or type(offsets[0]) is not int or type(offsets[1]) is not int:
        raise ValueError(f"data_offsets {str(offsets)[:60]} are not two integers")
    begin, end = offsets
    if not 0 <= begin <= end <= _MAX_OFFSET:
        raise ValueError(f"data_offsets {str(offsets)[:60]} are negative, reversed or larger than any file")
    return begin, end


def _tensors(placed: list[_Placed], found: _File) -> tuple[TensorEntry, ...]:
    """One walk in file order: what overlaps, lies outside or contradicts itself is an error, holes are noted.

    Only a tensor that is readable itself can claim bytes against the next, so that one bad offset costs one tensor.
    """
    tensors, covered, claimed, owner = [], 0, 0, ""
    for tensor in placed:
        begin, end, name, entry = tensor
        if covered < begin <= found.data_nbytes:
            found.notes.add(
                "gap", f"{begin - covered} unused bytes at offset {found.data_start + covered}, before {name!r}", name
            )
        covered = max(covered, end)
        try:
            if begin < min(claimed, end):
                found.notes.add("overlapped", f"{owner!r} shares bytes with {name!r}, one of them is wrong", owner)
                raise ValueError(f"overlaps {owner!r}, which reaches to offset {found.data_start + claimed}")
            tensors.append(_entry(tensor, found))
            if end > claimed:
                claimed, owner = end, name
        except ValueError as error:
            found.fail(name, str(error), begin)
        if len(entry) > len(_KEYS):
            extra = ", ".join(repr(key) for key in sorted(entry.keys() - _KEYS))[:80]
            found.notes.add("extra_keys", f"unknown keys in its header entry: {extra}", name)
    if found.data_nbytes > covered:
        place = found.data_start + covered
        found.notes.add("trailing_bytes", f"{found.data_nbytes - covered} bytes follow the last tensor, from offset {place}")
    return tuple(tensors)


def _entry(tensor: _Placed, found: _File) -> TensorEntry:
    begin, end, name, entry = tensor
    dtype, shape, nbytes = entry["dtype"], entry["shape"], end - begin
    if end > found.data_nbytes:
        missing = end - max(begin, found.data_nbytes)
        size = found.stamp.nbytes
        raise ValueError(f"{missing} of its {nbytes} bytes lie beyond the end of the file at {size}: truncated, or bad offsets")
    if type(dtype) is not str or dtype not in _BITS:
        raise ValueError(f"its dtype {str(dtype)[:40]!r} is not known ({nbytes} bytes by its offsets)")
    if type(shape) is not list:
        raise ValueError(f"its shape is a {type(shape).__name__}, not a list")
    nbits = element_count(shape) * _BITS[dtype]
    if nbits != nbytes * 8:
        raise ValueError(_size_message(dtype, shape, nbits, nbytes))
    start, sizes = found.data_start + begin, tuple(shape)
    if start * 8 % _BITS[dtype]:
        found.notes.add("unaligned", f"{name!r} starts at {start}, which is no multiple of its element size", name)
    extent = Extent(found.stamp.path, start, nbytes)
    return TensorEntry(name, sizes, dtype, {"data": Component((extent,), dtype, sizes)})


def _size_message(dtype: str, shape: list[int], nbits: int, nbytes: int) -> str:
    declared = f"{dtype} of shape {str(shape)[:60]}"
    if nbits % 8:
        return f"{declared} takes {nbits} bits, which are no whole bytes; its offsets span {nbytes}"
    return f"{declared} takes {nbits // 8} bytes, its offsets span {nbytes}"
