"""Checkpoints of torch: `.pt`, `.pth`, `.bin`, `.ckpt`, in whichever container torch has written them, and never unpickled.

A pickle is run on a machine that only makes records (`pickled/machine.py`); the bytes of the tensors are read where they lie.
"""

from __future__ import annotations

from io import FileIO
from typing import Any

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.formats.inert import Notes, collection_paused, open_regular, read_exactly
from diffai_stream.formats.pickled.collect import collect
from diffai_stream.formats.pickled.entries import Locate, tensor_entry
from diffai_stream.formats.pickled.quantized_entries import quantized_entry
from diffai_stream.formats.pickled.torch_legacy import Legacy
from diffai_stream.formats.pickled.torch_values import Tensor
from diffai_stream.formats.pickled.torch_zip import Archive, has_pickle
from diffai_stream.formats.zip_members import LOCAL_HEADER
from diffai_stream.storage.extent import FileStamp

_ZIP = b"PK\x03\x04"
_LEGACY = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_TAR = b"ustar"
_ARRAY = "an array of NumPy within the pickle of a torch file, which is not compared"
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".ptl", ".t7", ".pth.tar")
_MEMBERS = ("data.pkl", "byteorder", "version", "constants.pkl", ".format_version", ".storage_alignment")


def probe(path: str, head: bytes) -> bool:
    """Whether it begins as torch writes files: an archive with a pickle, the old magic number, or the older tar."""
    if head.startswith(_ZIP):
        folder, _, member = _first_member(head).rpartition("/")
        if not folder:
            return path.lower().endswith(_SUFFIXES)
        return member in _MEMBERS or has_pickle(path)
    if head[257:262] == _TAR:
        return path.lower().endswith(_SUFFIXES)
    return _LEGACY in head[:32]


def index(path: str) -> Checkpoint:
    """The tensors of one file in the order of its state dict, weights first.

    Raises FormatError when the container or the pickle cannot be read; a tensor that cannot is a TensorError in `errors`.
    """
    notes = Notes(path)
    with open_regular(path) as (file, stamp), collection_paused():
        head = read_exactly(file, 0, min(512, stamp.nbytes), path)
        if head.startswith(_ZIP):
            return _of_archive(Archive(file, stamp.nbytes, path, stamp.path), stamp, notes)
        if head[257:262] == _TAR:
            raise FormatError(
                "a tar archive of torch before 0.2 is not supported; load it with torch and save it again", path=path
            )
        return _of_legacy(file, stamp, path, notes)


def _first_member(head: bytes) -> str:
    if len(head) < LOCAL_HEADER.size:
        return ""
    name_nbytes = LOCAL_HEADER.unpack_from(head)[9]
    return head[LOCAL_HEADER.size : LOCAL_HEADER.size + name_nbytes].decode("utf-8", "replace")


def _of_archive(archive: Archive, stamp: FileStamp, notes: Notes) -> Checkpoint:
    root = archive.value()
    if archive.is_script:
        root = {"model": root, "constants": archive.constants()}
        found = _checkpoint(root, archive.locate, archive.names.told(), stamp, notes)
        return found._replace(hyperparameters={})  # what its modules keep beside tensors is no setting of anyone
    return _checkpoint(root, archive.locate, archive.names.told(), stamp, notes)


def _of_legacy(file: FileIO, stamp: FileStamp, path: str, notes: Notes) -> Checkpoint:
    legacy = Legacy(file, stamp.nbytes, path, stamp.path, notes)
    root = legacy.value()
    return _checkpoint(root, legacy.locate, legacy.names.told(), stamp, notes)


def _checkpoint(root: object, locate: Locate, unlisted: tuple[str, ...], stamp: FileStamp, notes: Notes) -> Checkpoint:
    arrays: list[str] = []

    def describe(name: str, value: Any, part: str) -> list[TensorEntry]:
        if not isinstance(value, Tensor):
            arrays.append(name)
            return []
        entry = tensor_entry if value.quantizer is None else quantized_entry
        return [entry(name, value, locate, part)]

    found = collect(root, describe, notes)
    errors = found.errors
    if found.tensors:  # beside tensors arrays are states of random generators and the like
        for name in arrays:
            notes.add("array_not_compared", f"{name!r} is {_ARRAY}", name)
    else:
        errors += tuple(TensorError(f"it is {_ARRAY}; save it as a tensor", path=notes.path, tensor=name) for name in arrays)
    return Checkpoint(
        path=notes.path,
        format="pytorch",
        tensors=found.tensors,
        metadata={},
        stamps={stamp.path: stamp},
        oddities=notes.oddities(),
        errors=errors,
        aliases=found.aliases,
        hyperparameters=found.hyperparameters,
        unsafe_globals=unlisted,
    )
