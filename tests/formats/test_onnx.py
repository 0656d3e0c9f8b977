"""ONNX models written by the onnx library and by hand: what is found in them, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from tests import messages
from tests.checkpoints import read_extents
from tests.messages import field, onnx_external, onnx_model, onnx_tensor, write_onnx

WEIGHTS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.ones(3, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(2.5, np.float64),
}


def arrays(path) -> dict[str, np.ndarray]:
    found = open_checkpoint(str(path))
    assert found.errors == ()
    dtypes = {"F32": np.float32, "F64": np.float64}
    return {e.name: np.frombuffer(read_extents(e), dtypes[e.encoding]).reshape(e.shape) for e in found.tensors}


def errors(path) -> list[str]:
    return [f"{error.tensor}: {error.message}" for error in open_checkpoint(str(path)).errors]


def same(found, meant):
    assert found.keys() == meant.keys()
    for name, value in meant.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_raw_data_lies_in_place(tmp_path):
    path = write_onnx(tmp_path / "m.onnx", WEIGHTS)
    same(arrays(path), WEIGHTS)
    found = open_checkpoint(str(path))
    assert found.format == "onnx"
    assert found.metadata == {"producer_name": "tests"}


def test_dims_may_be_packed(tmp_path):
    path = write_onnx(
        tmp_path / "m.onnx", onnx_model(onnx_tensor(name, value, packed_dims=True) for name, value in WEIGHTS.items())
    )
    same(arrays(path), WEIGHTS)


@pytest.mark.parametrize("name", ["m.onnx", "m.bin", "m"])
def test_content_decides(tmp_path, name):
    assert open_checkpoint(str(write_onnx(tmp_path / name, WEIGHTS))).format == "onnx"


@pytest.fixture
def beside(tmp_path):
    """A directory with `data`: 8 bytes of something else, then `a.weight`."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "data").write_bytes(bytes(8) + WEIGHTS["a.weight"].tobytes())
    (tmp_path / "outside").write_bytes(bytes(64))
    return tmp_path / "model"


def write_external(folder, **declared):
    return write_onnx(folder / "m.onnx", onnx_model([onnx_external("a.weight", WEIGHTS["a.weight"], **declared)]))


def test_external_data_is_mapped(beside):
    path = write_external(beside, location="data", offset=8, length=24, checksum="0" * 40)
    same(arrays(path), {"a.weight": WEIGHTS["a.weight"]})
    assert set(open_checkpoint(str(path)).stamps) == {str(path), str(beside / "data")}


def test_external_length_may_be_left_out(beside):
    same(arrays(write_external(beside, location="data", offset="8")), {"a.weight": WEIGHTS["a.weight"]})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"location": "../outside"}, "outside the directory of the model: refused"),
        ({"location": "sub/../../outside"}, "outside the directory of the model: refused"),
        ({"location": "/etc/passwd"}, "outside the directory of the model: refused"),
        ({"location": "..\\outside"}, "outside the directory of the model: refused"),
        ({"location": "a\0b"}, "outside the directory of the model: refused"),
        ({"location": "link"}, "a link out of the directory of the model: refused"),
        ({"location": "folder/outside"}, "a link out of the directory of the model: refused"),
        ({"location": "loop"}, "loop"),
        ({"location": "pipe"}, "named pipe"),
        ({"location": "."}, "directory"),
        ({"location": "missing"}, "no such file"),
        ({}, "names no location"),
        ({"location": "data", "offset": 16}, "ends at byte 40 of 'data', which has 32: truncated"),
        ({"location": "data", "offset": 2**62}, "truncated"),
        ({"location": "data", "offset": -8}, "'-8', which is no number"),
        ({"location": "data", "offset": "9" * 5000}, "no number of bytes"),
        ({"location": "data", "offset": 8, "length": 20}, "declared to have 20"),
    ],
)
def test_external_data_that_is_refused(beside, declared, message):
    (beside / "link").symlink_to("../outside")
    (beside / "folder").symlink_to("..")
    (beside / "loop").symlink_to("loop")
    os.mkfifo(beside / "pipe")
    (found,) = errors(write_external(beside, **declared))
    assert found.startswith("a.weight: ")
    assert message in found


def test_links_within_the_directory_are_followed(beside):
    (beside / "link").symlink_to("data")
    same(arrays(write_external(beside, location="link", offset=8)), {"a.weight": WEIGHTS["a.weight"]})


def test_snapshots_of_the_hugging_face_cache(tmp_path):
    root = tmp_path / "models--org--name"
    snapshot = root / "snapshots" / ("c" * 40) / "onnx"
    for folder in (snapshot, root / "blobs"):
        folder.mkdir(parents=True)
    write_onnx(root / "blobs" / "1", onnx_model([onnx_external("a.weight", WEIGHTS["a.weight"], location="model.onnx_data")]))
    (root / "blobs" / "2").write_bytes(WEIGHTS["a.weight"].tobytes())
    (tmp_path / "secret").write_bytes(bytes(24))
    (snapshot / "model.onnx").symlink_to("../../../blobs/1")
    (snapshot / "model.onnx_data").symlink_to("../../../blobs/2")
    same(arrays(snapshot / "model.onnx"), {"a.weight": WEIGHTS["a.weight"]})
    (root / "blobs" / "2").unlink()
    (root / "blobs" / "2").symlink_to("../../secret")
    assert "refused" in errors(snapshot / "model.onnx")[0]


A = onnx_tensor("a", WEIGHTS["a.weight"])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (field(2, 1) + field(1, 2) + field(8, "x") + field(9, bytes(7)), "take 8 bytes, it has 7"),
        (field(2, 1) + field(1, 2) + field(8, "x"), "take 8 bytes, it has 0"),
        (field(2, 1) + field(1, -2) + field(8, "x"), "-2"),
        (field(2, 1) + field(1, 2**62) * 3 + field(8, "x"), "larger than any array"),
        (field(2, 1) + field(1, 1) * 65 + field(8, "x"), "65 dimensions"),
        (field(2, 99) + field(1, 2) + field(8, "x"), "data type 99"),
        (field(1, 2) + field(8, "x"), "no data type"),
        (field(2, 1) + field(1, 2) + field(8, "x") + field(3, field(1, 0)) + field(9, bytes(8)), "segment"),
    ],
)
def test_one_bad_tensor_costs_one_tensor(tmp_path, tensor, message):
    path = write_onnx(tmp_path / "m.onnx", onnx_model([A, tensor]))
    found = open_checkpoint(str(path))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert [error.tensor for error in found.errors] == ["x"]
    assert message in found.errors[0].message
    assert found.errors[0].offset == path.read_bytes().index(tensor)


def test_a_truncated_model_keeps_what_is_whole(tmp_path):
    path = write_onnx(tmp_path / "m.onnx", {"a": WEIGHTS["a.weight"], "b": WEIGHTS["a.weight"]})
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.rindex(WEIGHTS["a.weight"].tobytes()) + 10])
    found = open_checkpoint(str(path))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert [error.tensor for error in found.errors][-1] == "b"
    assert any("its file ends" in error.message for error in found.errors)


def test_texts_are_left_out_and_said(tmp_path):
    text = field(1, 1) + field(2, 8) + field(8, "vocabulary") + field(6, b"word")
    found = open_checkpoint(str(write_onnx(tmp_path / "m.onnx", onnx_model([A, text]))))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert [(note.code, note.tensor) for note in found.oddities] == [("text_tensor", "vocabulary")]


def test_metadata_of_a_model(tmp_path):
    path = write_onnx(tmp_path / "m.onnx", onnx_model([A], more=field(3, "1.2") + messages.pairs(14, {"epoch": 3})))
    assert open_checkpoint(str(path)).metadata == {"producer_name": "tests", "producer_version": "1.2", "epoch": "3"}
