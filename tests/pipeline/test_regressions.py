"""What a naive comparison gets wrong: each of these was once answered falsely by some tool."""

import os
import shutil

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoints import write_safetensors, write_sharded
from tests.models import cast, llama, tuned
from tests.validation import of_type, run, stable, tensors

BF16 = ml_dtypes.bfloat16


@pytest.fixture
def pair(tmp_path):
    """Writes two single-file checkpoints and compares them."""

    def compared(old, new, old_metadata=None, new_metadata=None, **options):
        a = write_safetensors(tmp_path / "old.safetensors", old, old_metadata)
        b = write_safetensors(tmp_path / "new.safetensors", new, new_metadata)
        return run(a, b, **options)

    return compared


def verdict(records):
    summary = records[-1]
    return summary["status"], summary["differs_in"], summary["exit_status"]


def weights(shape=(64, 48), seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(dtype)


def test_permuted_weights_have_equal_statistics_and_differ(pair):
    old = weights()
    records = pair({"w": old}, {"w": np.random.default_rng(1).permutation(old.reshape(-1)).reshape(old.shape)}, stats=True)
    found = tensors(records)["w"]
    assert found["status"] == "changed"
    assert found["change"]["ks"] == 0
    assert found["change"]["changed_count"] > 3000
    assert found["stats"]["old"]["quantiles"] == found["stats"]["new"]["quantiles"]
    assert verdict(records) == ("different", [], 1)


def test_every_bfloat16_changed(pair):
    old = weights(dtype=BF16)
    records = pair({"w": old}, {"w": (old.view(np.uint16) ^ 1).view(BF16)})
    assert tensors(records)["w"]["change"]["changed_count"] == old.size
    assert verdict(records)[0] == "different"


@pytest.mark.parametrize("encoding", ["F32", "BF16", "F64", "I8", "I64", "BOOL", "C64"])
def test_one_element_in_the_last_row(pair, encoding):
    values = np.ones((500, 300))
    changed = values.copy()
    changed[-1, -1] = 0
    found = tensors(pair({"w": cast(values, encoding)}, {"w": cast(changed, encoding)}, chunk_size=1 << 16))["w"]
    assert (found["change"]["changed_count"], found["change"]["max_abs"]) == (1, 1.0)
    assert found["change"]["max_abs_index"] == ([499, 299, 0] if encoding == "C64" else [499, 299])


@pytest.mark.parametrize("encoding", ["F32", "BF16", "F16", "F64", "F8_E4M3"])
def test_nan_against_nan_and_signed_zeros_are_unchanged(pair, encoding):
    width = {"F32": np.uint32, "F64": np.uint64, "F8_E4M3": np.uint8}.get(encoding, np.uint16)
    sign = width(1 << (np.dtype(width).itemsize * 8 - 1))
    old = cast(np.array([np.nan, 0.0, 1.0]), encoding)
    codes = np.frombuffer(old[2], width).copy()
    codes[:2] ^= sign
    records = pair({"w": old}, {"w": (encoding, (3,), codes.tobytes())}, include_unchanged=True)
    found = tensors(records)["w"]
    assert (found["status"], found["change"]["changed_count"]) == ("unchanged", 0)
    assert (found["stats"]["old"]["nan_count"], found["stats"]["new"]["zero_count"]) == (1, 1)
    assert verdict(records) == ("identical", [], 0)


def test_nan_that_appears_is_a_change(pair):
    old, new = weights(), weights()
    new[3, 4] = np.nan
    found = tensors(pair({"w": old}, {"w": new}))["w"]
    assert (found["status"], found["change"]["changed_count"], found["stats"]["delta"]["nan_count"]) == ("changed", 1, 1)
    assert found["change"]["max_abs"] == 0.0
    assert found["change"]["max_abs_index"] is None


@pytest.mark.parametrize(("options", "status"), [({}, 0), ({"strict": True}, 1), ({"strict": True, "exit_zero": True}, 0)])
def test_metadata_alone(pair, options, status):
    records = pair({"w": weights()}, {"w": weights()}, {"step": "1"}, {"step": "2"}, **options)
    assert verdict(records) == ("equivalent", ["metadata"], status)
    assert [record["code"] for record in of_type(records, "warning")] == ["metadata_differs"]


def shards_of(tensors_by_name, count):
    names = list(tensors_by_name)
    parts = [{name: tensors_by_name[name] for name in names[i::count]} for i in range(count)]
    return {f"model-{i + 1:05}-of-{count:05}.safetensors": part for i, part in enumerate(parts)}


def test_resharded_is_equivalent(tmp_path):
    model = llama(2, 16)
    three, two = (write_sharded(tmp_path / str(n), shards_of(model, n)) for n in (3, 2))
    assert verdict(run(two, three)) == ("equivalent", ["sharding"], 0)
    other = {name: dict(part) for name, part in shards_of(model, 3).items()}
    first, second = list(other)[:2]
    other[second] |= {name: other[first].pop(name) for name in list(other[first])[:1]}
    assert verdict(run(three, write_sharded(tmp_path / "moved", other))) == ("equivalent", ["sharding"], 0)
    single = write_safetensors(tmp_path / "one.safetensors", model, {"format": "pt"})
    records = run(single, three)
    assert (records[-1]["status"], records[-1]["counts"]["unchanged"]) == ("equivalent", len(model))
    assert {"container", "sharding"} <= set(records[-1]["differs_in"])


def test_files_beside_the_weights_are_no_sharding(tmp_path):
    model = llama(2, 16)
    a, b = (write_sharded(tmp_path / name, shards_of(model, 2)) for name in "ab")
    (b / "config.json").write_text('{"tie_word_embeddings": false}')
    assert verdict(run(a, b)) == ("identical", [], 0)


def test_a_truncated_shard_costs_its_tensors_only(tmp_path):
    model = llama(2, 16)
    shards = shards_of(model, 2)
    a, b = (write_sharded(tmp_path / name, parts) for name, parts in (("a", shards), ("b", shards_of(tuned(model), 2))))
    cut = b / list(shards)[1]
    cut.write_bytes(cut.read_bytes()[:-600])
    records = run(a, b)
    errors = of_type(records, "error")
    lost = {record["tensor"] for record in errors}
    assert 0 < len(lost) < len(model)
    assert lost <= shards[list(shards)[1]].keys()
    assert all(record["path"] == str(cut) for record in errors)
    assert tensors(records).keys() == model.keys() - lost
    assert all(record["status"] == "changed" for record in tensors(records).values())
    summary = records[-1]
    assert (summary["status"], summary["exit_status"], summary["counts"]["error"]) == ("failed", 2, len(lost))
    assert (summary["counts"]["removed"], summary["counts"]["added"]) == (0, 0)


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_an_unaligned_header(tmp_path, io):
    old, new = weights(dtype=np.float64), weights(dtype=np.float64)
    new[5, 6] += 1
    for extra in range(1, 8):
        paths = []
        for name, values in (("old", old), ("new", new)):
            metadata = {"x": "y" * (extra if name == "old" else 3)}
            content = {"odd": np.ones(extra, np.uint8), "w": values, "half": values.astype(np.float16)}
            paths.append(write_safetensors(tmp_path / f"{name}.safetensors", content, metadata, aligned=False))
        found = tensors(run(*paths, io=io))
        assert found.keys() == {"w", "half"}
        assert found["w"]["change"]["max_abs_index"] == [5, 6]
        assert found["w"]["stats"]["old"]["l2_norm"] == pytest.approx(np.linalg.norm(old), rel=1e-9)


@pytest.mark.parametrize(("old", "new"), [("BF16", "F32"), ("F32", "BF16"), ("I8", "F32"), ("BOOL", "I64"), ("F64", "F16")])
def test_equal_values_in_another_encoding(pair, old, new):
    values = (np.arange(600).reshape(20, 30) % 2).astype(np.float64)
    records = pair({"w": cast(values, old)}, {"w": cast(values, new)})
    assert tensors(records)["w"]["status"] == "retyped"
    assert verdict(records) == ("equivalent", ["encoding"], 0)


def test_integers_beyond_2_to_53_are_compared_as_integers(pair):
    old = np.array([2**60, -(2**60), 5], np.int64)
    found = tensors(pair({"w": old}, {"w": old + np.array([1, 0, 0])}))["w"]
    assert (found["status"], found["change"]["changed_count"]) == ("changed", 1)


def test_complex_and_real_of_one_shape_are_measured_apart(pair):
    records = pair({"w": cast(np.ones((3, 4)), "C64")}, {"w": cast(np.ones((3, 4)), "F32")})
    assert tensors(records)["w"]["status"] == "reshaped"
    assert verdict(records)[0] == "different"


def test_a_tied_head_is_not_removed(pair):
    model = llama(2, 16)
    model["lm_head.weight"] = model["model.embed_tokens.weight"]
    tied = {name: values for name, values in model.items() if name != "lm_head.weight"}
    records = pair(model, tied, analyses=("anomaly",))
    assert tensors(records)["lm_head.weight"]["match"] == "tied"
    assert verdict(records) == ("equivalent", ["names"], 0)
    assert (records[-1]["counts"]["removed"], records[-1]["counts"]["renamed"]) == (0, 1)


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_the_same_file_is_not_read(tmp_path, link):
    old = write_safetensors(tmp_path / "old.safetensors", llama(2, 16))
    new = old if link is None else tmp_path / "new.safetensors"
    if link is not None:
        link(old, new)
    records = run(old, new)
    assert verdict(records) == ("identical", [], 0)
    assert (records[0]["plan"]["read_nbytes"], records[-1]["read_nbytes"]) == (0, 0)
    assert all(record["unread_count"] > 0 for record in of_type(records, "layer_impact") if record["scope"] == "layer")
    looked = run(old, new, include_unchanged=True)
    assert looked[-1]["read_nbytes"] == looked[0]["old"]["stored_nbytes"]
    assert {record["status"] for record in tensors(looked).values()} == {"unchanged"}


def test_an_equal_copy_is_read_and_identical(tmp_path):
    old = write_safetensors(tmp_path / "old.safetensors", llama(2, 16))
    shutil.copy(old, tmp_path / "new.safetensors")
    records = run(old, tmp_path / "new.safetensors")
    assert verdict(records) == ("identical", [], 0)
    assert records[-1]["read_nbytes"] == 2 * records[0]["old"]["stored_nbytes"]


def test_swapped_sides_mirror(tmp_path):
    model = llama(2, 16)
    a = write_safetensors(tmp_path / "a.safetensors", model | {"gone": weights()})
    b = write_safetensors(tmp_path / "b.safetensors", tuned(model, 0.1) | {"fresh": weights((3, 4))})
    there, back = run(a, b, stats=True), run(b, a, stats=True)
    for name, record in tensors(there).items():
        mirrored = tensors(back)[name]
        swapped = {"added": "removed", "removed": "added"}.get(record["status"], record["status"])
        assert (mirrored["status"], mirrored["stats"]["old"]) == (swapped, record["stats"]["new"])
        if record["change"] is None:
            continue
        for key in ("changed_count", "sign_flip_count", "max_abs", "max_abs_index", "l2_norm", "ks", "ulp_max"):
            assert mirrored["change"][key] == record["change"][key]
        assert mirrored["stats"]["delta"]["mean"] == pytest.approx(-record["stats"]["delta"]["mean"], rel=1e-9, abs=1e-12)
        relative = record["change"]["l2_norm"] / record["stats"]["new"]["l2_norm"]
        assert mirrored["change"]["relative_l2"] == pytest.approx(relative, rel=1e-6)


def test_the_order_in_the_file_changes_the_order_only(tmp_path):
    model, other = llama(3, 16), tuned(llama(3, 16))
    names = list(np.random.default_rng(0).permutation(list(model)))
    a, b = (write_safetensors(tmp_path / f"{n}.safetensors", m) for n, m in (("a", model), ("b", other)))
    straight = run(a, b, stats=True)
    write_safetensors(a, {name: model[name] for name in names})
    mixed = run(a, b, stats=True)

    def contents(records):
        return sorted(stable({k: v for k, v in r.items() if k not in ("seq", "run_id")} for r in records[1:]))

    assert list(tensors(mixed)) == names
    assert contents(mixed) == contents(straight)


def test_a_file_replaced_after_one_comparison_is_read_anew_in_the_next(tmp_path):
    a, b, c = (write_safetensors(tmp_path / f"{n}.safetensors", {"w": weights() * n}) for n in (1, 2, 3))
    assert tensors(run(a, b))["w"]["change"]["relative_l2"] == pytest.approx(1)
    os.replace(c, b)
    assert tensors(run(a, b))["w"]["change"]["relative_l2"] == pytest.approx(2)
