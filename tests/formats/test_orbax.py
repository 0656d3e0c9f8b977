"""Orbax checkpoints as TensorStore writes their databases and directories."""

from __future__ import annotations

import json
import random
import sys
import time

import ml_dtypes
import numpy as np
import pytest
import tensorstore

from diffai_stream.errors import DiffaiError, FormatError, MissingExtraError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.plan.sources import Source
from tests.equality import differences

RANDOM = np.random.default_rng(14)
LEAVES = {
    "params.embedder.embedding": RANDOM.normal(size=(300, 64)).astype(ml_dtypes.bfloat16),
    "params.layers_0.kernel": RANDOM.normal(size=(64, 96)).astype("f4"),
    "params.layers_0.bias": RANDOM.normal(size=96).astype("f4"),
    "params.stacked": RANDOM.integers(0, 9, (4, 10, 12)).astype("i4"),
    "step": np.array(1200, "i4"),
}


def write_item(folder, leaves=LEAVES, driver="zarr", ocdbt=True, chunks=None, named=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in leaves.items():
        file = {"driver": "file", "path": f"{folder}/" if ocdbt else f"{folder}/{name}/"}
        store = {"driver": "ocdbt", "base": file, "path": f"{name}/"} if ocdbt else file
        chunk = [min(size, chunks or size) for size in value.shape]
        if driver == "zarr":
            metadata = {"chunks": chunk, "compressor": {"id": "zstd", "level": 1}}
        else:
            inner = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 1}}]
            sharding = {"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": inner}}
            outer = [-(-size // step) * step for size, step in zip(value.shape, chunk, strict=True)]
            grid = {"name": "regular", "configuration": {"chunk_shape": outer}}
            metadata = {"chunk_grid": grid, "codecs": [sharding] if value.ndim else inner}
        spec = {"driver": driver, "kvstore": store, "metadata": metadata}
        array = tensorstore.open(spec, create=True, dtype=value.dtype.name, shape=list(value.shape)).result()
        array[...] = value
    tree = {
        str(tuple(name.split("."))): {
            "key_metadata": [{"key": key, "key_type": 2} for key in name.split(".")],
            "value_metadata": {"value_type": "jax.Array"},
        }
        for name in (named or leaves)
    }
    tree["('none',)"] = {"key_metadata": [{"key": "none"}], "value_metadata": {"value_type": "None"}}
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": tree}))
    return folder


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
@pytest.mark.parametrize("ocdbt", [True, False], ids=["database", "directories"])
@pytest.mark.parametrize("chunks", [None, 10])
def test_items(driver, ocdbt, chunks, tmp_path):
    folder = write_item(tmp_path / "default", driver=driver, ocdbt=ocdbt, chunks=chunks)
    found = open_checkpoint(str(folder))
    assert (found.format, found.container, found.errors, found.oddities) == ("orbax", "directory", (), ())
    assert differences(folder, LEAVES, tmp_path, chunk_size=1 << 16) == []
    changed = {**LEAVES, "params.stacked": LEAVES["params.stacked"] + 1}
    assert differences(folder, changed, tmp_path) == ["params.stacked: ('changed', [4, 10, 12])"]


def test_a_step_of_one_item_and_of_several(tmp_path):
    step = tmp_path / "100"
    write_item(step / "params", {"w": LEAVES["params.layers_0.kernel"]})
    (step / "metrics").mkdir()
    (step / "metrics" / "metrics").write_text("{}")
    (step / "_CHECKPOINT_METADATA").write_text("{}")
    assert differences(step, {"w": LEAVES["params.layers_0.kernel"]}, tmp_path) == []
    write_item(step / "state", {"opt_state.mu": LEAVES["params.layers_0.bias"]})
    assert [entry.name for entry in open_checkpoint(str(step)).tensors] == ["params.w", "state.opt_state.mu"]


def test_state_of_the_optimizer_is_told_apart(tmp_path):
    folder = write_item(tmp_path / "state", {"params.w": np.eye(3), "opt_state.0.mu.w": np.eye(3)})
    assert {entry.name: entry.part for entry in open_checkpoint(str(folder)).tensors} == {
        "params.w": "weights",
        "opt_state.0.mu.w": "optimizer",
    }


def test_leaves_that_are_named_and_not_stored_are_errors(tmp_path):
    folder = write_item(tmp_path / "default", {"w": np.eye(3)}, named=["w", "lost.kernel"])
    (error,) = open_checkpoint(str(folder)).errors
    assert (error.tensor, "not stored" in error.message) == ("lost.kernel", True)


def test_a_missing_library_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch):
    folder = write_item(tmp_path / "default")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(MissingExtraError, match=r"tensorstore.*diffai-stream\[orbax\]"):
        open_checkpoint(str(folder))


def test_a_step_without_arrays_is_an_error(tmp_path):
    (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(FormatError, match="none of the items"):
        open_checkpoint(str(tmp_path))


def test_an_unfinished_step_says_so(tmp_path):
    folder = write_item(tmp_path / "100.orbax-checkpoint-tmp-17", {"w": np.eye(3)})
    assert [oddity.code for oddity in open_checkpoint(str(folder)).oddities] == ["unfinished"]


def test_mutated_databases_end_cleanly(tmp_path):
    folder, draw, begin, read = write_item(tmp_path / "default", chunks=20), random.Random(15), time.perf_counter(), 0
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(150):
        path = draw.choice(files)
        source = path.read_bytes()
        raw = bytearray(source)
        place = draw.randrange(len(raw))
        if draw.random() < 0.7:
            raw[place] ^= 1 << draw.randrange(8)
        else:
            del raw[max(place, 1) :]
        path.write_bytes(raw)
        try:
            found = open_checkpoint(str(folder))
            for entry in found.tensors:
                read += Source(entry, found.stamps, "auto").read(0, entry.numel).size > 0
        except DiffaiError:
            pass
        path.write_bytes(source)
    assert read > 20
    assert time.perf_counter() - begin < 60
