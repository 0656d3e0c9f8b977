"""Profiles: what they say of a checkpoint whose weights are not there, held against the weights."""

import json
import os
import random
import shutil

import ml_dtypes
import numpy as np
import pytest
import zarr
from scipy.stats import ks_2samp, wasserstein_distance

from diffai_stream.errors import DiffaiError, FormatError, UsageError
from diffai_stream.pipeline import compare, inspect, merge_profiles, profile
from tests.checkpoints import write_safetensors
from tests.models import llama, tuned
from tests.validation import of_type, printed, run, tensors


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Old and new: changed, unchanged, added, removed, reshaped, retyped; the profile of each."""
    folder = tmp_path_factory.mktemp("models")
    old, new = llama(), tuned(llama())
    new["model.norm.weight"] = old["model.norm.weight"]
    new["extra.weight"] = new.pop("model.layers.5.mlp.up_proj.weight")
    new["lm_head.weight"] = new["lm_head.weight"][:100]
    one = old["model.layers.0.mlp.up_proj.weight"].copy()
    one[-1, -1] += 1
    new["model.layers.0.mlp.up_proj.weight"] = one
    paths = [write_safetensors(folder / f"{name}.safetensors", model) for name, model in (("old", old), ("new", new))]
    profiles = [folder / f"{path.stem}.zarr" for path in paths]
    for path, kept in zip(paths, profiles, strict=True):
        printed(profile(str(path), store=str(kept)))
    return paths, profiles, (old, new)


def statuses(records):
    return {name: record["status"] for name, record in tensors(records).items()}


@pytest.mark.parametrize("places", [(1, 0), (0, 1), (1, 1)], ids=["old profiled", "new profiled", "both profiled"])
def test_statuses_and_figures_are_those_of_the_weights(models, places):
    chosen = [models[place][side] for side, place in enumerate(places)]
    full = run(*models[0], include_unchanged=True, stats=True)
    found = run(*chosen, include_unchanged=True, stats=True)
    assert statuses(found) == statuses(full)
    assert found[-1]["status"] == "different"
    assert found[-1]["parameter_count"]["changed"] is None
    for name, record in tensors(found).items():
        expected = tensors(full)[name]["stats"]
        if name == "lm_head.weight":
            assert tensors(full)[name]["match"] == "padded"  # with weights the rows that both have are compared
            continue
        assert record["stats"]["old"] == expected["old"]
        assert record["stats"]["new"] == expected["new"]
        assert record["stats"]["delta"] is record["change"] is None
    for side, place in zip(("old", "new"), places, strict=True):
        assert (found[0][side]["format"] == "profile") == (place == 1)
        assert found[0][side]["parameter_count"] == full[0][side]["parameter_count"]


def test_only_the_weights_that_are_there_are_read(models):
    (_, new), (kept_old, kept_new), _ = models
    assert run(kept_old, new)[-1]["read_nbytes"] == sum(r["new"]["stored_nbytes"] for r in look(new))
    assert run(kept_old, kept_new)[-1]["read_nbytes"] == 0


def look(path):
    return [{"new": record["old"]} for record in of_type(printed(inspect(str(path))), "tensor")]


def test_equal_weights_are_identical(models, tmp_path):
    _, profiles, (old, _) = models
    copy = write_safetensors(tmp_path / "copy.safetensors", old)
    for new in (copy, profiles[0]):
        assert run(profiles[0], new)[-1]["status"] == "identical"
    other = write_safetensors(tmp_path / "other.safetensors", old, {"format": "pt"})
    summary = run(profiles[0], other)[-1]
    assert (summary["status"], summary["differs_in"]) == ("equivalent", ["metadata"])
    assert run(profiles[0], other)[-1]["parameter_count"]["changed"] == 0


def test_another_encoding_counts_as_changed_and_says_why(models, tmp_path):
    _, profiles, (old, _) = models
    narrow = {name: values.astype(ml_dtypes.bfloat16) for name, values in old.items()}
    records = run(profiles[0], write_safetensors(tmp_path / "bf16.safetensors", narrow))
    assert set(statuses(records).values()) == {"changed"}
    told = [record for record in of_type(records, "skipped") if record["analysis"] == "equality"]
    assert len(told) == len(old)
    assert "stored as F32 and as BF16" in told[0]["reason"]


def test_the_shift_is_told_as_if_the_weights_were_there(models):
    paths, profiles, _ = models
    full = {r["subject"]: r for r in of_type(run(*paths, analyses=("distribution_shift",)), "distribution_shift")}
    records = run(profiles[0], paths[1])
    found = {r["subject"]: r for r in of_type(records, "distribution_shift")}
    assert found.keys() == {name for name, status in statuses(records).items() if status in ("changed", "reshaped")}
    for name in found.keys() - {"lm_head.weight"}:
        assert {**found[name], "seq": 0, "run_id": ""} == {**full[name], "seq": 0, "run_id": ""}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A tensor whose patterns and rows a profile keeps, in bfloat16, before and after: one row dies, another is dead."""
    folder, random = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    old = random.normal(0, 0.02, (1025, 4096)).astype(ml_dtypes.bfloat16)
    new = (old.astype(np.float32) + random.normal(0.001, 0.002, old.shape)).astype(ml_dtypes.bfloat16)
    old[7], new[300] = 0, 0
    paths = [write_safetensors(folder / f"{name}.safetensors", {"w": side}) for name, side in (("old", old), ("new", new))]
    profiles = [folder / f"{path.stem}.zarr" for path in paths]
    for path, kept in zip(paths, profiles, strict=True):
        printed(profile(str(path), store=str(kept)))
    return paths, profiles, (old.astype(float), new.astype(float))


@pytest.mark.parametrize("places", [(1, 0), (0, 1), (1, 1)], ids=["old profiled", "new profiled", "both profiled"])
def test_the_distribution_of_a_large_tensor_is_kept_pattern_by_pattern(large, places):
    full = of_type(run(*large[0], analyses=("distribution_shift",)), "distribution_shift")[0]
    (found,) = of_type(run(*(large[place][side] for side, place in enumerate(places))), "distribution_shift")
    assert {**found, "seq": 0, "run_id": ""} == {**full, "seq": 0, "run_id": ""}
    old, new = (side.ravel() for side in large[2])
    assert found["keys"] == "patterns"
    assert found["ks"] == pytest.approx(ks_2samp(old, new, method="asymp").statistic, rel=1e-6)
    assert found["wasserstein"] == pytest.approx(wasserstein_distance(old, new), rel=1e-6)


@pytest.mark.parametrize("places", [(1, 0), (0, 1), (1, 1)], ids=["old profiled", "new profiled", "both profiled"])
def test_dead_rows_are_told_as_if_the_weights_were_there(large, places):
    def dead(*paths, **options):
        return [(r["side"], r["detail"]) for r in of_type(run(*paths, **options), "anomaly") if r["kind"] == "dead_rows"]

    chosen = [large[place][side] for side, place in enumerate(places)]
    full = dead(*large[0], analyses=("anomaly",))
    assert full == [("both", full[0][1])]
    assert full[0][1].endswith(": 300")
    assert dead(*chosen, analyses=("anomaly",)) == full


def test_what_needs_both_sides_is_skipped_or_refused(models):
    _, (kept, _), _ = models
    new = models[0][1]
    records = run(kept, new, all_analyses=True)
    skipped = {record["analysis"] for record in of_type(records, "skipped")}
    assert {"layer_impact", "quantization", "similarity_matrix"} <= skipped
    assert not {"layer_impact", "quantization"} & {record["type"] for record in records}
    for options in ({"epsilon": 0.1}, {"quantization_aware": True}, {"analyses": ("regression_test",)}):
        with pytest.raises(UsageError, match="needs the weights of both sides"):
            compare(str(kept), str(new), **options)
    with pytest.raises(UsageError, match="there to be compared with"):
        inspect(str(kept))
    with pytest.raises(UsageError, match="--store PATH"):
        profile(str(new))


@pytest.mark.parametrize("options", [{"fast": True}, {"histograms": True, "stats": True}, {"analyses": ("anomaly",)}], ids=str)
def test_options_of_figures_work_against_a_profile(models, options):
    records = run(models[1][0], models[0][1], **options)
    assert records[-1]["status"] == "different"
    assert not of_type(records, "error")


def test_an_anomaly_of_either_side_is_found(tmp_path):
    old, new = llama(2), llama(2)
    old["model.norm.weight"] = old["model.norm.weight"].copy()
    old["model.norm.weight"][0] = np.nan
    new["lm_head.weight"] = new["lm_head.weight"] * 0
    paths = [write_safetensors(tmp_path / f"{n}.safetensors", m) for n, m in (("a", old), ("b", new))]
    list(profile(str(paths[0]), store=str(tmp_path / "p")))
    found = {(r["subject"], r["side"]) for r in of_type(run(tmp_path / "p", paths[1]), "anomaly")}
    assert {("model.norm.weight", "old"), ("lm_head.weight", "new")} <= found


def test_the_weights_may_be_gone_and_the_profile_elsewhere(models, tmp_path):
    old = write_safetensors(tmp_path / "old.safetensors", models[2][0])
    list(profile(str(old), store=str(tmp_path / "p")))
    old.unlink()
    shutil.move(tmp_path / "p", tmp_path / "q")
    assert run(tmp_path / "q", models[0][0])[-1]["status"] == "identical"


def test_a_profile_is_small(tmp_path):
    random_numbers = np.random.default_rng(0)
    model = {f"w{i}": random_numbers.normal(0, 0.05, (4096, 1024)).astype(ml_dtypes.bfloat16) for i in range(4)}
    path = write_safetensors(tmp_path / "m.safetensors", model)
    list(profile(str(path), store=str(tmp_path / "p")))
    size = sum(file.stat().st_size for file in (tmp_path / "p").rglob("*") if file.is_file())
    assert size <= 0.002 * path.stat().st_size


def test_the_library_opens_a_profile(models):
    group = zarr.open_group(str(models[1][0]), mode="r")
    assert group.attrs["kind"] == "profile"
    index = json.loads(group["index"][:].tobytes()[: group["index"].attrs["index_nbytes"]])
    assert {told[0] for told in index["tensors"]} == set(models[2][0])
    assert all(array[:].size == array.shape[0] for _, array in group["batches"].arrays())


def test_a_profile_is_resumed_and_made_anew(models, tmp_path):
    old = write_safetensors(tmp_path / "old.safetensors", models[2][0])
    first = printed(profile(str(old), store=str(tmp_path / "p")))
    shutil.rmtree(tmp_path / "p" / "index")
    with pytest.raises(FormatError, match="not complete"):
        compare(str(tmp_path / "p"), str(old))
    again = printed(profile(str(old), store=str(tmp_path / "p")))
    assert again[-1]["read_nbytes"] == 0 < first[-1]["read_nbytes"]
    assert run(tmp_path / "p", old)[-1]["status"] == "identical"
    write_safetensors(old, models[2][1])
    list(profile(str(old), store=str(tmp_path / "p")))
    assert run(tmp_path / "p", models[0][1])[-1]["status"] == "identical"


@pytest.mark.parametrize("seed", range(12))
def test_no_flipped_byte_of_a_profile_is_believed(models, tmp_path, seed):
    kept = shutil.copytree(models[1][0], tmp_path / "p")
    chosen = random.Random(seed)
    files = sorted(path for path in kept.rglob("*") if path.is_file() and path.stat().st_size)
    damaged = chosen.choice(files)
    raw = bytearray(damaged.read_bytes())
    raw[chosen.randrange(len(raw))] ^= 0x10
    damaged.write_bytes(raw)
    if damaged.parent == kept or damaged.parent.name == "index":
        with pytest.raises(FormatError, match="make the profile again"):
            run(kept, models[0][0])
        return
    records = run(kept, models[0][0])
    unused = damaged.parent.name == "batches"  # the metadata of the group
    assert records[-1]["status"] == ("identical" if unused else "failed")
    assert all(error["path"] == str(kept) for error in of_type(records, "error"))


def test_a_tensor_that_could_not_be_read_is_an_error_later_too(models, tmp_path):
    old = write_safetensors(tmp_path / "old.safetensors", models[2][0])
    os.truncate(old, old.stat().st_size - 1000)
    assert of_type(list(profile(str(old), store=str(tmp_path / "p"))), "error")
    records = run(tmp_path / "p", models[0][0])
    assert records[-1]["status"] == "failed"
    assert records[-1]["counts"]["added"] == 0


def test_profiles_of_shards_are_joined(models, tmp_path):
    _, (whole, _), (old, _) = models
    names = list(old)
    parts = []
    for number, chosen in enumerate((names[:20], names[20:])):
        shard = write_safetensors(tmp_path / f"model-{number}.safetensors", {name: old[name] for name in chosen})
        parts.append(tmp_path / f"{number}.zarr")
        list(profile(str(shard), store=str(parts[-1])))
    joined = tmp_path / "joined.zarr"
    assert merge_profiles(list(map(str, parts)), str(joined)) == len(old)
    for part in parts:
        shutil.rmtree(part)
    assert run(joined, models[0][0])[-1]["status"] in ("identical", "equivalent")
    found, expected = (run(kept, models[0][1], include_unchanged=True) for kept in (joined, whole))
    assert tensors(found).keys() == tensors(expected).keys()
    for name, record in tensors(found).items():
        assert record["stats"] == tensors(expected)[name]["stats"]
        assert record["status"] == tensors(expected)[name]["status"]


def test_shards_that_contradict_each_other_are_refused(models, tmp_path):
    with pytest.raises(UsageError, match="with other contents"):
        merge_profiles(list(map(str, models[1])), str(tmp_path / "j"))
    assert merge_profiles([str(models[1][0])] * 2, str(tmp_path / "k")) == len(models[2][0])


def test_a_store_of_results_is_no_profile(models, tmp_path):
    run(*models[0], store=str(tmp_path / "s"))
    with pytest.raises(UsageError, match="store of results"):
        compare(str(tmp_path / "s"), str(models[0][0]))
    with pytest.raises(UsageError, match="holds results"):
        profile(str(models[0][0]), store=str(tmp_path / "s"))
    with pytest.raises(DiffaiError, match="holds profile"):
        compare(*map(str, models[0]), store=str(models[1][0]))


def test_the_commands(diffai, models, tmp_path):
    (old, new), _, _ = models
    assert diffai("profile", old, "--store", tmp_path / "p", "-o", "ndjson")[0] == 0
    status, out, _ = diffai(tmp_path / "p", new, "-o", "ndjson")
    assert (status, json.loads(out.splitlines()[-1])["status"]) == (1, "different")
    assert diffai("profile", old, "--store", tmp_path / "p", "-o", "text")[0] == 0
    assert diffai(tmp_path / "p", new, "-o", "text")[0] == 1
    status, out, _ = diffai("profile", "merge", tmp_path / "p", "--store", tmp_path / "m")
    assert (status, out) == (0, f"{tmp_path / 'm'}: {len(models[2][0])} tensors of 1 profiles\n")
    assert diffai(tmp_path / "m", old)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "a", "b", "--store", "c"], "one checkpoint makes a profile, not 2"),
        (["profile", "a"], "--store PATH"),
        (["profile", "merge", "a"], "diffai profile merge A.zarr B.zarr --store C.zarr"),
        (["profile", "merge", "--store", "a"], "diffai profile merge A.zarr B.zarr --store C.zarr"),
    ],
)
def test_wrong_calls_are_told_in_a_line(diffai, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "a", {"w": np.zeros(4, np.float32)})
    status, out, err = diffai(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
