"""`.npy` and `.npz` against NumPy itself, over drawn, hostile and mutated files."""

from __future__ import annotations

import random
import tempfile
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import DiffaiError, FormatError
from diffai_stream.formats import numpy_files
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.npy import NUMPY_ENCODINGS
from diffai_stream.plan.sources import Source
from tests.assets_hostile import GOOD_LITERAL, HOSTILE, npy_literal
from tests.checkpoints import read_extents
from tests.equality import differences

CODES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"]
ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(code) for code in CODES]), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
)


def restored(entry) -> np.ndarray:
    """The array that an entry describes, strides and all."""
    component = entry.components["data"]
    dtype = {row: code for code, row in NUMPY_ENCODINGS.items()}[component.dtype]
    flat = np.frombuffer(read_extents(entry), dtype)
    if component.strides is None:
        return flat.reshape(component.shape)
    return np.lib.stride_tricks.as_strided(flat, component.shape, [stride * flat.itemsize for stride in component.strides])


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


@settings(deadline=None, max_examples=150)
@given(ARRAYS, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_npy_is_what_numpy_wrote(array, fortran, version):
    array = np.asfortranarray(array) if fortran else array
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.weight.npy"
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version)
        found = numpy_files.index(str(path))
        assert (found.errors, found.oddities) == ((), ())
        (entry,) = found.tensors
        assert entry.name == "layer.weight"
        assert same(restored(entry), array)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8), ARRAYS, max_size=4),
    st.booleans(),
)
def test_npz_is_what_numpy_wrote(arrays, compressed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array)
        found = numpy_files.index(str(path))
        assert (found.errors, found.oddities) == ((), ())
        assert [entry.name for entry in found.tensors] == list(arrays)
        for entry in found.tensors:
            assert same(restored(entry), arrays[entry.name])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_by_numpy(save, tmp_path):
    arrays = {"a": np.arange(100.0), "b/c": np.asfortranarray(np.arange(6).reshape(2, 3))}
    save(tmp_path / "w.npz", **arrays)
    found = open_checkpoint(str(tmp_path / "w.npz"))
    assert (found.format, found.container) == ("numpy", "file")
    assert all(same(restored(entry), arrays[entry.name]) for entry in found.tensors)
    codecs = {entry.components["data"].extents[0].codec.split(":")[0] for entry in found.tensors}
    assert codecs == ({"deflate", "spill"} if save is np.savez_compressed else {""})


def test_fortran_strides_count_elements(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4)))
    assert numpy_files.index(str(tmp_path / "a.npy")).tensors[0].components["data"].strides == (1, 2, 6)


def test_empty_archive_is_an_empty_checkpoint(tmp_path):
    np.savez(tmp_path / "w.npz")
    assert open_checkpoint(str(tmp_path / "w.npz")).tensors == ()


def test_bfloat16_by_ml_dtypes_is_an_error_with_a_hint(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3, ml_dtypes.bfloat16))
    (error,) = numpy_files.index(str(tmp_path / "a.npy")).errors
    assert "safetensors" in error.message


def test_encodings_are_as_wide_as_numpy_says():
    assert {code: ENCODINGS[row].bits // 8 for code, row in NUMPY_ENCODINGS.items()} == {c: np.dtype(c).itemsize for c in CODES}


@pytest.mark.parametrize(
    "literal",
    [
        "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr": "<f4", "fortran_order": False, "shape": (2, 3)}',
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }   \n",
    ],
)
def test_other_spellings_of_the_header(literal, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy_literal(literal))
    assert numpy_files.index(str(tmp_path / "a.npy")).tensors[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "shape"), [("()", ()), ("(6,)", (6,)), ("(6)", None), ("(1,,2)", None), ("(,)", None), ("(0, 9)", (0, 9))]
)
def test_shapes(text, shape, tmp_path):
    data = bytes(4 * int(np.prod(shape, dtype=int) if shape is not None else 0))
    (tmp_path / "a.npy").write_bytes(npy_literal(GOOD_LITERAL.replace("(2, 3)", text), data))
    if shape is None:
        with pytest.raises(FormatError, match="shape"):
            numpy_files.index(str(tmp_path / "a.npy"))
    else:
        assert numpy_files.index(str(tmp_path / "a.npy")).tensors[0].shape == shape


@pytest.mark.parametrize(
    ("flaw", "readable", "word"),
    [
        ("npz_encrypted", ["a"], "encrypted"),
        ("npz_bzip2", [], "bzip2"),
        ("npz_stored_size_lies", ["a"], "contradicts"),
        ("npz_inflated_size_lies", ["a"], "cannot inflate"),
        ("npz_members_overlap", ["a"], "overlaps"),
        ("npz_data_outside", ["a"], "no local header"),
        ("npz_local_name_differs", ["b"], "another name"),
        ("npz_deflate_damaged", ["b"], "damaged"),
        ("npz_member_of_objects", ["a"], "pickled"),
        ("npz_member_not_npy", ["a"], "instead of"),
        ("npz_name_twice", [], "several members"),
        ("npy_of_objects", [], "pickled"),
        ("npy_void_bf16", [], "bfloat16"),
        ("npy_cut_off", [], "truncated"),
        ("npy_shape_overflows", [], "overflows"),
    ],
)
def test_flaws(flaw, readable, word, tmp_path):
    found = numpy_files.index(str(HOSTILE[flaw](tmp_path)))
    assert [entry.name for entry in found.tensors] == readable
    assert all(word in error.message and error.tensor for error in found.errors)
    assert found.errors


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("fortran", [False, True])
def test_any_order_of_bytes_and_axes_is_read(save, order, fortran, tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "wide": random.normal(size=(300, 700)).astype("f4"),
        "deep": random.normal(size=(5, 6, 7, 8)).astype("f8"),
        "line": random.integers(0, 9, 1000).astype("i2"),
        "pair": (random.normal(size=(40, 3)) + 1j * random.normal(size=(40, 3))).astype("c8"),
        "byte": random.integers(0, 255, (9, 9)).astype("u1"),
    }
    stored = {
        name: np.asarray(array.astype(array.dtype.newbyteorder(order)), order="FC"[not fortran])
        for name, array in arrays.items()
    }
    save(tmp_path / "w.npz", **stored)
    assert differences(tmp_path / "w.npz", arrays, tmp_path, chunk_size=1 << 16) == []
    arrays["wide"][17, 3] += 1
    assert differences(tmp_path / "w.npz", arrays, tmp_path, chunk_size=1 << 16) == ["wide: ('changed', [300, 700])"]


def test_names_are_only_names(tmp_path):
    found = numpy_files.index(str(HOSTILE["npz_name_escapes"](tmp_path)))
    assert [entry.name for entry in found.tensors] == ["../../evil"]
    assert [oddity.code for oddity in found.oddities] == ["ignored_member"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".compressed.npz"])
def test_mutated_files_end_cleanly(suffix, tmp_path):
    draw, path = random.Random(11), tmp_path / f"x{suffix}"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    if suffix == ".npy":
        np.save(path, array)
    else:
        (np.savez_compressed if "compressed" in suffix else np.savez)(path, w=array, v=array[0])
    source, begin = path.read_bytes(), time.perf_counter()
    for _ in range(500):
        raw = bytearray(source)
        for _ in range(draw.randint(1, 3)):
            place, kind = draw.randrange(max(len(raw), 1)), draw.randrange(4)
            if kind == 0:
                raw[place : place + 1] = draw.randbytes(1)
            elif kind == 1:
                raw[place : place + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0"))
            elif kind == 2:
                del raw[place : place + draw.randint(1, 30)]
            else:
                del raw[max(place, 1) :]
        path.write_bytes(raw)
        try:
            found = numpy_files.index(str(path))
        except DiffaiError:
            continue
        for entry in found.tensors:
            extent = entry.components["data"].extents[0]
            assert extent.offset + (extent.nbytes if not extent.codec else 0) <= len(raw)
    assert time.perf_counter() - begin < 20


RECORDS = [("left", "<i8"), ("threshold", "<f8"), ("half", ">f2"), ("flag", "u1"), ("wide", "<u2")]


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_fields_of_a_structured_array_are_arrays(align, compressed, tmp_path):
    fields = RECORDS[:2] if not align else RECORDS
    dtype = np.dtype(fields, align=align)
    records = np.zeros((5, 3), dtype)
    for number, (name, _) in enumerate(fields):
        records[name] = np.arange(15).reshape(5, 3) + number
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", tree=records)
    found = numpy_files.index(str(tmp_path / "a.npz"))
    assert found.errors == ()
    assert [entry.name for entry in found.tensors] == [f"tree.{name}" for name, _ in fields]
    for entry, (name, _) in zip(found.tensors, fields, strict=True):
        raw = Source(entry, {}, "auto").read(0, 15).view(dtype[name].newbyteorder("<"))
        assert np.array_equal(raw, records[name].reshape(-1)), name


def test_fields_that_lie_at_no_regular_steps_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", tree=np.zeros(4, dtype=[("a", "<f4"), ("b", "u1")]))
    (error,) = numpy_files.index(str(tmp_path / "a.npz")).errors
    assert "'a' does not lie at steps" in error.message
