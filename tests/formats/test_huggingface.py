"""Directories as Hugging Face lays them out, sound and not."""

from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.errors import DiffaiError, FormatError, TensorError
from diffai_stream.formats import huggingface
from diffai_stream.formats.catalogue import open_checkpoint
from tests.assets_hostile import ARRAY, HOSTILE, TWO
from tests.checkpoints import read_extents, write_cache, write_safetensors, write_sharded

ONE, OTHER = TWO


def codes(checkpoint) -> list[str]:
    return [oddity.code for oddity in checkpoint.oddities]


def names(checkpoint) -> list[str]:
    return [entry.name for entry in checkpoint.tensors]


def failed(checkpoint) -> list[str]:
    return [error.tensor for error in checkpoint.errors if error.tensor]


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text("abc.", min_size=1, max_size=5), st.integers(0, 3), max_size=12), st.booleans())
def test_shards_hold_what_was_put_in(placed, indexed):
    shards: dict[str, dict[str, np.ndarray]] = {f"model-{i + 1:05}-of-00004.safetensors": {} for i in range(4)}
    for number, (name, shard) in enumerate(placed.items()):
        shards[list(shards)[shard]][name] = np.full((number, 2), number, np.int16)
    with tempfile.TemporaryDirectory() as folder:
        directory = write_sharded(Path(folder), shards)
        if not indexed:
            (directory / "model.safetensors.index.json").unlink()
        found = huggingface.index(str(directory))
        assert found.errors == ()
        assert found.container == "directory"
        expected = {name: array.tobytes() for tensors in shards.values() for name, array in tensors.items()}
        assert {entry.name: read_extents(entry) for entry in found.tensors} == expected


def test_index_of_sound_shards(tmp_path):
    found = open_checkpoint(str(write_sharded(tmp_path, TWO)))
    assert (found.format, found.errors, found.oddities) == ("huggingface", (), ())
    assert names(found) == ["a", "b", "c"]
    assert found.metadata == {"format": "pt"}
    assert {os.path.basename(path) for path in found.stamps} == {"model.safetensors.index.json", *TWO}


def test_path_of_the_index_itself(tmp_path, monkeypatch):
    directory = write_sharded(tmp_path, TWO)
    path = str(directory / "model.safetensors.index.json")
    found = open_checkpoint(path)
    assert (found.path, names(found), found.container) == (path, ["a", "b", "c"], "directory")
    monkeypatch.chdir(directory)
    assert names(open_checkpoint("model.safetensors.index.json")) == ["a", "b", "c"]
    assert names(open_checkpoint(".")) == ["a", "b", "c"]


def test_missing_shard_is_named_with_all_it_held(tmp_path):
    found = huggingface.index(str(HOSTILE["shard_missing"](tmp_path)))
    shard_error, tensor_error = found.errors
    assert isinstance(shard_error, FormatError)
    assert isinstance(tensor_error, TensorError)
    assert shard_error.path == tensor_error.path == str(tmp_path / "m" / OTHER)
    assert "1 tensor(s): 'c'" in shard_error.message
    assert (names(found), failed(found)) == (["a", "b"], ["c"])


def test_damaged_shard_leaves_the_others(tmp_path):
    found = huggingface.index(str(HOSTILE["shard_damaged"](tmp_path)))
    assert (names(found), failed(found)) == (["c"], ["a", "b"])
    assert "Git LFS" in found.errors[0].message


@pytest.mark.parametrize(
    ("flaw", "odd", "errors"),
    [
        ("index_wrong_shard", ["wrong_index_entry"], []),
        ("index_lacks_a_name", ["not_in_index"], []),
        ("index_wrong_total", ["wrong_total_size"], []),
        ("index_names_nothing", [], ["ghost"]),
        ("index_escapes", [], ["x", "y"]),
        ("index_absolute", [], ["x"]),
        ("index_names_a_number", [], ["x", "y", "z", "w"]),
    ],
)
def test_wrong_index(flaw, odd, errors, tmp_path):
    found = huggingface.index(str(HOSTILE[flaw](tmp_path)))
    assert (names(found), codes(found), failed(found)) == (["a", "b", "c"], odd, errors)


def test_copy_in_another_shard_does_not_count(tmp_path):
    shards = {ONE: {"a": ARRAY}, OTHER: {"a": ARRAY + 1, "c": ARRAY}}
    found = huggingface.index(str(write_sharded(tmp_path, shards, {"a": ONE, "c": OTHER}, {})))
    assert (names(found), codes(found)) == (["a", "c"], ["duplicate_tensor"])
    assert read_extents(found.tensors[0]) == ARRAY.tobytes()


def test_broken_index_falls_back_to_the_files(tmp_path):
    found = huggingface.index(str(HOSTILE["index_not_json"](tmp_path)))
    assert names(found) == ["a", "b", "c"]
    assert [error.path for error in found.errors] == [str(tmp_path / "m" / "model.safetensors.index.json")]


def test_unlisted_shard_of_the_series_is_read(tmp_path):
    found = huggingface.index(str(write_sharded(tmp_path, TWO, {"a": ONE, "b": ONE}, {})))
    assert names(found) == ["a", "b", "c"]
    assert codes(found) == ["unlisted_shard", "not_in_index"]


COPIES = (
    *("consolidated.safetensors", "model.fp16.safetensors", "adapter_model.safetensors", "model.safetensors"),
    *("pytorch_model.bin", "original", "pytorch_model-00001-of-00002.bin", "model-00001-of-00002.fp16.safetensors"),
)


def test_copies_beside_an_index_are_named_not_read(tmp_path):
    write_sharded(tmp_path, TWO)
    for copy in COPIES:
        write_safetensors(tmp_path / copy, {"a": ARRAY + 1, "z": ARRAY})
    found = huggingface.index(str(tmp_path))
    assert names(found) == ["a", "b", "c"]
    (oddity,) = found.oddities
    assert oddity.code == "ignored_weights"
    assert [copy for copy in COPIES if repr(copy) not in oddity.message] == []


@pytest.mark.parametrize(
    ("present", "read"),
    [
        (["model.safetensors", "diffusion_pytorch_model.safetensors", "other.safetensors"], ["model.safetensors"]),
        (
            ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
            ["diffusion_pytorch_model.safetensors"],
        ),
        (["one.safetensors", "two.safetensors", "consolidated.safetensors"], ["one.safetensors", "two.safetensors"]),
        (["adapter_model.safetensors"], ["adapter_model.safetensors"]),
        (["model.fp16.safetensors", "._model.safetensors"], ["model.fp16.safetensors"]),
    ],
)
def test_which_file_counts(present, read, tmp_path):
    for name in present:
        write_safetensors(tmp_path / name, {name: ARRAY})
    assert names(huggingface.index(str(tmp_path))) == read


def test_colliding_files_are_errors(tmp_path):
    found = huggingface.index(str(HOSTILE["names_collide"](tmp_path)))
    assert (names(found), failed(found)) == (["b"], ["a"])
    assert "one.safetensors" in found.errors[0].message
    assert "two.safetensors" in found.errors[0].message


def test_series_without_index_tells_what_is_missing(tmp_path):
    found = huggingface.index(str(HOSTILE["series_incomplete"](tmp_path)))
    assert [os.path.basename(error.path) for error in found.errors] == [
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ]


@pytest.mark.parametrize("inner", [False, True])
def test_tied_head_is_an_alias(inner, tmp_path):
    write_safetensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": ARRAY})
    config = {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config} if inner else config))
    assert huggingface.index(str(tmp_path)).aliases == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize("config", ['{"tie_word_embeddings": false}', "{}", '{"tie_word_embeddings": "yes"}', "[]", "{"])
def test_untied_or_broken_config_gives_no_alias(config, tmp_path):
    write_safetensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": ARRAY})
    (tmp_path / "config.json").write_text(config)
    found = huggingface.index(str(tmp_path))
    assert found.aliases == {}
    assert codes(found) == ([] if config.startswith("{") and config.endswith("}") else ["broken_config"])


def test_stored_head_is_no_alias(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": ARRAY, "lm_head.weight": ARRAY})
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    assert huggingface.index(str(tmp_path)).aliases == {}


def test_dropped_names_in_the_index_metadata_are_aliases(tmp_path):
    shards = {ONE: {"model.embed_tokens.weight": ARRAY}}
    found = huggingface.index(str(write_sharded(tmp_path, shards, None, {"lm_head.weight": "model.embed_tokens.weight"})))
    assert found.aliases == {"lm_head.weight": "model.embed_tokens.weight"}


def test_metadata_that_differs_between_shards_is_kept(tmp_path):
    for shard, value in ((ONE, "1"), (OTHER, "2")):
        write_safetensors(tmp_path / shard, {shard: ARRAY}, {"k": value, "format": "pt"})
    assert huggingface.index(str(tmp_path)).metadata == {"k": "1", f"k@{OTHER}": "2", "format": "pt"}


def cached(tmp_path: Path, blob: str) -> Path:
    content = safetensors.numpy.save({"w": ARRAY})
    return write_cache(tmp_path / "models--org--name", {"model.safetensors": content}, blobs={"model.safetensors": blob})


def test_cache_root_resolves_to_main(tmp_path):
    root = cached(tmp_path, "ab" * 32)
    (root / "snapshots" / ("d" * 40)).mkdir()
    for path in (root, root / "snapshots" / ("c" * 40), root / "snapshots" / ("c" * 40) / "model.safetensors"):
        found = open_checkpoint(str(path))
        blob = os.path.realpath(root / "blobs" / ("ab" * 32))
        assert found.identities == {blob: "ab" * 32}
        assert found.tensors[0].components["data"].extents[0].path == blob
        assert list(found.stamps) == [blob]


def test_blob_named_by_git_proves_nothing(tmp_path):
    assert open_checkpoint(str(cached(tmp_path, "ab" * 20))).identities == {}


def test_cache_without_main_takes_the_only_snapshot(tmp_path):
    root = cached(tmp_path, "ab" * 32)
    (root / "refs" / "main").unlink()
    assert names(open_checkpoint(str(root))) == ["w"]
    (root / "snapshots" / ("d" * 40)).mkdir()
    with pytest.raises(FormatError, match=r"cccccccc.*dddddddd"):
        open_checkpoint(str(root))


def test_unfinished_download_is_told(tmp_path):
    with pytest.raises(FormatError, match="unfinished download"):
        open_checkpoint(str(HOSTILE["blob_missing"](tmp_path)))


@pytest.mark.parametrize("depth", [300, 900, *range(940, 1000, 3), 5000])
def test_nesting_in_index_and_config_ends_cleanly(depth, tmp_path):
    directory, deep = write_sharded(tmp_path, TWO), "[" * depth + "]" * depth
    for name, text in (
        ("config.json", deep),
        ("model.safetensors.index.json", f'{{"metadata":{{"k":{deep}}},"weight_map":{{"a":{deep}}}}}'),
    ):
        (directory / name).write_text(text)
        found = huggingface.index(str(directory))
        assert found.errors or found.oddities


def test_mutated_indexes_end_cleanly(tmp_path):
    directory, draw = write_sharded(tmp_path, TWO), random.Random(3)
    path = directory / "model.safetensors.index.json"
    source = path.read_bytes()
    for _ in range(300):
        raw = bytearray(source)
        for _ in range(draw.randint(1, 3)):
            raw[draw.randrange(len(raw))] = draw.choice(b'{}[]",:0123456789./a\\')
        path.write_bytes(raw)
        try:
            found = huggingface.index(str(directory))
        except DiffaiError:
            continue
        assert {"a", "b", "c"} <= {*names(found), *failed(found)}
