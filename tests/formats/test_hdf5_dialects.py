"""What writes HDF5: Keras of three generations, MATLAB 7.3."""

from __future__ import annotations

import h5py
import ml_dtypes
import numpy as np
import pytest

from diffai_stream.formats import hdf5, hdf5_walk
from diffai_stream.formats.keras_names import keras_name, part_of
from tests.arrays import native
from tests.equality import differences

RANDOM = np.random.default_rng(4)
KERNEL, BIAS = RANDOM.normal(size=(64, 32)).astype("f4"), RANDOM.normal(size=32).astype("f4")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("layers/dense/vars/0", "layers.dense.kernel"),
        ("layers/dense_12/vars/1", "layers.dense_12.bias"),
        ("layers/conv2d_transpose_1/vars/0", "layers.conv2d_transpose_1.kernel"),
        ("layers/batch_normalization/vars/3", "layers.batch_normalization.moving_variance"),
        ("layers/functional/layers/lstm/cell/vars/2", "layers.functional.layers.lstm.cell.2"),
        ("layers/my_layer/vars/0", "layers.my_layer.0"),
        ("layers/dense/vars/7", "layers.dense.7"),
        ("optimizer/vars/2", "optimizer.2"),
        ("model_weights/dense_1/dense_1/kernel:0", "dense_1.kernel"),
        ("model_weights/model/dense/kernel:0", "model.dense.kernel"),
        ("dense_1/dense_1/bias:0", "dense_1.bias"),
        ("optimizer_weights/Adam/dense/kernel/m:0", "optimizer.Adam.dense.kernel.m"),
        ("model.layers.0.weight", "model.layers.0.weight"),
        ("vars/0", "vars.0"),
    ],
)
def test_names(path, name):
    assert keras_name(path) == name


def test_optimizer_state_is_told_apart():
    assert [part_of(path) for path in ("optimizer/vars/0", "optimizer_weights/x:0", "layers/optimizer/vars/0")] == [
        "optimizer",
        "optimizer",
        "weights",
    ]


def test_weights_of_keras_3(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense").create_group("vars")
        group.attrs["name"] = "encoder"
        group["0"], group["1"] = KERNEL, BIAS
        half = (
            file.create_group("layers/embedding")
            .create_group("vars")
            .create_dataset("0", data=KERNEL.astype(ml_dtypes.bfloat16))
        )
        half.attrs["dtype"] = "bfloat16"
        file["optimizer/vars/0"] = np.int64(12)
    expected = {
        "layers.dense.kernel": KERNEL,
        "layers.dense.bias": BIAS,
        "layers.embedding.embeddings": KERNEL.astype(ml_dtypes.bfloat16),
    }
    found = hdf5.index(str(path))
    parts = {entry.name: entry.part for entry in found.tensors}
    assert parts == {**dict.fromkeys(expected, "weights"), "optimizer.0": "optimizer"}
    assert differences(path, expected, tmp_path) == []


def test_whole_models_of_keras_2(tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = '{"class_name": "Lambda", "config": {"function": "code"}}'
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"dense_1", b"dropout"]
        weights.create_group("dropout")
        layer = weights.create_group("dense_1")
        layer.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/bias:0"]
        layer["dense_1/kernel:0"], layer["dense_1/bias:0"] = KERNEL, BIAS
    assert differences(path, {"dense_1.kernel": KERNEL, "dense_1.bias": BIAS}, tmp_path) == []


def write_matlab(path, arrays: dict[str, np.ndarray], **how) -> None:
    """A 7.3 file as MATLAB lays it out: reversed shapes, the class in an attribute, cells by reference."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            is_flag = array.dtype == bool
            dataset = file.create_dataset(name, data=array.T.astype("u1") if is_flag else array.T, **how)
            kind = {"float32": "single", "float64": "double", "bool": "logical"}.get(array.dtype.name, array.dtype.name)
            dataset.attrs["MATLAB_class"] = np.bytes_("double" if array.dtype.kind == "V" else kind)
            if is_flag:
                dataset.attrs["MATLAB_int_decode"] = np.int32(1)
        text = file.create_dataset("title", data=np.frombuffer("hello".encode("utf-16-le"), "u2").reshape(5, 1))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        hidden = file.create_dataset("#refs#/a", data=np.zeros((1, 1)))
        hidden.attrs["MATLAB_class"] = np.bytes_("double")
        cells = file.create_dataset("cells", data=np.array([[hidden.ref]], h5py.ref_dtype))
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
        empty = file.create_dataset("nothing", data=np.array([0, 0], "u8"))
        empty.attrs["MATLAB_class"], empty.attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)
        sparse = file.create_group("sparse")
        sparse.attrs["MATLAB_class"], sparse.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(3)
        sparse["data"] = np.zeros(3)
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2026 HDF5 schema 1.00 ."
    raw = path.read_bytes()
    path.write_bytes(head.ljust(124) + b"\0\2IM".ljust(512 - 124, b"\0") + raw[512:])


@pytest.mark.parametrize(
    "how", [{}, {"compression": "gzip", "chunks": True}, {"compression": "gzip", "shuffle": True}], ids=str
)
def test_matlab_arrays_are_columns_first(how, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_walk, "SPILLED_NBYTES", 4096)
    arrays = {
        "wide": RANDOM.normal(size=(70, 130)),
        "deep": RANDOM.normal(size=(4, 5, 6)).astype("f4"),
        "row": RANDOM.normal(size=(1, 90)),
        "column": RANDOM.normal(size=(90, 1)),
        "flags": RANDOM.normal(size=(9, 8)) > 0,
        "net/layer/w": RANDOM.integers(-9, 9, (12, 10)).astype("i2"),
    }
    path = tmp_path / "w.mat"
    write_matlab(path, arrays, **how)
    found = hdf5.index(str(path))
    assert [(error.tensor, error.message) for error in found.errors] == [("sparse", "a sparse matrix; save it full")]
    assert [(oddity.code, oddity.message.count("2 more")) for oddity in found.oddities] == [("not_numeric", 1)]
    expected = {name.replace("/", "."): native(array) for name, array in arrays.items()}
    assert differences(path, expected, tmp_path, chunk_size=1 << 16) == ["a sparse matrix; save it full"]
    spilled = {e.name for e in found.tensors if e.components["data"].extents[0].codec.startswith("spill:hdf5:")}
    assert spilled == ({"wide"} if how else set())
