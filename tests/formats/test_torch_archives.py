"""Archives of torch that lie about themselves, and numbers in the other byte order."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.formats.pickle_bytes import mapping, pickle_of, tensor, write_archive

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
DATA = VALUES.tobytes()
PICKLE = pickle_of(mapping({"a": tensor("0", (2, 3)), "b": tensor("1", (2, 3))}))


def sound(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "m.pt", PICKLE, {"0": DATA, "1": DATA})


def central_entries(raw: bytes) -> dict[str, int]:
    """Offset of the central directory entry of each member."""
    found, place = {}, raw.index(b"PK\x01\x02")
    while raw[place : place + 4] == b"PK\x01\x02":
        name_nbytes, extra, comment = struct.unpack_from("<3H", raw, place + 28)
        found[raw[place + 46 : place + 46 + name_nbytes].decode()] = place
        place += 46 + name_nbytes + extra + comment
    return found


def patched(path: Path, member: str, at: int, code: str, value: int) -> Path:
    """The archive with one field of a central directory entry changed."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(code, raw, central_entries(bytes(raw))[member] + at, value)
    path.write_bytes(raw)
    return path


FLAWS = {
    "size_beyond_the_file": (20, "<I", 1 << 30),
    "sizes_differ": (24, "<I", 23),
    "claims_gigabytes": (24, "<I", (1 << 32) - 2),
    "encrypted": (8, "<H", 1),
    "unknown_method": (10, "<H", 99),
    "no_header_there": (42, "<I", 5),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_lie_about_one_member_costs_one_tensor(flaw, tmp_path):
    found = open_checkpoint(str(patched(sound(tmp_path), "archive/data/1", *FLAWS[flaw])))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert [error.tensor for error in found.errors] == ["b"]


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_lie_about_the_pickle_is_refused(flaw, tmp_path):
    with pytest.raises(FormatError, match=r"data\.pkl|zip directory|pickle"):
        open_checkpoint(str(patched(sound(tmp_path), "archive/data.pkl", *FLAWS[flaw])))


def test_members_that_share_bytes(tmp_path):
    path = sound(tmp_path)
    raw = bytearray(path.read_bytes())
    entries = central_entries(bytes(raw))
    start = struct.unpack_from("<I", raw, entries["archive/data/0"] + 42)[0]
    struct.pack_into("<I", raw, entries["archive/data/1"] + 42, start)
    path.write_bytes(raw)
    assert [entry.name for entry in open_checkpoint(str(path)).tensors] == ["a"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in (("data.pkl", PICKLE), ("data/0", DATA), ("data/1", DATA), ("data/1", DATA)):
            archive.writestr(f"archive/{name}", raw)
    found = open_checkpoint(str(path))
    assert ([entry.name for entry in found.tensors], [error.tensor for error in found.errors]) == (["a"], ["b"])
    assert "several members" in found.errors[0].message


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_archives_are_refused(keep, tmp_path):
    path = sound(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(FormatError, match="zip directory"):
        open_checkpoint(str(path))


def test_a_storage_shorter_than_its_tensors(tmp_path):
    path = write_archive(tmp_path / "m.pt", PICKLE, {"0": DATA, "1": DATA[:-1]})
    (error,) = open_checkpoint(str(path)).errors
    assert (error.tensor, "which has 23" in error.message) == ("b", True)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">c8"])
def test_big_endian_archives(dtype, tmp_path):
    storages = {">f4": "FloatStorage", ">f8": "DoubleStorage", ">i2": "ShortStorage", ">c8": "ComplexFloatStorage"}
    values = np.arange(6).reshape(2, 3).astype(dtype)
    value = pickle_of(mapping({"a": tensor("0", (2, 3), storages[dtype])}))
    path = write_archive(tmp_path / "m.pt", value, {"0": values.tobytes()}, byteorder=b"big")
    other = write_safetensors(tmp_path / "x.safetensors", {"a": values.astype(dtype.replace(">", "<"))})
    assert list(compare(str(other), str(path)))[-1]["status"] == "equivalent"


def test_zip64(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in (("data.pkl", PICKLE), ("data/0", DATA), ("data/1", DATA)):
            with archive.open(f"archive/{name}", "w", force_zip64=True) as member:
                member.write(raw)
    found = open_checkpoint(str(path))
    assert ([entry.name for entry in found.tensors], found.errors) == (["a", "b"], ())
