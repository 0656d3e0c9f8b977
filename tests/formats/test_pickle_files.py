"""Models of scikit-learn in pickles, joblib and skops files, against the arrays themselves."""

from __future__ import annotations

import gzip
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.errors import DiffaiError, FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare
from diffai_stream.plan.sources import Source

ARRAYS = {
    "plain": np.arange(24, dtype=np.float32).reshape(4, 6),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(4, 6)),
    "big_endian": np.arange(7, dtype=">i4"),
    "scalar": np.array(3.5),
    "empty": np.empty((0, 3), np.int8),
    "large": np.random.default_rng(0).normal(size=(300, 500)),
    "flags": np.array([True, False]),
}


def values_of(checkpoint) -> dict[str, np.ndarray]:
    """The tensors as they would be compared, little-endian and in C order."""
    found = {}
    for entry in checkpoint.tensors:
        raw = Source(entry, {}, "auto").read(0, entry.numel)
        dtype = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I8": "i1", "U8": "u1", "BOOL": "?"}[entry.encoding]
        found[entry.name] = raw.view(dtype).reshape(entry.shape)
    return found


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_a_pickle(protocol, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(ARRAYS, protocol))
    found = open_checkpoint(str(tmp_path / "a.pkl"))
    assert (found.errors, found.oddities, found.unsafe_globals) == ((), (), ())
    assert_same(values_of(found), ARRAYS)


def test_bytes_written_as_text_are_told(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": ARRAYS["large"]}, 2))
    (error,) = open_checkpoint(str(tmp_path / "a.pkl")).errors
    assert (error.tensor, "newer protocol" in error.message) == ("w", True)


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3)])
def test_arrays_of_joblib(compress, tmp_path):
    joblib = pytest.importorskip("joblib")
    objects = {**ARRAYS, "objects": np.array([None, "x"], dtype=object), "after": np.arange(3)}
    joblib.dump(objects, tmp_path / "a.joblib", compress=compress)
    found = open_checkpoint(str(tmp_path / "a.joblib"))
    assert (found.errors, found.oddities, found.unsafe_globals) == ((), (), ())
    assert_same(values_of(found), {**ARRAYS, "after": np.arange(3)})


@pytest.mark.parametrize("kind", ["bz2", "lzma", "xz"])
def test_other_compressions_are_refused_by_name(kind, tmp_path):
    joblib = pytest.importorskip("joblib")
    joblib.dump(ARRAYS, tmp_path / "a.joblib", compress=(kind, 3))
    with pytest.raises(FormatError, match=f"compressed with {kind}.*zlib"):
        open_checkpoint(str(tmp_path / "a.joblib"))


def forest():
    """A pipeline with a forest: nested estimators, structured arrays, an object array."""
    pytest.importorskip("sklearn")
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(1)
    features, labels = draw.normal(size=(60, 4)), draw.integers(0, 2, 60)
    boosted = GradientBoostingClassifier(n_estimators=3, random_state=0)
    return make_pipeline(StandardScaler(), boosted).fit(features, labels)


def test_a_model_of_scikit_learn(tmp_path):
    model = forest()
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    found = open_checkpoint(str(tmp_path / "m.pkl"))
    assert (found.errors, found.unsafe_globals) == ((), ())
    values, boosted = values_of(found), model[1]
    assert np.array_equal(values["steps.standardscaler.mean_"], model[0].mean_)
    tree = boosted.estimators_[2, 0].tree_
    prefix = "steps.gradientboostingclassifier.estimators_.2.0.tree_"
    assert np.array_equal(values[f"{prefix}.nodes.threshold"], tree.threshold)
    assert np.array_equal(values[f"{prefix}.nodes.left_child"], tree.children_left)
    assert np.array_equal(values[f"{prefix}.values"], tree.value)
    assert found.hyperparameters["steps.gradientboostingclassifier.learning_rate"] == 0.1
    assert found.hyperparameters["steps.standardscaler.with_mean"] is True


@pytest.mark.parametrize("other", ["joblib", "joblib.z", "skops"])
def test_one_model_in_two_containers_is_equivalent(other, tmp_path):
    model, path = forest(), tmp_path / f"m.{other}"
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    if other == "skops":
        pytest.importorskip("skops.io").dump(model, path)
    else:
        pytest.importorskip("joblib").dump(model, path, compress=3 if other.endswith("z") else 0)
    records = list(compare(str(tmp_path / "m.pkl"), str(path)))
    assert [record for record in records if record["type"] == "error"] == []
    assert records[-1]["status"] in ("identical", "equivalent")
    assert records[-1]["counts"]["unchanged"] == len(open_checkpoint(str(tmp_path / "m.pkl")).tensors)


def test_a_changed_model_is_different(tmp_path):
    old, new = forest(), forest()
    new[0].mean_[2] += 1
    for name, model in (("a.pkl", old), ("b.pkl", new)):
        (tmp_path / name).write_bytes(pickle.dumps(model))
    records = list(compare(str(tmp_path / "a.pkl"), str(tmp_path / "b.pkl")))
    assert [record["name"] for record in records if record["type"] == "tensor"] == ["steps.standardscaler.mean_"]


@pytest.mark.parametrize("cut", [10, 100, 2000])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_files_end_cleanly(compressed, cut, tmp_path):
    raw = pickle.dumps(ARRAYS)
    raw = zlib.compress(raw) if compressed else raw
    (tmp_path / "a.pkl").write_bytes(raw[:-cut])
    with pytest.raises(FormatError, match=r"a\.pkl"):
        open_checkpoint(str(tmp_path / "a.pkl"))


def test_a_bomb_is_refused_while_it_inflates(tmp_path, monkeypatch):
    from diffai_stream.formats.pickled import stream

    monkeypatch.setattr(stream, "_SMALL_NBYTES", 1 << 22)
    bomb = b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + bytes(1 << 26)
    (tmp_path / "a.pkl").write_bytes(gzip.compress(bomb))
    with pytest.raises(FormatError, match="inflates to more"):
        open_checkpoint(str(tmp_path / "a.pkl"))


def test_other_text_is_no_pickle(tmp_path):
    for name, raw in (("a.bin", b"\x78\x9c" + b"x" * 50), ("b.bin", b"\x1f\x8b\x08" + b"\0" * 50)):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DiffaiError):
            open_checkpoint(str(tmp_path / name))


def test_the_schema_of_skops_is_believed_for_nothing(tmp_path):
    import zipfile

    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy", "file": "../x.npy"}
    content = {"a": node, "b": {**node, "__class__": "float64"}, "deep": "[" * 10}
    schema = {"__class__": "dict", "__module__": "os", "__loader__": "DictNode", "content": content}
    path: Path = tmp_path / "m.skops"
    with zipfile.ZipFile(path, "w") as archive:
        import json

        archive.writestr("schema.json", json.dumps(schema))
    found = open_checkpoint(str(path))
    assert sorted(error.tensor or "" for error in found.errors) == ["a", "b"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [3, 5])
def test_tensors_of_torch_in_a_plain_pickle(protocol, tmp_path):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)
    shared = torch.randn(5, 4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    value = {"a": shared, "t": torch.randn(6, 2).t(), "half": torch.ones(3, dtype=torch.bfloat16), "model": model}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(value, protocol))
    found = open_checkpoint(str(tmp_path / "m.pkl"))
    assert (found.errors, found.unsafe_globals) == ((), ())
    flat = {"a": shared, "t": value["t"].contiguous(), "half": value["half"], **model.state_dict()}
    safetensors.save_file(flat, tmp_path / "x.safetensors")
    records = list(compare(str(tmp_path / "x.safetensors"), str(tmp_path / "m.pkl")))
    assert (records[-1]["status"], records[-1]["counts"]["unchanged"]) == ("equivalent", len(flat))


def test_objects_that_carry_their_source_give_their_state(tmp_path):
    from tests.formats.pickle_bytes import called, mapping, pickle_of, text

    array = pickle.dumps(np.arange(3.0), protocol=4)[2:-1].replace(pickle.dumps(np.arange(3.0), protocol=4)[2:11], b"", 1)
    meta = mapping({"type": text("class"), "module_src": text("raise SystemExit"), "state": mapping({"weight": array})})
    value = called("torch_utils.persistence", "_reconstruct_persistent_obj", meta)
    (tmp_path / "g.pkl").write_bytes(pickle_of(mapping({"G": value})))
    found = open_checkpoint(str(tmp_path / "g.pkl"))
    assert [entry.name for entry in found.tensors] == ["G.weight"]
    assert found.unsafe_globals == ("torch_utils.persistence._reconstruct_persistent_obj",)
