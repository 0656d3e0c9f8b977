"""Keras archives and shards as `keras/src/saving/saving_lib.py` lays them out."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from diffai_stream.errors import FormatError
from diffai_stream.formats import keras
from diffai_stream.formats.catalogue import open_checkpoint
from tests.equality import differences

RANDOM = np.random.default_rng(6)
LAYERS = {
    "layers/dense": [RANDOM.normal(size=(40, 30)).astype("f4"), RANDOM.normal(size=30).astype("f4")],
    "layers/batch_normalization": [RANDOM.normal(size=30).astype("f4") for _ in range(4)],
    "layers/embedding": [RANDOM.normal(size=(90, 20)).astype("f2")],
}
NAMES = {
    "layers.dense.kernel": LAYERS["layers/dense"][0],
    "layers.dense.bias": LAYERS["layers/dense"][1],
    **dict(
        zip(
            [f"layers.batch_normalization.{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")],
            LAYERS["layers/batch_normalization"],
            strict=True,
        )
    ),
    "layers.embedding.embeddings": LAYERS["layers/embedding"][0],
}


def weights(layers=LAYERS, **how) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, values in layers.items():
            group = file.create_group(path).create_group("vars")
            for number, value in enumerate(values):
                if value is not None:
                    group.create_dataset(str(number), data=value, **(how if value.ndim > 1 else {}))
    return buffer.getvalue()


def archive(path, inner: bytes, name="model.weights.h5", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.4.1", "date_saved": "2026-01-01"}))
        file.writestr("config.json", json.dumps({"class_name": "Lambda", "function": "__import__('os').abort()"}))
        file.writestr(name, inner)
    return path


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}, {"compression": "lzf"}], ids=str)
def test_an_archive(how, tmp_path):
    path = archive(tmp_path / "m.keras", weights(**how))
    found = open_checkpoint(str(path))
    assert (found.format, found.metadata) == ("keras", {"keras_version": "3.4.1", "date_saved": "2026-01-01"})
    assert differences(path, NAMES, tmp_path) == []
    changed = {**NAMES, "layers.dense.bias": NAMES["layers.dense.bias"] + 1}
    assert differences(path, changed, tmp_path) == ["layers.dense.bias: ('changed', [30])"]


def test_an_archive_is_mapped(tmp_path):
    path = archive(tmp_path / "m.keras", weights())
    extents = [entry.components["data"].extents for entry in keras.index(str(path)).tensors]
    assert {extent.codec for row in extents for extent in row} == {""}


@pytest.mark.parametrize(
    ("name", "method", "word"),
    [
        ("model.weights.h5", zipfile.ZIP_DEFLATED, "compressed"),
        ("model.weights.npz", zipfile.ZIP_STORED, "pickled"),
        ("other", zipfile.ZIP_STORED, "without"),
    ],
)
def test_archives_that_are_refused(name, method, word, tmp_path):
    path = archive(tmp_path / "m.keras", weights(), name, method)
    with pytest.raises(FormatError, match=word):
        open_checkpoint(str(path))


def sharded(folder, shards: list[dict], weight_map=None):
    for number, layers in enumerate(shards):
        (folder / f"model_{number:05}.weights.h5").write_bytes(weights(layers))
    mapped = {}
    for number, layers in enumerate(shards):
        for path in layers:
            mapped.setdefault(f"/{path}/vars", f"model_{number:05}.weights.h5")
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": mapped if weight_map is None else weight_map})
    (folder / "model.weights.json").write_text(text)


def test_shards_in_which_a_group_continues(tmp_path):
    dense = LAYERS["layers/dense"]
    others = {path: values for path, values in LAYERS.items() if path != "layers/dense"}
    sharded(tmp_path, [{"layers/dense": dense[:1]}, {"layers/dense": [None, dense[1]]}, others])
    assert differences(tmp_path / "model.weights.json", NAMES, tmp_path / "x") == []
    assert differences(tmp_path, NAMES, tmp_path / "x") == []


def test_a_missing_shard_and_one_outside_are_errors(tmp_path):
    sharded(
        tmp_path,
        [LAYERS],
        {"/a/vars": "model_00000.weights.h5", "/b/vars": "model_00001.weights.h5", "/c/vars": "../x.weights.h5"},
    )
    found = open_checkpoint(str(tmp_path / "model.weights.json"))
    assert {entry.name for entry in found.tensors} == NAMES.keys()
    assert len(found.errors) == 2
    assert all("model_00001" in str(error) or "refused" in str(error) for error in found.errors)


def test_a_directory_with_one_weights_file(tmp_path):
    (tmp_path / "model.weights.h5").write_bytes(weights())
    assert differences(tmp_path, NAMES, tmp_path / "x") == []
