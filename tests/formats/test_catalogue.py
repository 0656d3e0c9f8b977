"""Opening a path: what decides, and what is said when nothing can be read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.errors import CheckpointError, FormatError, MissingExtraError
from diffai_stream.formats import catalogue
from diffai_stream.formats.base import Checkpoint, Oddity
from diffai_stream.formats.catalogue import FORMATS, FormatRow, open_checkpoint
from diffai_stream.plugins import Catalogue
from tests import hostile_messages  # noqa: F401 - adds to HOSTILE
from tests.assets_hostile import ARRAY, HOSTILE
from tests.checkpoints import write_safetensors

REFUSED = {
    "empty_file": "0 bytes",
    "seven_bytes": "too few",
    "git_lfs_pointer": "git lfs pull",
    "web_page": "web page",
    "unknown_content": "c8 c9 ca cb.*safetensors",
    "missing_file": "no such file",
    "symlink_loop": "loop",
    "named_pipe": "named pipe",
    "device": "character device",
    "unix_socket": "socket",
    "directory_without_weights": "looked for.*config.json",
    "header_of_2_to_60": "1152921504606846976",
    "header_over_the_limit": "100000001",
    "header_cut_off": "truncated",
    "header_nested_too_deeply": "deep",
    "all_shards_missing": "none of the 2 shards",
    "npy_structured": "structured",
    "npy_header_calls_code": "unexpected",
    "npz_without_arrays": "data.pkl",
    "gguf_version_1": "version 1",
    "gguf_big_endian": "big-endian",
    "gguf_before_gguf": "before GGUF",
    "gguf_header_cut_off": "truncated",
    "gguf_tensors_of_2_to_60": "more than",
    "gguf_strings_without_end": "beyond all reason",
    "gguf_arrays_nest": "nested",
    "gguf_several_in_a_directory": "several GGUF.*'Q4_K_M.gguf', 'Q8_0.gguf'",
}
ODD = {
    "trailing_bytes": "trailing_bytes",
    "gap_between_tensors": "gap",
    "leading_space": "leading_whitespace",
    "name_declared_twice_alike": "duplicate_key",
    "metadata_of_numbers": "metadata_not_a_string",
    "metadata_half_a_surrogate": "metadata_not_text",
    "metadata_a_list": "metadata_not_an_object",
    "extra_keys": "extra_keys",
    "unaligned_data": "unaligned",
    "broken_config": "broken_config",
    "npy_trailing_bytes": "trailing_bytes",
    "gguf_key_twice": "duplicate_key",
    "gguf_offset_unaligned": "unaligned",
    "gguf_gap": "gap",
    "gguf_trailing_bytes": "trailing_bytes",
}
SILENT = {"control_characters"}


@pytest.mark.parametrize("flaw", HOSTILE)
def test_no_flaw_is_silent_slow_or_a_crash(flaw, tmp_path):
    path, start = str(HOSTILE[flaw](tmp_path)), time.perf_counter()
    errors, oddities = told(path)
    assert time.perf_counter() - start < 2
    assert flaw in SILENT or errors or oddities
    for error in errors:
        assert isinstance(error, CheckpointError)
        assert error.path
        assert "\n" not in str(error)
        str(error).encode("utf-8")
    for oddity in oddities:
        assert oddity.path
        assert "\n" not in oddity.message
        oddity.message.encode("utf-8")


def told(path: str) -> tuple[tuple[CheckpointError, ...], tuple[Oddity, ...]]:
    """What opening a path reports, whether it succeeds or not."""
    try:
        found = open_checkpoint(path)
    except FormatError as error:
        return (error,), ()
    return found.errors, found.oddities


@pytest.mark.parametrize(("flaw", "message"), REFUSED.items())
def test_refusals_say_why(flaw, message, tmp_path):
    with pytest.raises(FormatError, match=message):
        open_checkpoint(str(HOSTILE[flaw](tmp_path)))


@pytest.mark.parametrize(("flaw", "code"), ODD.items())
def test_oddities_leave_the_tensors_readable(flaw, code, tmp_path):
    found = open_checkpoint(str(HOSTILE[flaw](tmp_path)))
    assert found.errors == ()
    assert found.tensors
    assert code in [oddity.code for oddity in found.oddities]


@pytest.mark.parametrize("name", ["model.safetensors", "weights.bin", "noext", "wrong.npy"])
def test_content_decides_before_the_name(name, tmp_path):
    assert open_checkpoint(str(write_safetensors(tmp_path / name, {"a": ARRAY}))).format == "safetensors"


def test_numpy_content_under_another_name(tmp_path):
    with (tmp_path / "x.safetensors").open("wb") as file:
        np.save(file, ARRAY)
    assert open_checkpoint(str(tmp_path / "x.safetensors")).format == "numpy"


def test_no_permission(tmp_path, monkeypatch):
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    path = write_safetensors(tmp_path / "x.safetensors", {"a": ARRAY})
    monkeypatch.setattr(os, "open", refuse)  # the mode bits would not stop root
    with pytest.raises(FormatError, match="permission"):
        open_checkpoint(str(path))


@pytest.mark.parametrize(
    ("path", "message"), [("a\0b", "not a usable path"), ("x" * 5000, "too long"), ("/dev/null/x", "a part of")]
)
def test_impossible_paths(path, message):
    with pytest.raises(FormatError, match=message):
        open_checkpoint(path)


def test_weights_one_level_down_are_pointed_at(tmp_path):
    write_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", {"a": ARRAY})
    write_safetensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"a": ARRAY})
    with pytest.raises(FormatError, match="name one inside it: 'unet', 'vae'"):
        open_checkpoint(str(tmp_path))


def test_missing_library_is_told_with_its_extra(tmp_path, monkeypatch):
    row = FormatRow("zarr", "zarr array", (".zarr",), "diffai_stream.formats.no_such_module", "zarr")
    monkeypatch.setattr(catalogue, "FORMATS", Catalogue("formats", FormatRow, [row]))
    with pytest.raises(MissingExtraError, match=r"diffai-stream\[zarr\]"):
        open_checkpoint(str(write_safetensors(tmp_path / "x", {"a": ARRAY})))


def test_library_missing_while_indexing(tmp_path, monkeypatch):
    def index(path: str) -> Checkpoint:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    monkeypatch.setattr("diffai_stream.formats.safetensors.index", index)
    with pytest.raises(MissingExtraError, match="needs h5py: pip install"):
        open_checkpoint(str(write_safetensors(tmp_path / "x", {"a": ARRAY})))


def test_rows_are_sound():
    for row in FORMATS.values():
        module = row.load()
        public = {name for name, value in vars(module).items() if callable(value) and value.__module__ == module.__name__}
        assert {name for name in public if not name.startswith("_")} == {"probe", "index"}
        assert row.access in ("mapped", "streamed")


def test_importing_the_catalogue_imports_no_numpy():
    code = "import sys, diffai_stream.formats.catalogue; sys.exit('numpy' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("head", [b"", b"{", b"PK\x03\x04", b"\x93NUMPY", b"\0" * 9, b"\xff" * 4096])
def test_probes_survive_short_heads(head, tmp_path):
    for row in FORMATS.values():
        assert row.load().probe(str(tmp_path / "x"), head) in (True, False)
