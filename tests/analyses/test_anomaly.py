"""Planted truths are found, and a healthy model raises no alarm."""

import numpy as np
import pytest

from diffai_stream.analyses.anomaly import SEVERITY
from tests.checkpoints import write_safetensors
from tests.models import cast, llama, tuned
from tests.validation import anomalies, look, of_type, run, tensors

UP, NORM, HEAD = "model.layers.3.mlp.up_proj.weight", "model.layers.3.input_layernorm.weight", "lm_head.weight"
FLAG = {"analyses": ("anomaly",)}


@pytest.fixture
def compared(tmp_path):
    def compare(old, new, **options):
        a, b = (write_safetensors(tmp_path / f"{name}.safetensors", side) for name, side in (("old", old), ("new", new)))
        return run(a, b, **options)

    return compare


def planted(change, names=(UP,), seed=1):
    """A healthy model, and its successor with something done to some tensors."""
    old = llama()
    new = tuned(old, 0.01, seed)
    return old, new | {name: change(new[name].copy()) for name in names}


def kinds(records):
    return {(kind, subject) for kind, subject, _ in anomalies(records)}


@pytest.mark.parametrize("options", [{}, FLAG, {"fast": True}, {"stats": True, **FLAG}], ids=str)
@pytest.mark.parametrize("encoding", ["F32", "BF16", "F16"])
def test_a_healthy_model_raises_no_alarm(compared, options, encoding):
    sides = [{name: cast(values, encoding) for name, values in side.items()} for side in (llama(8), tuned(llama(8)))]
    records = compared(*sides, **options)
    assert anomalies(records) == set()
    assert tensors(records).keys() == sides[0].keys()


def test_nor_does_a_cast_of_it(compared):
    old = llama()
    for encoding in ("BF16", "F16", "F8_E4M3"):
        assert anomalies(compared(old, {name: cast(v, encoding) for name, v in old.items()}, **FLAG)) == set()


@pytest.mark.parametrize("seed", range(5))
def test_nor_do_other_seeds_and_depths(compared, seed):
    old = llama(3 + 2 * seed, 32, seed)
    assert anomalies(compared(old, tuned(old, 0.003, seed), **FLAG)) == set()


def with_nan(values):
    values.reshape(-1)[[3, 5]] = np.nan, -np.inf
    return values


def spiked(values):
    values.reshape(-1)[::997] = 5
    return values


PLANTS = [
    ("nonfinite", with_nan),
    ("exploding", lambda values: values * np.float32(8)),
    ("vanishing", lambda values: values / np.float32(8)),
    ("constant", lambda values: np.full_like(values, 0.25)),
    ("all_zero", np.zeros_like),
    ("heavy_tail", spiked),
    ("untrained", lambda values: np.random.default_rng(3).normal(0, 0.02, (1024, 256)).astype(np.float32)),
]


@pytest.mark.parametrize("options", [{}, FLAG], ids=["default", "flag"])
@pytest.mark.parametrize(("kind", "change"), PLANTS, ids=[kind for kind, _ in PLANTS])
def test_a_plant_is_found_on_its_side(compared, kind, change, options):
    records = compared(*planted(change), **options)
    found = [record for record in of_type(records, "anomaly") if record["kind"] == kind]
    assert [(record["subject"], record["side"]) for record in found] == [(UP, "new")]
    assert (found[0]["severity"], found[0]["scope"]) == (SEVERITY[kind], "tensor")
    assert all(record["subject"] in (UP, "model.layers.3") for record in of_type(records, "anomaly"))


def test_counts_tell_what_is_not_finite(compared):
    (found,) = [r for r in of_type(compared(*planted(with_nan)), "anomaly") if r["kind"] == "nonfinite"]
    assert (found["count"], found["detail"]) == (2, "1 NaN, 0 +Inf, 1 -Inf")


def test_the_old_side_and_both_sides_are_told_apart(compared):
    old, new = planted(with_nan)
    assert ("nonfinite", UP, "old") in anomalies(compared(new, old))
    assert ("nonfinite", UP, "both") in anomalies(compared(new, tuned(new, 0.001)))


def test_vectors_of_zeros_and_ones_are_only_noted(compared):
    old, new = planted(lambda values: np.ones_like(values), [NORM])
    found = {
        record["kind"]: record["severity"] for record in of_type(compared(old, new), "anomaly") if record["subject"] == NORM
    }
    assert found.get("constant") == "info"


def test_saturated_codes(compared):
    values = np.random.default_rng(0).normal(0, 100, (64, 64))
    old, new = {"w": cast(np.clip(values, -90, 90), "I8")}, {"w": cast(np.clip(np.rint(values), -128, 127), "I8")}
    (found,) = of_type(compared(old, new), "anomaly")
    assert (found["kind"], found["side"]) == ("saturated", "new")
    assert found["value"] == pytest.approx((abs(np.clip(np.rint(values), -128, 127) + 0.5) >= 127.5).mean())
    assert found["count"] == round(found["value"] * 4096)


@pytest.mark.parametrize("encoding", ["U8", "I8", "I16", "BOOL"])
@pytest.mark.parametrize("values", [(0, 1), (0, 255), (-128, 127), (0, 1, 2)], ids=str)
def test_flags_masks_and_classes_are_not_saturated(compared, encoding, values):
    codes = np.random.default_rng(0).choice(np.array(values), (64, 64))
    pair = [{"mask": cast(side, encoding)} for side in (codes, codes[::-1])]
    assert "saturated" not in {kind for kind, *_ in anomalies(compared(*pair, **FLAG))}


def test_a_byte_of_zeros_and_a_range_is_not_saturated(compared):
    random = np.random.default_rng(0)
    codes = random.integers(0, 200, (64, 64)) * (random.random((64, 64)) < 0.6)
    assert "saturated" not in {kind for kind, *_ in anomalies(compared({"w": cast(codes, "U8")}, {"w": cast(codes.T, "U8")}))}
    cut = np.clip(codes * 2, 0, 255)
    assert ("saturated", "w", "new") in anomalies(compared({"w": cast(codes, "U8")}, {"w": cast(cut, "U8")}))


def test_a_norm_stored_less_one(compared):
    old, new = planted(lambda values: values, [])
    records = compared(old, new | {NORM: old[NORM] - np.float32(1)})
    (found,) = [record for record in of_type(records, "anomaly") if record["kind"] == "constant_offset"]
    assert (found["subject"], found["side"]) == (NORM, None)
    assert "-1" in found["detail"]


def test_a_layer_that_was_updated_much_more(compared):
    old, new = llama(), tuned(llama(), 0.01)
    block = {name: values for name, values in tuned(old, 0.3).items() if ".layers.3." in name}
    records = compared(old, new | block)
    spikes = [record for record in of_type(records, "anomaly") if record["kind"] == "update_spike"]
    assert [(record["scope"], record["subject"]) for record in spikes] == [("layer", "model.layers.3")]
    assert spikes[0]["value"] == pytest.approx(30, rel=0.1)


def test_dead_rows_need_the_flag(compared):
    def dead(values):
        values[[2, 9]] = 0
        return values

    old, new = planted(dead)
    (found,) = [record for record in of_type(compared(old, new, **FLAG), "anomaly") if record["kind"] == "dead_rows"]
    assert (found["subject"], found["side"], found["count"]) == (UP, "new", 2)
    assert "2, 9" in found["detail"]
    assert ("dead_rows", UP) not in kinds(compared(old, new))


def test_dead_columns_need_the_flag(compared):
    def dead(values):
        values[:, [1, 7, 30]] *= np.float32(1e-9)
        return values

    old, new = planted(dead)
    (found,) = [record for record in of_type(compared(old, new, **FLAG), "anomaly") if record["kind"] == "dead_columns"]
    assert (found["subject"], found["side"], found["count"]) == (UP, "new", 3)
    assert "1, 7, 30" in found["detail"]
    assert ("dead_columns", UP) not in kinds(compared(old, new))
    assert ("dead_columns", UP, "old") in anomalies(compared(new, old, **FLAG))


def test_a_column_without_a_finite_element_is_not_dead(compared):
    def broken(values):
        values[:, 5] = np.nan
        return values

    found = anomalies(compared(*planted(broken), **FLAG))
    assert ("nonfinite", UP, "new") in found
    assert not {kind for kind, *_ in found} & {"dead_columns", "dead_rows"}


def test_duplicate_layers_need_the_flag(compared):
    old, new = planted(lambda values: values, [])
    twin = UP.replace("layers.3", "layers.4")
    records = compared(old, new | {twin: new[UP]}, **FLAG)
    (found,) = [record for record in of_type(records, "anomaly") if record["kind"] == "duplicate_layer"]
    assert (found["subject"], found["side"], found["count"]) == (UP, "new", 2)
    assert twin in found["detail"]
    assert ("duplicate_layer", UP) not in kinds(compared(old, new | {twin: new[UP]}))


def test_a_tied_head_is_no_duplicate(compared):
    old = llama()
    tied = {name: values for name, values in old.items() if name != HEAD}
    same = {**old, HEAD: old["model.embed_tokens.weight"]}
    for pair in ((same, tied), (tied, same), (tied, tied)):
        assert kinds(compared(*pair, **FLAG)) == set()


def test_sides_of_other_shapes_are_judged_apart(compared):
    old, new = planted(lambda values: with_nan(values[:100]))
    assert ("nonfinite", UP, "new") in anomalies(compared(old, new, **FLAG))
    pruned = {name: values[:8] if name == UP else values for name, values in new.items()}
    assert not kinds(compared(old, pruned | {UP: old[UP][:8]})) & {("vanishing", UP), ("exploding", UP)}


def test_added_tensors_are_judged(compared):
    old = llama()
    assert ("nonfinite", "extra.weight", "new") in anomalies(
        compared(old, {**tuned(old), "extra.weight": with_nan(np.ones((8, 8), np.float32))}, **FLAG)
    )


def test_complex_tensors_without_imaginary_part_are_not_zero(compared):
    values = cast(np.random.default_rng(0).normal(size=(8, 8)), "C64")
    assert kinds(compared({"w": values}, {"w": values}, **FLAG, include_unchanged=True)) == set()


def test_identical_files_are_read_for_the_flag(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", planted(with_nan)[1])
    records = run(path, path, **FLAG)
    assert ("nonfinite", UP, "both") in anomalies(records)
    assert records[-1]["status"] == "identical"
    assert anomalies(run(path, path)) == set()


def test_inspection_judges_one_side(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", planted(with_nan)[1])
    assert anomalies(look(path, stats=True)) == {("nonfinite", UP, "old")}
    assert anomalies(look(path)) == set()
    for options in (FLAG, {"include_unchanged": True}):
        assert all(record["stats"]["new"] is None for record in tensors(look(path, **options)).values())
