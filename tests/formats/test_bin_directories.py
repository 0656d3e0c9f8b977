"""Hugging Face directories whose weights are files of torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffai_stream.formats import huggingface
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.filterwarnings("ignore")

SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


def weights() -> dict:
    torch.manual_seed(3)
    return {"embed.weight": torch.randn(30, 8), "layer.weight": torch.randn(8, 8), "norm.weight": torch.ones(8)}


def sharded(directory: Path, tied: bool = False) -> Path:
    """Two shards and their index; with `tied` the head shares the storage of the embedding."""
    tensors = weights()
    first = {"embed.weight": tensors["embed.weight"]} | ({"lm_head.weight": tensors["embed.weight"]} if tied else {})
    second = {name: tensors[name] for name in ("layer.weight", "norm.weight")}
    directory.mkdir(exist_ok=True)
    for shard, content in zip(SHARDS, (first, second), strict=True):
        torch.save(content, directory / shard)
    total = sum(tensor.numel() * 4 for content in (first, second) for tensor in content.values())
    weight_map = {name: shard for shard, content in zip(SHARDS, (first, second), strict=True) for name in content}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return directory


def exported(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    safetensors.save_file(weights(), directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("by_index", [False, True])
def test_shards_equal_to_safetensors(by_index, tmp_path):
    directory = sharded(tmp_path / "bin")
    path = directory / "pytorch_model.bin.index.json" if by_index else directory
    records = list(compare(str(exported(tmp_path / "st")), str(path)))
    assert [record for record in records if record["type"] in ("error", "warning")] == []
    assert (records[-1]["status"], records[-1]["counts"]["unchanged"]) == ("equivalent", 3)


def test_single_file_and_other_bins(tmp_path):
    torch.save(weights(), tmp_path / "pytorch_model.bin")
    torch.save({"lr": 0.1}, tmp_path / "training_args.bin")
    torch.save({"state": {}}, tmp_path / "optimizer.bin")
    found = open_checkpoint(str(tmp_path))
    assert (found.format, [entry.name for entry in found.tensors], found.oddities) == ("huggingface", list(weights()), ())


def test_safetensors_come_first(tmp_path):
    exported(sharded(tmp_path / "m"))
    found = huggingface.index(str(tmp_path / "m"))
    assert found.tensors[0].components["data"].extents[0].path.endswith("model.safetensors")
    assert [oddity.code for oddity in found.oddities] == ["ignored_weights"]


def test_the_index_comes_before_one_file(tmp_path):
    torch.save({"other": torch.ones(2)}, sharded(tmp_path / "m") / "pytorch_model.bin")
    assert {entry.name for entry in huggingface.index(str(tmp_path / "m")).tensors} == set(weights())


def test_shared_storages_are_aliases_and_no_error(tmp_path):
    found = huggingface.index(str(sharded(tmp_path / "m", tied=True)))
    assert (found.errors, found.oddities) == ((), ())
    assert found.aliases == {"lm_head.weight": "embed.weight"}


def test_a_missing_shard_is_told_with_what_it_held(tmp_path):
    (sharded(tmp_path / "m") / SHARDS[1]).unlink()
    found = huggingface.index(str(tmp_path / "m"))
    assert [entry.name for entry in found.tensors] == ["embed.weight"]
    assert [error.tensor for error in found.errors if error.tensor] == ["layer.weight", "norm.weight"]


def test_a_series_without_index(tmp_path):
    (sharded(tmp_path / "m") / "pytorch_model.bin.index.json").unlink()
    assert {entry.name for entry in huggingface.index(str(tmp_path / "m")).tensors} == set(weights())
    (tmp_path / "m" / SHARDS[0]).unlink()
    (error,) = huggingface.index(str(tmp_path / "m")).errors
    assert error.path.endswith(SHARDS[0])


def test_safetensors_under_the_name_of_a_bin(tmp_path):
    safetensors.save_file(weights(), tmp_path / "pytorch_model.bin")
    assert {entry.name for entry in huggingface.index(str(tmp_path)).tensors} == set(weights())


def test_what_a_shard_would_run_is_told(tmp_path):
    import os

    class Runs:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({**weights(), "x": Runs()}, tmp_path / "pytorch_model.bin")
    assert huggingface.index(str(tmp_path)).unsafe_globals == ("posix.system",)
