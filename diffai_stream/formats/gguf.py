"""GGUF, the files of llama.cpp: a header (`gguf_header.py`), then the data of each tensor at an aligned offset.

Sizes are declared with the fastest axis first, here they are reversed as NumPy counts them. A model may be split into
`name-00001-of-00003.gguf` and so on: whichever part is named, all are read. Types and block sizes: `encodings/ggml.py`.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from diffai_stream.encodings.ggml import OPAQUE, TYPES, GgmlType
from diffai_stream.errors import CheckpointError, FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Component, Oddity, TensorEntry
from diffai_stream.formats.gguf_header import Declared, Header, read_header
from diffai_stream.formats.inert import Notes, collection_paused, element_count, file_error, listed, open_regular, read_at
from diffai_stream.formats.snapshots import blob_identity, cached_names, is_cache_root, snapshot_of
from diffai_stream.storage.extent import Extent, FileStamp

_MAGIC = b"GGUF"
_OLD_MAGICS = (b"lmgg", b"fmgg", b"tjgg", b"algg")  # ggml, ggmf, ggjt, ggla: llama.cpp before August 2023
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_COMPANION = re.compile(r"mmproj.*|.*imatrix.*", re.IGNORECASE)  # beside a model, and none itself
_SPLIT = "split."
_MAX_TOLD = 100
_TIED = {"output.weight": "token_embd.weight"}


class _Placed(NamedTuple):
    """A declared tensor with its size in bytes, None when its type is not known."""

    begin: int
    nbytes: int | None
    name: str
    shape: tuple[int, ...]
    kind: GgmlType


class _File:
    """What is known of one file while its declarations are judged, and the lists that grow."""

    def __init__(self, path: str, stamp: FileStamp, header: Header, notes: Notes) -> None:
        self.path, self.stamp, self.header, self.notes = path, stamp, header, notes
        self.data_nbytes = max(stamp.nbytes - header.data_start, 0)
        self.errors: list[CheckpointError] = []
        self.tensors: list[TensorEntry] = []

    def fail(self, name: str, message: str, offset: int) -> None:
        self.errors.append(TensorError(message, path=self.path, tensor=name, offset=offset))

    def aligned(self, place: int) -> int:
        return -(-place // self.header.alignment) * self.header.alignment


def probe(path: str, head: bytes) -> bool:
    """Whether it is a GGUF file or one of its forerunners, or a directory with GGUF files and no safetensors."""
    if head:
        return head.startswith((_MAGIC, *_OLD_MAGICS))
    if not os.path.isdir(path):
        return False
    names = cached_names(path) if is_cache_root(path) else _listing(path)
    return any(map(_is_gguf, names)) and not any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names)


def index(path: str) -> Checkpoint:
    """The tensors of a file, or of all parts of a split one, in the order of their offsets.

    Raises FormatError when no header can be read; a part or a tensor that cannot is an error in `errors`, each by name.
    """
    notes, file = Notes(path), path
    if os.path.isdir(path):
        file = _only_model(snapshot_of(path) if is_cache_root(path) else path, notes)
    with collection_paused():
        match = _PART.fullmatch(os.path.basename(file))
        if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
            found = _read(file)
            return _checkpoint(path, [found], [*_lone_part(found)], notes)
        return _split(path, os.path.dirname(file), match, notes)


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _listing(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError as error:
        raise file_error(directory, error) from None


def _only_model(directory: str, notes: Notes) -> str:
    """The one model of a directory, by its first part. Raises FormatError when there are several to choose from."""
    models: dict[str, str] = {}
    for name in filter(_is_gguf, _listing(directory)):
        match = _PART.fullmatch(name)
        models.setdefault(f"{match['stem']} of {match['count']}" if match else name, name)
    chosen = [name for name in models.values() if not _COMPANION.fullmatch(name)] or list(models.values())
    if len(chosen) > 1:
        raise FormatError(f"several GGUF models in this directory, name one of them: {listed(chosen)}", path=directory)
    if others := [name for name in models.values() if name not in chosen]:
        notes.add("ignored_weights", f"not read, taken for companions of the model: {listed(others)}")
    return os.path.join(directory, chosen[0])


def _split(path: str, directory: str, match: re.Match[str], notes: Notes) -> Checkpoint:
    """All parts of a series; what cannot be read is an error, unless nothing can."""
    files: list[_File] = []
    errors: list[CheckpointError] = []
    missing: list[str] = []
    present = set(_listing(directory or "."))
    for number in range(1, int(match["count"]) + 1):
        part = os.path.join(directory, f"{match['stem']}-{number:05}-of-{match['count']}.gguf")
        if os.path.basename(part) not in present:
            missing.append(part)
            continue
        try:
            files.append(_read(part))
        except FormatError as error:
            errors.append(error)
    for part in missing[: 1 if len(missing) > _MAX_TOLD else None]:
        more = f"; {len(missing) - 1} more parts are missing too" if len(missing) > _MAX_TOLD else ""
        errors.append(FormatError(f"this part of the model is missing{more}", path=part))
    if not files:
        raise errors[0]
    _check_split(files, int(match["count"]), notes, bool(errors))
    return _checkpoint(path, files, errors, notes)


def _check_split(files: list[_File], count: int, notes: Notes, is_partial: bool) -> None:
    """Note what the metadata of the parts says against their names and number."""
    for found in files:
        told = found.header.metadata.get("split.count", "")
        if told != str(count):
            part = os.path.basename(found.path)
            notes.add("wrong_split_count", f"split.count of {part!r} is {told or 'absent'}, its name says {count}")
    declared = files[0].header.metadata.get("split.tensors.count")
    present = sum(len(found.header.tensors) for found in files)
    if declared is not None and not is_partial and declared != str(present):
        notes.add("wrong_tensor_count", f"split.tensors.count is {declared}, the parts declare {present}")


def _lone_part(found: _File) -> list[CheckpointError]:
    """The error for a part whose name no longer tells where the others are."""
    metadata = found.header.metadata
    count = metadata.get("split.count", "")
    if not count.isdecimal() or int(count) < 2:
        return []
    number = metadata.get("split.no", "")
    which = f"part {int(number) + 1}" if number.isdecimal() else "a part"
    named = f"model-00001-of-{int(count):05}.gguf"
    return [
        FormatError(f"{which} of {count} by its metadata; the others are found when it is named like {named}", path=found.path)
    ]


def _checkpoint(path: str, files: list[_File], errors: list[CheckpointError], notes: Notes) -> Checkpoint:
    metadata: dict[str, str] = {}
    tensors: dict[str, TensorEntry] = {}
    identities: dict[str, str] = {}
    for found in files:
        for key, value in found.header.metadata.items():
            if not key.startswith(_SPLIT) and metadata.setdefault(key, value) != value:
                metadata[f"{key}@{os.path.basename(found.path)}"] = value
        errors += found.errors
        identities |= blob_identity(found.stamp.path)
        for entry in found.tensors:
            if tensors.setdefault(entry.name, entry) is not entry:
                errors.append(TensorError("an earlier part holds it too, that one counts", path=found.path, tensor=entry.name))
    oddities: list[Oddity] = [oddity for found in files for oddity in found.notes.oddities()]
    failed = {error.tensor for error in errors}
    return Checkpoint(
        path=path,
        format="gguf",
        tensors=tuple(tensors.values()),
        metadata=metadata,
        stamps={found.stamp.path: found.stamp for found in files},
        oddities=(*oddities, *notes.oddities()),
        errors=tuple(errors),
        aliases={name: kept for name, kept in _TIED.items() if kept in tensors and name not in tensors and name not in failed},
        identities=identities,
        container="directory" if os.path.isdir(path) else "file",
    )


def _read(path: str) -> _File:
    """One file. Raises FormatError when its header cannot be read."""
    notes = Notes(path)
    with open_regular(path) as (file, stamp):
        magic = read_at(file, 0, 4)
        if magic in _OLD_MAGICS:
            message = "a file of llama.cpp from before GGUF (2023), which is no longer read; convert the original weights again"
            raise FormatError(message, path=path, offset=0)
        if magic != _MAGIC:
            raise FormatError(f"not a GGUF file: it begins {magic.hex(' ')} instead of 47 47 55 46", path=path, offset=0)
        header = read_header(file, stamp.nbytes, path, notes)
    found = _File(path, stamp, header, notes)
    _take_tensors(_placed(found), found)
    return found


def _placed(found: _File) -> list[_Placed]:
    """The tensors whose size makes sense, in file order; the others become errors."""
    placed = []
    for declared in _unique(found):
        name = declared.name.decode("utf-8", "backslashreplace")
        try:
            declared.name.decode("utf-8")
            placed.append(_sized(name, declared))
        except UnicodeDecodeError:
            found.fail(name, "its name is not UTF-8 text", declared.place)
        except ValueError as error:
            found.fail(name, str(error), declared.place)
    placed.sort(key=lambda tensor: (tensor.begin, tensor.nbytes or 0, tensor.name))
    return placed


def _unique(found: _File) -> list[Declared]:
    """Each name once; a name whose declarations disagree is an error and left out."""
    by_name: dict[bytes, list[Declared]] = {}
    for declared in found.header.tensors:
        by_name.setdefault(declared.name, []).append(declared)
    kept = []
    for raw, candidates in by_name.items():
        name = raw.decode("utf-8", "backslashreplace")
        if len({declared[1:4] for declared in candidates}) > 1:
            found.fail(name, f"declared {len(candidates)} times with different places or sizes", candidates[1].place)
            continue
        if len(candidates) > 1:
            found.notes.add("duplicate_tensor", f"{name!r} is declared {len(candidates)} times alike", name)
        kept.append(candidates[0])
    return kept


def _sized(name: str, declared: Declared) -> _Placed:
    """Shape and bytes of a declaration. Raises ValueError when they contradict each other."""
    if declared.dims is None:
        raise ValueError("its number of dimensions is larger than any array library knows")
    shape, numel = declared.dims[::-1], element_count(declared.dims)
    kind = TYPES.get(declared.kind)
    if kind is None:
        unknown = GgmlType(declared.kind, OPAQUE.get(declared.kind, ""), 1, 0)
        return _Placed(declared.offset, None, name, shape, unknown)
    if kind.block > 1 and (not shape or shape[-1] % kind.block):
        raise ValueError(f"its shape {list(shape)!s:.60} has no whole number of {kind.name} blocks of {kind.block} in a row")
    return _Placed(declared.offset, numel // kind.block * kind.nbytes, name, shape, kind)


def _take_tensors(placed: list[_Placed], found: _File) -> None:
    """One walk in file order: what overlaps, lies outside or cannot be decoded is an error, holes are noted."""
    covered: int | None = 0
    claimed, owner = 0, ""
    for tensor in placed:
        begin, nbytes, name = tensor[:3]
        if covered is not None and found.aligned(covered) < begin <= found.data_nbytes:
            found.notes.add("gap", f"{begin - covered} unused bytes before {name!r}", name)
        covered = None if nbytes is None else max(covered or begin, begin + nbytes)
        try:
            if nbytes and begin < claimed:
                found.notes.add("overlapped", f"{owner!r} shares bytes with {name!r}, one of them is wrong", owner)
                raise ValueError(f"overlaps {owner!r}, which reaches to offset {found.header.data_start + claimed}")
            found.tensors.append(_entry(tensor, found))
            if nbytes and begin + nbytes > claimed:
                claimed, owner = begin + nbytes, name
        except ValueError as error:
            found.fail(name, str(error), found.header.data_start + begin)
    if covered is not None and found.data_nbytes > found.aligned(covered):
        found.notes.add("trailing_bytes", f"{found.data_nbytes - covered} bytes follow the last tensor")


def _entry(tensor: _Placed, found: _File) -> TensorEntry:
    begin, nbytes, name, shape, kind = tensor
    if nbytes is None or not kind.encoding:
        told = f" ({kind.name})" if kind.name else ""
        raise ValueError(f"its type {kind.number}{told} cannot be decoded; quantize the model to another type")
    if begin + nbytes > found.data_nbytes:
        missing = begin + nbytes - max(begin, found.data_nbytes)
        told = f"{missing} of its {nbytes} bytes lie beyond the end of the file at {found.stamp.nbytes}"
        raise ValueError(f"{told}: truncated, or a bad offset")
    if begin % found.header.alignment:
        found.notes.add("unaligned", f"{name!r} begins at no multiple of the alignment {found.header.alignment}", name)
    extent = Extent(found.stamp.path, found.header.data_start + begin, nbytes)
    if kind.block == 1:
        return TensorEntry(name, shape, kind.encoding, {"data": Component((extent,), kind.encoding, shape)})
    stored = (*shape[:-1], shape[-1] // kind.block * kind.nbytes)
    return TensorEntry(name, shape, kind.encoding, {"data": Component((extent,), "U8", stored)})
