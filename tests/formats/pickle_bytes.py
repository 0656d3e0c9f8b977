"""Pickles written instruction by instruction, and archives of torch around them: what no library would write."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

PROTO, STOP, MARK, REDUCE, BUILD, EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT = b"\x80\x02", b".", b"(", b"R", b"b", b")", b"]", b"}"
NONE, NEWFALSE, TUPLE, TUPLE1, TUPLE2, SETITEM, SETITEMS, APPEND = b"N", b"\x89", b"t", b"\x85", b"\x86", b"s", b"u", b"a"


def name(module: str, attribute: str) -> bytes:
    """Push a global."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value: str) -> bytes:
    """Push a text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """Push an integer."""
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def called(module: str, attribute: str, *args: bytes) -> bytes:
    """Push the result of calling a global with arguments, each pushed by some instructions."""
    return name(module, attribute) + MARK + b"".join(args) + TUPLE + REDUCE


def tensor(key: str, shape: tuple[int, ...], storage: str = "FloatStorage", numel: int | None = None) -> bytes:
    """Push a contiguous tensor on the storage `key`."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    count = strides[0] * shape[0] if shape else 1
    persistent = MARK + text("storage") + name("torch", storage) + text(key) + text("cpu")
    persistent += integer(count if numel is None else numel) + TUPLE + b"Q"
    dims = [MARK + b"".join(map(integer, values)) + TUPLE for values in (shape, strides[: len(shape)])]
    hooks = called("collections", "OrderedDict")
    return called("torch._utils", "_rebuild_tensor_v2", persistent, integer(0), *dims, NEWFALSE, hooks)


def mapping(pairs: Mapping[str, bytes]) -> bytes:
    """Push a dict of pushed values."""
    return EMPTY_DICT + MARK + b"".join(text(key) + value for key, value in pairs.items()) + SETITEMS


def pickle_of(value: bytes) -> bytes:
    """A complete pickle of one pushed value."""
    return PROTO + value + STOP


def write_archive(path: Path, value: bytes, storages: Mapping[str, bytes], **more: bytes) -> Path:
    """An archive as torch writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", value)
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
        for member, raw in more.items():
            archive.writestr(f"archive/{member}", raw)
    return path
