"""HDF5 against files that h5py wrote in every generation of the format, and against files that no one should write."""

from __future__ import annotations

import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import ml_dtypes
import numpy as np
import pytest

from diffai_stream.errors import DiffaiError, FormatError, MissingExtraError, TensorError
from diffai_stream.formats import hdf5
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.plan.sources import Source
from diffai_stream.storage.hdf5.chunks import READERS
from tests.arrays import LIBVERS, native, write_hdf5
from tests.equality import differences


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("libver", LIBVERS, ids=str)
def test_every_layout_of_every_generation_holds_what_h5py_wrote(libver, tracked, tmp_path):
    held = write_hdf5(tmp_path / "w.h5", libver, tracked)
    found = open_checkpoint(str(tmp_path / "w.h5"))
    assert (found.format, found.errors, found.oddities) == ("hdf5", (), ())
    assert differences(tmp_path / "w.h5", held, tmp_path, chunk_size=1 << 16) == []


def test_a_changed_number_in_a_packed_chunk_is_seen(tmp_path):
    held = write_hdf5(tmp_path / "w.h5", "latest")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["deflated"][301, 44] += 1
    assert differences(tmp_path / "w.h5", held, tmp_path) == ["deflated: ('changed', [500, 77])"]


def codecs(path) -> dict[str, list[str]]:
    return {
        entry.name: [extent.codec.partition(":")[0] for extent in entry.components["data"].extents]
        for entry in hdf5.index(str(path)).tensors
    }


def test_what_is_stored_as_it_is_is_mapped(tmp_path):
    write_hdf5(tmp_path / "w.h5", "earliest")
    found = codecs(tmp_path / "w.h5")
    plain = ("real.f4", "complex.c8", "deep", "one_chunk", "compact", "rows", "growing")
    assert all(set(found[name]) == {""} for name in plain)
    assert found["group.inner.big_endian"] == ["swap"]
    assert found["rows_missing"] == ["constant", "", *["constant"] * 8]
    assert found["never"] == ["constant"]
    assert {name for name, words in found.items() if "hdf5" in words} == {
        *("deflated", "by_library", "tiles", "single_deflated", "growing_both", "growing_both_plain", "room_left", "many_axes"),
        *("paged", "packed_missing", "early"),
    }


def test_the_library_is_asked_only_where_it_must_be(tmp_path, monkeypatch):
    held = write_hdf5(tmp_path / "w.h5", "latest")
    monkeypatch.setitem(sys.modules, "h5py", None)
    found = open_checkpoint(str(tmp_path / "w.h5"))
    unread = []
    for entry in found.tensors:
        try:
            Source(entry, found.stamps, "auto").read(0, 1)
        except MissingExtraError:
            unread.append(entry.name)
    assert len(held) > 80
    assert sorted(unread) == ["by_library", "growing"]


def test_a_missing_library_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch):
    held = write_hdf5(tmp_path / "w.h5", "latest")
    monkeypatch.setitem(sys.modules, "h5py", None)
    found = differences(
        tmp_path / "w.h5", {name: held[name] for name in ("by_library", "rows")}, tmp_path, include=("by_*", "rows")
    )
    assert any("needs h5py: pip install 'diffai-stream[formats]'" in line for line in found)
    assert not any(line.startswith("rows") for line in found)


def test_ranges_by_many_threads_are_those_of_the_array(tmp_path):
    held, draw = write_hdf5(tmp_path / "w.h5", "latest"), random.Random(2)
    found = open_checkpoint(str(tmp_path / "w.h5"))
    entries = {entry.name: entry for entry in found.tensors}
    asked = []
    for name in ("deflated", "summed", "many_axes", "paged", "by_library", "packed_missing", "growing", "early"):
        flat = held[name].reshape(-1)
        cuts = [sorted((draw.randrange(flat.size + 1), draw.randrange(flat.size + 1))) for _ in range(40)]
        asked += [(entries[name], flat, start, stop) for start, stop in cuts]
    draw.shuffle(asked)

    def right(entry, flat, start, stop):
        raw = Source(entry, found.stamps, "auto").read(start, stop)
        return np.array_equal(raw.view(flat.dtype), flat[start:stop])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda one: right(*one), asked))


def test_names_links_and_kinds(tmp_path):
    path, values = tmp_path / "w.h5", np.arange(6, dtype="f4")
    with h5py.File(path, "w") as file:
        file["a/b"] = values
        file["a.b"] = values + 1
        file["hard"] = file["a/b"]
        file["soft"] = h5py.SoftLink("/a/b")
        file["a/near"] = h5py.SoftLink("b")
        file["nowhere"] = h5py.SoftLink("/gone")
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["a/loop"] = file["a"]
        file["text"] = "hello"
        file["records"] = np.zeros(3, [("x", "f4"), ("y", "i2")])
        file["bf16"] = values.astype(ml_dtypes.bfloat16)
        file["bf16"].attrs["dtype"] = "bfloat16"
        file["opaque"] = values.astype(ml_dtypes.bfloat16)
        file["shared_type"] = np.dtype("f4")
        file.create_dataset("typed", data=values, dtype=file["shared_type"])
    found = hdf5.index(str(path))
    named = {entry.name: entry.encoding for entry in found.tensors}
    assert named == {"a.b": "F32", "/a.b": "F32", "bf16": "BF16", "typed": "F32"}
    assert found.aliases == {"hard": "a.b", "soft": "a.b", "a.near": "a.b"}
    assert differences(
        path, {"a.b": values, "/a.b": values + 1, "typed": values, "bf16": values.astype(ml_dtypes.bfloat16)}, tmp_path
    )
    assert [error.tensor for error in found.errors] == ["opaque"]
    told = {oddity.code: oddity.message for oddity in found.oddities}
    assert told.keys() == {"not_numeric", "link"}
    assert "1 more" in told["not_numeric"]
    assert "1 more" in told["link"]


def test_data_in_other_files_is_refused(tmp_path):
    path = tmp_path / "w.h5"
    (tmp_path / "raw.bin").write_bytes(bytes(400))
    with h5py.File(path, "w") as file:
        file["own"] = np.arange(4.0)
        file.create_dataset("external", (100,), "f4", external=[(str(tmp_path / "raw.bin"), 0, 400)])
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
        file.create_virtual_dataset("virtual", layout)
        file["null"] = h5py.Empty("f4")
    found = hdf5.index(str(path))
    assert [entry.name for entry in found.tensors] == ["own"]
    words = {error.tensor: error.message for error in found.errors}
    assert "other files" in words["external"]
    assert "virtual" in words["virtual"]
    assert "null dataspace" in words["null"]


def test_a_user_block_comes_first(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["x"] = np.arange(8, dtype="f4")
        file.create_dataset("z", data=np.arange(64, dtype="f4").reshape(8, 8), chunks=(2, 8), compression="gzip")
    raw = path.read_bytes()
    path.write_bytes(b"#!/bin/sh".ljust(1024, b"\0") + raw[1024:])
    arrays = {"x": np.arange(8, dtype="f4"), "z": np.arange(64, dtype="f4").reshape(8, 8)}
    assert differences(path, arrays, tmp_path) == []


@pytest.mark.parametrize("kept", [8, 40, 96, 200, 800])
def test_a_file_cut_off_at_its_head_is_an_error(kept, tmp_path):
    write_hdf5(tmp_path / "w.h5", "earliest")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "w.h5").read_bytes()[:kept])
    with pytest.raises(FormatError):
        open_checkpoint(str(tmp_path / "cut.h5"))


def test_a_truncated_file_gives_what_is_there_and_names_the_rest(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["first"], file["last"] = np.arange(100.0), np.arange(100_000.0)
    os.truncate(path, path.stat().st_size - 1000)
    found = hdf5.index(str(path))
    assert [entry.name for entry in found.tensors] == ["first"]
    assert [(error.tensor, "truncated" in error.message) for error in found.errors] == [("last", True)]
    assert [oddity.code for oddity in found.oddities] == ["truncated"]


def test_a_claim_that_no_file_can_hold_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("huge", (1 << 40, 1 << 20), "f4", chunks=(1, 1024), compression="gzip")
        file.create_dataset("never", (1 << 50,), "f4")
    found = hdf5.index(str(tmp_path / "w.h5"))
    assert (found.tensors, len(found.errors)) == ((), 2)


def test_a_damaged_chunk_costs_its_tensor_only(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        for name in ("one", "two"):
            file.create_dataset(name, data=np.arange(1000.0).reshape(10, 100), chunks=(5, 100), compression="gzip")
        chunk = file["two"].id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + 30)
        raw.write(b"\xff" * 40)
    (line, other) = differences(path, {name: np.arange(1000.0).reshape(10, 100) for name in ("one", "two")}, tmp_path)
    assert "damaged compressed data" in line or "holds" in line
    assert other.startswith("two")


@pytest.mark.parametrize("shape", [(40, 64), (33, 7)])
@pytest.mark.parametrize("dtype", ["f4", "u1"])
def test_a_checksum_that_is_not_that_of_the_bytes_is_an_error(shape, dtype, tmp_path):
    path, values = tmp_path / "w.h5", np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=values, chunks=shape, fletcher32=True)
        chunk = file["w"].id.get_chunk_info(0)
    assert differences(path, {"w": values}, tmp_path) == []
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + 5] ^= 1
    path.write_bytes(raw)
    assert "the checksum of a chunk is not that of its bytes" in differences(path, {"w": values}, tmp_path)[0]


def mutations(source: bytes, draw: random.Random) -> bytes:
    raw = bytearray(source)
    for _ in range(draw.randint(1, 4)):
        place, kind = draw.randrange(len(raw)), draw.randrange(5)
        if kind == 0:
            raw[place] = draw.randrange(256)
        elif kind == 1:
            raw[place : place + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\x01\0\0\0", b"\xff\xff\xff\x7f"))
        elif kind == 2:
            raw[place] ^= 1 << draw.randrange(8)
        elif kind == 3:  # what points somewhere else, perhaps at itself
            raw[place : place + 8] = draw.choice((place, draw.randrange(len(raw)))).to_bytes(8, "little")
        else:
            del raw[draw.randrange(len(raw) // 2, len(raw)) :]
    return bytes(raw)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_mutated_files_end_cleanly(libver, tmp_path):
    """The library itself crashes or never ends on some of these."""
    path, draw, begin = tmp_path / "w.h5", random.Random(3), time.perf_counter()
    small = np.arange(600, dtype="f4").reshape(20, 30)
    with h5py.File(path, "w", libver=libver) as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = small, small[0]
        file.create_dataset("c", data=small, chunks=(7, 30), compression="gzip", shuffle=True)
        file.create_dataset("m", data=small, chunks=(7, 8), maxshape=(None, None))
        for number in range(12):
            file[f"many/{number}"] = small[:1]
            file["c"].attrs[f"note {number}"] = "text"
    source, read = path.read_bytes(), 0
    for _ in range(400):
        path.write_bytes(mutations(source, draw))
        try:
            found = hdf5.index(str(path))
        except DiffaiError:
            continue
        for entry in found.tensors:
            if entry.numel < 1 << 20:
                try:
                    read += len(Source(entry, found.stamps, "auto").read(0, entry.numel)) > 0
                except TensorError:
                    continue
    assert read > 1000
    assert time.perf_counter() - begin < 60


def test_every_chunk_index_is_read_here_but_one():
    assert sorted(READERS) == [0, 1, 2, 3, 5]


def test_native_copies_are_in_c_order():
    assert native(np.asfortranarray(np.zeros((2, 3), ">f4"))).flags.c_contiguous
