"""MATLAB files of levels 4 and 5 against SciPy, against bytes written by hand, and damaged ones."""

from __future__ import annotations

import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from diffai_stream.errors import DiffaiError, FormatError, TensorError
from diffai_stream.formats import matlab
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.plan.sources import Source
from tests.arrays import native, plain_arrays
from tests.equality import differences

RANDOM = np.random.default_rng(8)
SAVES = [{"format": "5"}, {"format": "5", "do_compression": True}]


def saved(path, values, **how):
    scipy.io.savemat(path, values, **how)
    return path


@pytest.mark.parametrize("how", SAVES, ids=str)
def test_level_5(how, tmp_path):
    plain = {
        name.replace(".", "_"): np.atleast_2d(value) for name, value in plain_arrays().items() if value.dtype != np.float16
    }
    path = saved(tmp_path / "w.mat", plain, **how)
    found = open_checkpoint(str(path))
    assert (found.format, found.errors, found.oddities) == ("matlab", (), ())
    assert differences(path, plain, tmp_path, chunk_size=1 << 16) == []
    plain["real_f4"] = plain["real_f4"].copy()
    plain["real_f4"][7, 11] += 1
    assert differences(path, plain, tmp_path) == ["real_f4: ('changed', [24, 36])"]


def test_level_4(tmp_path):
    values = {
        "double": RANDOM.normal(size=(30, 40)),
        "single": RANDOM.normal(size=(3, 4)).astype("f4"),
        "small": RANDOM.integers(-9, 9, (5, 6)).astype("i2"),
        "bytes": RANDOM.integers(0, 255, (5, 6)).astype("u1"),
        "line": RANDOM.normal(size=(1, 50)),
        "pair": (RANDOM.normal(size=(6, 5)) + 1j * RANDOM.normal(size=(6, 5))).astype("c8"),
    }
    path = saved(tmp_path / "w.mat", {**values, "title": "text"}, format="4")
    found = open_checkpoint(str(path))
    assert (found.format, found.errors) == ("matlab", ())
    assert [oddity.message for oddity in found.oddities] == ["'title' is text, not numbers"]
    assert differences(path, values, tmp_path) == []


@pytest.mark.parametrize(
    ("how", "words"), [(SAVES[0], {"", "planar"}), (SAVES[1], {"deflate", "within", "planar"})], ids=["plain", "packed"]
)
def test_where_the_numbers_lie(how, words, tmp_path):
    values = {"m": RANDOM.normal(size=(9, 9)), "v": RANDOM.normal(size=(1, 9)), "c": RANDOM.normal(size=(9, 9)) * 1j}
    found = matlab.index(str(saved(tmp_path / "w.mat", values, **how)))
    assert {e.components["data"].extents[0].codec.partition(":")[0] for e in found.tensors} == words


@pytest.mark.parametrize("how", SAVES, ids=str)
def test_structs_and_cells_are_walked(how, tmp_path):
    weights = RANDOM.normal(size=(20, 30))
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = weights + 1, "text"
    layers = np.zeros((1, 2), [("w", object), ("b", object)])
    for number in range(2):
        layers[0, number] = (weights + number, np.arange(1.0, 4.0)[None])
    path = saved(
        tmp_path / "w.mat", {"net": {"w": weights, "inner": {"b": weights[:1]}}, "cells": cells, "layers": layers}, **how
    )
    expected = {
        "net.w": weights,
        "net.inner.b": weights[:1],
        "cells.0": weights + 1,
        **{f"layers.{number}.w": weights + number for number in range(2)},
        **{f"layers.{number}.b": np.arange(1.0, 4.0)[None] for number in range(2)},
    }
    assert differences(path, {name: native(value) for name, value in expected.items()}, tmp_path) == []
    assert [oddity.tensor for oddity in matlab.index(str(path)).oddities] == ["cells.1"]


def test_what_holds_no_plain_numbers_is_named(tmp_path):
    values = {"sparse": scipy.sparse.eye(4).tocsc(), "empty": np.zeros((0, 3)), "good": np.eye(3)}
    found = matlab.index(str(saved(tmp_path / "w.mat", values)))
    assert [entry.name for entry in found.tensors] == ["good"]
    assert [(error.tensor, error.message) for error in found.errors] == [("sparse", "a sparse matrix: not read")]


def element(order: str, kind: int, raw: bytes, small: bool = False) -> bytes:
    if small:
        return struct.pack(f"{order}I", len(raw) << 16 | kind) + raw.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(raw)) + raw + bytes(-len(raw) % 8)


def matrix(order: str, name: str, array: np.ndarray, kind: int, class_: int, flags: int = 0) -> bytes:
    inner = element(order, 6, struct.pack(f"{order}II", class_ | flags << 8, 0))
    inner += element(order, 5, struct.pack(f"{order}{array.ndim}i", *array.shape))
    inner += element(order, 1, name.encode(), small=len(name) <= 4)
    for part in (array.real, array.imag) if flags & 8 else (array,):
        raw = part.astype(part.dtype.newbyteorder(order)).tobytes("F")
        inner += element(order, kind, raw, small=len(raw) <= 4)
    return element(order, 14, inner)


@pytest.mark.parametrize("packed", [False, True])
def test_big_endian_numbers_small_elements_and_narrow_storage(packed, tmp_path):
    values = {
        "m": RANDOM.normal(size=(8, 9)),
        "c": (RANDOM.normal(size=(4, 5)) + 1j * RANDOM.normal(size=(4, 5))).astype("c8"),
        "narrow": RANDOM.integers(0, 200, (6, 7)).astype("u1"),
        "two": np.array([[1, 2]], "i2"),
    }
    kinds = {"m": (9, 6, 0), "c": (7, 7, 8), "narrow": (2, 6, 0), "two": (3, 10, 0)}
    for order, mark in (("<", b"\0\1IM"), (">", b"\1\0MI")):
        body = [matrix(order, name, values[name], *kind) for name, kind in kinds.items()]
        if packed:
            streams = [zlib.compress(part) for part in body]
            body = [struct.pack(f"{order}II", 15, len(stream)) + stream for stream in streams]
        path = tmp_path / "w.mat"
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + mark + b"".join(body))
        assert differences(path, values, tmp_path) == []
        loaded = scipy.io.loadmat(path)
        assert all(np.array_equal(loaded[name], value) for name, value in values.items())


def test_big_endian_level_4(tmp_path):
    array = RANDOM.normal(size=(3, 4)).astype("f4")
    raw = struct.pack(">5i", 1010, 3, 4, 0, 2) + b"w\0" + array.astype(">f4").tobytes("F")
    (tmp_path / "w.mat").write_bytes(raw)
    assert differences(tmp_path / "w.mat", {"w": array}, tmp_path) == []


WRITTEN = sorted(Path(scipy.io.matlab.__file__).parent.joinpath("tests", "data").glob("test*_[4567]*.mat"))


@pytest.mark.skipif(not WRITTEN, reason="SciPy is installed without its own tests")
def test_files_that_matlab_wrote():
    seen = 0
    for path in WRITTEN:
        if "hdf5" in path.name:
            continue
        loaded, found = scipy.io.loadmat(path), open_checkpoint(str(path))
        assert all("sparse" in error.message for error in found.errors), path
        for entry in found.tensors:
            if entry.name not in loaded or loaded[entry.name].dtype.kind not in "biufc":
                continue
            value, parts = native(loaded[entry.name]), 2 if entry.encoding.startswith("C") else 1
            raw = Source(entry, found.stamps, "auto").read(0, entry.numel * parts)
            assert (entry.shape, raw.tobytes()) == (value.shape, value.tobytes()), (path, entry)
            seen += 1
    assert seen > 20


def test_other_files_are_not_taken_for_level_4(tmp_path):
    (tmp_path / "x.bin").write_bytes(struct.pack("<5i", 0, 3, 4, 0, 2) + b"w\0")
    assert not matlab.probe(str(tmp_path / "x.bin"), (tmp_path / "x.bin").read_bytes())
    with pytest.raises(FormatError, match="neither"):
        open_checkpoint(str((tmp_path / "x.bin").rename(tmp_path / "x.mat")))


def test_a_stream_that_claims_too_much_is_refused(tmp_path):
    stream = zlib.compress(struct.pack("<II", 14, 1 << 31) + bytes(64))
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    good = matrix("<", "good", np.eye(3), 9, 6)
    (tmp_path / "w.mat").write_bytes(head + struct.pack("<II", 15, len(stream)) + stream + good)
    found = matlab.index(str(tmp_path / "w.mat"))
    assert [entry.name for entry in found.tensors] == ["good"]
    assert "no deflate stream does" in found.errors[0].message


def test_a_truncated_file_gives_what_is_there(tmp_path):
    path = saved(tmp_path / "w.mat", {"a": np.eye(30), "b": np.eye(30)})
    path.write_bytes(path.read_bytes()[:-100])
    found = matlab.index(str(path))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert "truncated" in found.errors[0].message


@pytest.mark.parametrize("how", [*SAVES, {"format": "4"}], ids=str)
def test_mutated_files_end_cleanly(how, tmp_path):
    path, draw, begin, read = tmp_path / "w.mat", random.Random(9), time.perf_counter(), 0
    values = {"m": RANDOM.normal(size=(9, 9)), "v": np.arange(9.0)[None]}
    source = saved(
        path, values if how["format"] == "4" else {**values, "s": {"a": np.eye(3), "b": {"c": np.eye(4)}}}, **how
    ).read_bytes()
    for _ in range(400):
        raw = bytearray(source)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(raw))
            if draw.random() < 0.6:
                raw[place] = draw.randrange(256)
            elif draw.random() < 0.7:
                raw[place : place + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", struct.pack("<I", place)))
            else:
                del raw[max(place, 1) :]
        path.write_bytes(raw)
        try:
            found = open_checkpoint(str(path))
        except DiffaiError:
            continue
        for entry in found.tensors:
            if entry.numel < 1 << 20:
                try:
                    read += Source(entry, found.stamps, "auto").read(0, 1).size > 0
                except (TensorError, NotImplementedError):
                    continue
    assert read > 200
    assert time.perf_counter() - begin < 60


def test_a_variable_without_flags_is_an_error(tmp_path):
    raw = bytearray(saved(tmp_path / "w.mat", {"w": RANDOM.normal(size=(3, 3))}).read_bytes())
    raw[136:144] = struct.pack("<II", 6, 0)
    (tmp_path / "w.mat").write_bytes(raw)
    (error,) = open_checkpoint(str(tmp_path / "w.mat")).errors
    assert "its flags are missing" in error.message
