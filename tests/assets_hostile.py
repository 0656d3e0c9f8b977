"""Files with one flaw each, by the name of the flaw: `HOSTILE[name](directory)` writes one and gives its path.

None may crash, hang or be read in silence: each is an error, or a warning beside numbers that are right.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.checkpoints import write_cache, write_raw_safetensors, write_safetensors, write_sharded
from tests.gguf_files import FLAWS, f32, u16, write_gguf

Maker = Callable[[Path], Path]
HOSTILE: dict[str, Maker] = {}
ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)
SOUND = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
NEXT = {"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 48]}
DATA = ARRAY.tobytes()


def hostile(make: Maker) -> Maker:
    HOSTILE[make.__name__] = make
    return make


def _header(flaw: str, header: bytes | str | Mapping[str, object], data: bytes = DATA, length: int | None = None) -> None:
    text = header if isinstance(header, bytes | str) else json.dumps(header)
    padded = text if isinstance(header, bytes | str) else text + " " * (-len(text) % 8)
    HOSTILE[flaw] = lambda directory: write_raw_safetensors(directory / "model.safetensors", padded, data, length)


def _entry(flaw: str, **changes: object) -> None:
    """A sound tensor `a` beside `b`, whose header entry is changed."""
    _header(flaw, {"a": SOUND, "b": {**NEXT, **changes}}, DATA * 2)


def _bytes(flaw: str, content: bytes, name: str = "model.safetensors") -> None:
    def make(directory: Path) -> Path:
        (directory / name).write_bytes(content)
        return directory / name

    HOSTILE[flaw] = make


# The container.
_bytes("empty_file", b"")
_bytes("seven_bytes", b"\x10\0\0\0\0\0\0")
_bytes("git_lfs_pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4976698672\n")
_bytes("web_page", b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>")
_bytes("unknown_content", bytes(range(200, 256)) * 8, "weights.xyz")
_bytes("random_safetensors", bytes(range(200, 256)) * 8)
_header("header_of_2_to_60", {"a": SOUND}, length=2**60)
_header("header_over_the_limit", {"a": SOUND}, length=100_000_001)
_header("header_cut_off", {"a": SOUND}, b"", length=5000)
_header("header_of_no_bytes", b"", b"{}")
_header("header_not_utf8", b'{"\xff\xfe":1}')
_header("header_not_json", b'{"a": {"dtype": "F32", ')
_header("header_not_an_object", b"[1, 2, 3]")
_header("header_is_a_number", b"   12345")
_header("header_with_nan", b'{"a": NaN}')
_header("header_nested_too_deeply", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
_header(
    "header_nested_half_deeply",
    b'{"a":' + b"[" * 900 + b"]" * 900 + b', "b":{"dtype":"F32","shape":' + b"[" * 900 + b"]" * 900 + b"}}",
)
_header("header_with_endless_digits", b'{"a":{"dtype":"F32","shape":[' + b"9" * 10_000 + b'],"data_offsets":[0,24]}}')

# One tensor.
_entry("dtype_unknown", dtype="F2_E1M0")
_entry("dtype_not_text", dtype=32)
_entry("shape_of_floats", shape=[2.0, 3])
_entry("shape_of_booleans", shape=[True, 6])
_entry("shape_negative", shape=[-2, -3])
_entry("shape_not_a_list", shape="2x3")
_entry("shape_of_lists", shape=[[2], [3]])
_entry("rank_of_65", shape=[*[1] * 63, 2, 3])
_entry("shape_overflows", shape=[2**62, 2**62, 2**62])
_entry("shape_overflows_but_empty", shape=[0, 2**62, 2**62], data_offsets=[24, 24])
_entry("offsets_reversed", data_offsets=[48, 24])
_entry("offsets_negative", data_offsets=[-24, 0])
_entry("offsets_not_integers", data_offsets=[24.0, 48.0])
_entry("offsets_of_three", data_offsets=[24, 36, 48])
_entry("offsets_beyond_the_end", data_offsets=[24 + 2**40, 48 + 2**40])
_entry("offsets_of_2_to_70", data_offsets=[2**70, 2**70 + 24])
_entry("tensors_overlap", data_offsets=[12, 36])
_entry("tensors_share_bytes", data_offsets=[0, 24])
_entry("size_contradicts_shape", shape=[2, 4])
_entry("bits_misaligned", dtype="F4", shape=[3], data_offsets=[24, 26])
_header("entry_not_an_object", {"a": SOUND, "b": [1, 2]})
_header("entry_incomplete", {"a": SOUND, "b": {"dtype": "F32"}})
_header("entry_repeats_a_key", '{"a":{"dtype":"F32","dtype":"I32","shape":[2,3],"data_offsets":[0,24]}}')
_header("name_declared_twice", f'{{"a":{json.dumps(SOUND)},"a":{json.dumps(NEXT)}}}', DATA * 2)
_header("name_is_half_a_surrogate", '{"\\ud800":' + json.dumps(SOUND) + "}")


@hostile
def data_cut_off(directory: Path) -> Path:
    path = write_safetensors(directory / "model.safetensors", dict.fromkeys("abcd", ARRAY))
    path.write_bytes(path.read_bytes()[:-36])
    return path


# Readable, but odd.
_header("trailing_bytes", {"a": SOUND}, DATA + b"tail")
_header("gap_between_tensors", {"a": SOUND, "b": {**NEXT, "data_offsets": [32, 56]}}, DATA + bytes(8) + DATA)
_header("leading_space", "  " + json.dumps({"a": SOUND}))
_header("name_declared_twice_alike", f'{{"a":{json.dumps(SOUND)},"a":{json.dumps(SOUND)}}}')
_header("metadata_of_numbers", {"__metadata__": {"step": 3}, "a": SOUND})
_header("metadata_half_a_surrogate", '{"__metadata__":{"k":"\\udc00"},"a":' + json.dumps(SOUND) + "}")
_header("metadata_a_list", {"__metadata__": [1], "a": SOUND})
_entry("extra_keys", strides=[3, 1])
_header("control_characters", {"\x1b[2J\r\nevil\0": SOUND, "__metadata__": {"\x1b]0;x\x07": "\x9b"}})


@hostile
def unaligned_data(directory: Path) -> Path:
    return write_safetensors(directory / "model.safetensors", {"odd": np.arange(3, dtype=np.uint8), "b": ARRAY}, aligned=False)


# The path.
@hostile
def missing_file(directory: Path) -> Path:
    return directory / "nothing_here.safetensors"


@hostile
def symlink_loop(directory: Path) -> Path:
    (directory / "one").symlink_to(directory / "two")
    (directory / "two").symlink_to(directory / "one")
    return directory / "one"


@hostile
def named_pipe(directory: Path) -> Path:
    os.mkfifo(directory / "pipe.safetensors")
    return directory / "pipe.safetensors"


@hostile
def device(directory: Path) -> Path:
    return Path("/dev/zero")


@hostile
def unix_socket(directory: Path) -> Path:
    here = os.getcwd()
    os.chdir(directory)  # the path of a socket is limited to about 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
    finally:
        os.chdir(here)
    return directory / "s"


@hostile
def directory_without_weights(directory: Path) -> Path:
    (directory / "model").mkdir()
    (directory / "model" / "config.json").write_text("{}")
    return directory / "model"


# Directories.
TWO = {"model-00001-of-00002.safetensors": {"a": ARRAY, "b": ARRAY}, "model-00002-of-00002.safetensors": {"c": ARRAY}}


@hostile
def shard_missing(directory: Path) -> Path:
    write_sharded(directory / "m", TWO)
    (directory / "m" / "model-00002-of-00002.safetensors").unlink()
    return directory / "m"


@hostile
def all_shards_missing(directory: Path) -> Path:
    write_sharded(directory / "m", TWO)
    for shard in TWO:
        (directory / "m" / shard).unlink()
    return directory / "m"


@hostile
def shard_damaged(directory: Path) -> Path:
    write_sharded(directory / "m", TWO)
    (directory / "m" / "model-00001-of-00002.safetensors").write_bytes(b"version https://git-lfs")
    return directory / "m"


@hostile
def shard_is_a_pipe(directory: Path) -> Path:
    write_sharded(directory / "m", TWO)
    (directory / "m" / "model-00002-of-00002.safetensors").unlink()
    os.mkfifo(directory / "m" / "model-00002-of-00002.safetensors")
    return directory / "m"


def _weight_map(flaw: str, **changes: object) -> None:
    right = {name: shard for shard, tensors in TWO.items() for name in tensors}
    HOSTILE[flaw] = lambda directory: write_sharded(directory / "m", TWO, {**right, **changes})


_weight_map("index_wrong_shard", a="model-00002-of-00002.safetensors")
_weight_map("index_names_nothing", ghost="model-00002-of-00002.safetensors")
_weight_map("index_escapes", x="../../etc/passwd", y="..\\secret.safetensors")
_weight_map("index_absolute", x="/etc/passwd")
_weight_map("index_names_a_number", x=7, y=None, z="", w="a\0b")
HOSTILE["index_lacks_a_name"] = lambda directory: write_sharded(
    directory / "m", TWO, {name: next(iter(TWO)) if name != "c" else list(TWO)[1] for name in "ac"}
)
HOSTILE["index_wrong_total"] = lambda directory: write_sharded(directory / "m", TWO, metadata={"total_size": 1})


@hostile
def index_not_json(directory: Path) -> Path:
    write_sharded(directory / "m", TWO)
    (directory / "m" / "model.safetensors.index.json").write_text("{oops")
    return directory / "m"


@hostile
def series_incomplete(directory: Path) -> Path:
    return write_safetensors(directory / "m" / "model-00002-of-00003.safetensors", {"a": ARRAY}).parent


@hostile
def series_of_99999(directory: Path) -> Path:
    return write_safetensors(directory / "m" / "model-00002-of-99999.safetensors", {"a": ARRAY}).parent


@hostile
def names_collide(directory: Path) -> Path:
    write_safetensors(directory / "m" / "one.safetensors", {"a": ARRAY, "b": ARRAY})
    return write_safetensors(directory / "m" / "two.safetensors", {"a": ARRAY + 1}).parent


@hostile
def broken_config(directory: Path) -> Path:
    path = write_safetensors(directory / "m" / "model.safetensors", {"a": ARRAY})
    (path.parent / "config.json").write_text("{" * 5000)
    return path.parent


@hostile
def blob_missing(directory: Path) -> Path:
    root = write_cache(directory / "models--org--name", {"model.safetensors": b"x"})
    next((root / "blobs").iterdir()).unlink()
    return root


@hostile
def snapshots_without_main(directory: Path) -> Path:
    for commit in ("a" * 40, "b" * 40):
        root = write_cache(directory / "models--org--name", {}, commit)
    (root / "refs" / "main").write_text("../../../../etc")
    return root


# NumPy.
def npy_bytes(array: np.ndarray, **changes: object) -> bytes:
    """An `.npy` file whose header literal is changed: text for text."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    raw = stream.getvalue()
    for old, new in changes.items():
        raw = raw.replace(f"'{old}': ".encode(), f"'{old}': {new}".encode(), 1) if old in ("descr", "shape") else raw
    return raw


def npy_literal(literal: str, data: bytes = DATA, version: int = 1) -> bytes:
    text = literal.encode("latin-1" if version < 3 else "utf-8")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


GOOD_LITERAL = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
_bytes("npy_of_objects", npy_bytes(np.array([{"a": 1}], dtype=object)), "a.npy")
_bytes("npy_structured", npy_bytes(np.zeros(2, dtype=[("x", "<f4", (3,)), ("y", "<i4")])), "a.npy")
_bytes("npy_void_bf16", npy_literal(GOOD_LITERAL.replace("<f4", "|V2")), "a.npy")
_bytes("npy_text", npy_bytes(np.array(["abc"])), "a.npy")
_bytes("npy_cut_off", npy_bytes(ARRAY)[:-5], "a.npy")
_bytes("npy_header_cut_off", npy_bytes(ARRAY)[:40], "a.npy")
_bytes("npy_magic_only", b"\x93NUMPY", "a.npy")
_bytes("npy_version_9", npy_literal(GOOD_LITERAL, version=9), "a.npy")
_bytes("npy_header_of_4_gib", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + GOOD_LITERAL.encode(), "a.npy")
_bytes(
    "npy_header_calls_code",
    npy_literal("{'descr': __import__('os').getpid(), 'fortran_order': False, 'shape': (2, 3)}"),
    "a.npy",
)
_bytes(
    "npy_header_nests",
    npy_literal("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 9000 + ")" * 9000 + "}"),
    "a.npy",
)
_bytes("npy_shape_negative", npy_literal(GOOD_LITERAL.replace("(2, 3)", "(-2, 3)")), "a.npy")
_bytes("npy_shape_overflows", npy_literal(GOOD_LITERAL.replace("(2, 3)", f"({2**62}, {2**62})")), "a.npy")
_bytes("npy_trailing_bytes", npy_bytes(ARRAY) + b"tail", "a.npy")


def _zip(flaw: str, patch: Callable[[bytearray], object], compression: int = zipfile.ZIP_STORED, content: bytes = b"") -> None:
    """A zip of the sound members `a` and `b`, patched as bytes."""

    def make(directory: Path) -> Path:
        with zipfile.ZipFile(directory / "a.npz", "w", compression) as archive:
            archive.writestr("a.npy", npy_bytes(ARRAY))
            archive.writestr("b.npy", content or npy_bytes(ARRAY))
        raw = bytearray((directory / "a.npz").read_bytes())
        patch(raw)
        (directory / "a.npz").write_bytes(raw)
        return directory / "a.npz"

    HOSTILE[flaw] = make


def central(raw: bytearray, offset: int, value: int, width: str = "<I") -> None:
    """Overwrite a field of the last member's central directory entry."""
    struct.pack_into(width, raw, raw.rindex(b"PK\x01\x02") + offset, value)


_zip("npz_encrypted", lambda raw: central(raw, 8, 1, "<H"))
_zip("npz_bzip2", lambda raw: None, zipfile.ZIP_BZIP2)
_zip("npz_stored_size_lies", lambda raw: central(raw, 24, 2**31))
_zip("npz_inflated_size_lies", lambda raw: central(raw, 24, 2**31), zipfile.ZIP_DEFLATED)
_zip("npz_data_outside", lambda raw: central(raw, 42, 2**31))
_zip("npz_directory_cut_off", lambda raw: raw.__delitem__(slice(-40, None)))
_zip("npz_local_name_differs", lambda raw: raw.__setitem__(slice(30, 31), b"z"))
_zip("npz_deflate_damaged", lambda raw: raw.__setitem__(slice(35, 60), b"\xff" * 25), zipfile.ZIP_DEFLATED)
_zip("npz_member_of_objects", lambda raw: None, content=npy_bytes(np.array([{}], dtype=object)))
_zip("npz_member_not_npy", lambda raw: None, content=b"hello")


@hostile
def npz_members_overlap(directory: Path) -> Path:
    """The bytes of `b`, local header and all, are the tail of `a`."""
    with zipfile.ZipFile(directory / "a.npz", "w") as archive:
        archive.writestr("b.npy", npy_bytes(ARRAY))
        inner = archive.infolist()[0].FileHeader() + npy_bytes(ARRAY)
    with zipfile.ZipFile(directory / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy_bytes(ARRAY) + inner)
        archive.writestr("b.npy", npy_bytes(ARRAY))
    raw = bytearray((directory / "a.npz").read_bytes())
    central(raw, 42, raw.index(inner))
    (directory / "a.npz").write_bytes(raw)
    return directory / "a.npz"


@hostile
def npz_name_escapes(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "a.npz", "w") as archive:
        archive.writestr("../../evil.npy", npy_bytes(ARRAY))
        archive.writestr("readme.txt", "no array")
    return directory / "a.npz"


@hostile
def npz_name_twice(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy_bytes(ARRAY))
        archive.writestr("b.npy", npy_bytes(ARRAY))
    raw = (directory / "a.npz").read_bytes().replace(b"b.npy", b"a.npy")
    (directory / "a.npz").write_bytes(raw)
    return directory / "a.npz"


@hostile
def npz_without_arrays(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "a.npz", "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}q\x00.")
    return directory / "a.npz"


# GGUF.
for gguf_flaw, content in FLAWS.items():
    _bytes(gguf_flaw, content, "model.gguf")


@hostile
def gguf_part_missing(directory: Path) -> Path:
    keys = [u16("split.no", 1), u16("split.count", 3)]
    return write_gguf(directory / "model-00002-of-00003.gguf", {"a": f32(ARRAY)}, keys)


@hostile
def gguf_parts_of_99999(directory: Path) -> Path:
    return write_gguf(directory / "model-00002-of-99999.gguf", {"a": f32(ARRAY)})


@hostile
def gguf_name_in_two_parts(directory: Path) -> Path:
    for number in (1, 2):
        keys = [u16("split.no", number - 1), u16("split.count", 2)]
        path = write_gguf(directory / f"model-{number:05}-of-00002.gguf", {"a": f32(ARRAY * number)}, keys)
    return path


@hostile
def gguf_several_in_a_directory(directory: Path) -> Path:
    for name in ("Q4_K_M.gguf", "Q8_0.gguf"):
        write_gguf(directory / "m" / name, {"a": f32(ARRAY)})
    return directory / "m"
