"""Gates and verdicts on planted changes: what must pass, what must fail, and why."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from junitparser import Failure, JUnitXml

from diffai_stream.errors import UsageError
from diffai_stream.pipeline import compare
from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import open_writer
from tests.checkpoints import write_safetensors

ALL = ("regression_test", "alert", "change_summary", "risk_assessment", "deployment_readiness")
LAYERS = 4


def base() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    weights = {"model.embed_tokens.weight": random.normal(0, 0.05, (120, 96))}
    for layer in range(LAYERS):
        for name, shape in (("self_attn.q_proj", (96, 96)), ("mlp.up_proj", (128, 96))):
            weights[f"model.layers.{layer}.{name}.weight"] = random.normal(0, 0.05, shape)
    weights["lm_head.weight"] = random.normal(0, 0.05, (120, 96))
    return {name: value.astype(np.float32) for name, value in weights.items()}


def moved(weights, scale=0.01, only=""):
    random = np.random.default_rng(1)
    noise = {name: scale * np.linalg.norm(v) / np.sqrt(v.size) * random.normal(size=v.shape) for name, v in weights.items()}
    return {name: (v + noise[name] * (only in name)).astype(np.float32) for name, v in weights.items()}


def run(tmp_path, old, new, *analyses, **options):
    paths = [write_safetensors(tmp_path / f"{side}.safetensors", weights) for side, weights in (("old", old), ("new", new))]
    records = list(compare(*map(str, paths), analyses=analyses or ALL, **options))
    return {name: [r for r in records if r["type"] == name] for name in (*ALL, "summary", "anomaly")}


def failed(found):
    return {(r["gate"], r["subject"]) for r in found["regression_test"] if not r["passed"]}


def test_equal_checkpoints_pass_everything(tmp_path):
    found = run(tmp_path, base(), base())
    assert not failed(found)
    assert not found["alert"]
    assert found["change_summary"][0]["classes"] == [{"kind": "identical", "evidence": f"all {2 * LAYERS + 2} tensors equal"}]
    assert found["risk_assessment"][0]["level"] == "low"
    assert found["deployment_readiness"][0]["strategy"] == "none"
    assert found["summary"][0]["exit_status"] == 0


def test_a_gate_a_layer_against_the_measured_change(tmp_path):
    found = run(tmp_path, base(), moved(base(), 0.02, "layers.2"), tolerance=0.01)
    layers = {r["subject"]: r for r in found["regression_test"] if r["gate"] == "layer_change"}
    assert len(layers) == LAYERS + 2
    assert failed(found) == {("layer_change", "model.layers.2")}
    assert layers["model.layers.2"]["value"] == pytest.approx(0.02, rel=0.1)
    assert found["alert"][0]["subject"] == "model.layers.2"
    assert found["summary"][0]["exit_status"] == 1


def test_the_last_pattern_that_matches_counts_and_tensors_have_gates_of_their_own(tmp_path):
    rules = (("model.layers.*", 0.5), ("*.layers.2", 0.001), ("*.1.mlp.up_proj.*", 0.0))
    found = run(tmp_path, base(), moved(base(), 0.02), "regression_test", tolerance_per_layer=rules, tolerance=1.0)
    assert failed(found) == {("layer_change", "model.layers.2"), ("tensor_change", "model.layers.1.mlp.up_proj.weight")}
    assert {r["limit"] for r in found["regression_test"] if r["subject"] == "model.layers.3"} == {0.5}


def test_frozen_size_and_sqnr_gates(tmp_path):
    new = moved(base(), 0.1, "layers.0")
    options = {"expect_unchanged": ("model.layers.0", "lm_head*"), "max_size": 1000, "min_sqnr": 30.0, "tolerance": 1.0}
    found = run(tmp_path, base(), new, "regression_test", **options)
    assert failed(found) == {("frozen", "model.layers.0"), ("size", "model"), ("sqnr", "model")}
    gates = {r["gate"]: r for r in found["regression_test"]}
    assert gates["sqnr"]["value"] == pytest.approx(20, abs=0.5)
    assert gates["size"]["value"] == sum(v.nbytes for v in new.values())


@pytest.mark.parametrize("option", ["expect_unchanged", "tolerance_per_layer"])
def test_a_pattern_that_matches_nothing_ends_before_the_scan(tmp_path, option):
    value = (("nothing.*", 0.1),) if option == "tolerance_per_layer" else ("nothing.*",)
    with pytest.raises(UsageError, match="nothing"):
        run(tmp_path, base(), base(), "regression_test", **{option: value})


def test_a_new_nan_is_critical_everywhere_and_an_old_one_is_not(tmp_path):
    bad = base()
    bad["lm_head.weight"][3, 5] = np.nan
    found = run(tmp_path, base(), bad, tolerance=1.0)
    assert ("nonfinite", "model") in failed(found)
    assert [(r["trigger"], r["severity"]) for r in found["alert"]] == [("new_nonfinite", "critical")]
    assert found["risk_assessment"][0]["level"] == "critical"
    assert found["deployment_readiness"][0]["strategy"] == "hold"
    assert found["summary"][0]["exit_status"] == 1
    (tmp_path / "swapped").mkdir()
    swapped = run(tmp_path / "swapped", bad, base(), tolerance=1.0)
    assert ("nonfinite", "model") not in failed(swapped)
    assert not swapped["alert"]


def test_warnings_alone_do_not_fail_an_alert_run(tmp_path):
    found = run(tmp_path, base(), moved(base(), 0.02), "alert")
    assert {r["severity"] for r in found["alert"]} == {"warning"}
    assert found["summary"][0]["exit_status"] == 0


def low_rank(rank):
    random = np.random.default_rng(5)
    new = base()
    for name, value in new.items():
        if value.ndim == 2 and "layers" in name:
            update = random.normal(size=(value.shape[0], rank)) @ random.normal(size=(rank, value.shape[1]))
            new[name] = (value + 0.0005 * update).astype(np.float32)
    return new


def resized():
    random = np.random.default_rng(6)
    weights = base()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = np.concatenate([weights[name], random.normal(size=(8, 96)).astype(np.float32)])
    return weights


CLASSES = {
    "full_fine_tune": moved(base(), 0.02),
    "frozen_and_fine_tuned": moved(base(), 0.02, "layers.1"),
    "low_rank_update": low_rank(8),
    "vocabulary_resized": resized(),
    "head_replaced": moved(base(), 1.0, "lm_head"),
    "unrelated_weights": moved(base(), 3.0),
    "structure_changed": {name: value for name, value in base().items() if "layers.3" not in name},
    "cast": {name: value.astype(np.float16) for name, value in base().items()},
    "quantized": {name: np.clip(np.rint(value * 500), -127, 127).astype(np.int8) for name, value in base().items()},
    "renamed": {f"module.{name}": value for name, value in base().items()},
}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_kind_of_a_planted_change(tmp_path, kind):
    summary = run(tmp_path, base(), CLASSES[kind], "change_summary")["change_summary"][0]
    assert summary["classes"][0]["kind"] == kind
    assert summary["rank"] == (8 if kind == "low_rank_update" else None)


@pytest.mark.parametrize("rank", [1, 4, 16, 40])
def test_the_rank_of_a_merged_adapter(tmp_path, rank):
    assert run(tmp_path, base(), low_rank(rank), "change_summary")["change_summary"][0]["rank"] == rank


def test_the_level_is_the_worst_rule_that_fired(tmp_path):
    found = run(tmp_path, base(), CLASSES["structure_changed"], "risk_assessment")["risk_assessment"][0]
    assert found["level"] == "high"
    assert [rule["rule"] for rule in found["rules"]] == ["structure_changed"]
    assert found["rule_count"] >= 8


def test_scaling_both_sides_changes_no_verdict(tmp_path):
    (tmp_path / "scaled").mkdir()
    old, new = base(), moved(base(), 0.02)
    plain = run(tmp_path, old, new)
    scaled = run(tmp_path / "scaled", {n: 4 * v for n, v in old.items()}, {n: 4 * v for n, v in new.items()})
    for name in ("regression_test", "risk_assessment", "change_summary"):
        for left, right in zip(plain[name], scaled[name], strict=True):
            assert left | {"run_id": "", "seq": 0} == right | {"run_id": "", "seq": 0}  # a power of two is exact


def test_a_check_list_tells_what_it_cannot_know(tmp_path):
    checks = {row["check"]: row["passed"] for row in run(tmp_path, base(), moved(base()))["deployment_readiness"][0]["checks"]}
    assert checks["tokenizer"] is None
    assert checks["config"] is None
    assert checks["finite"] is True


@pytest.mark.parametrize(("tokens", "strategy"), [({"a": 0, "b": 1}, "canary"), ({"a": 0, "c": 1}, "hold")])
def test_a_tokenizer_of_another_text_blocks(tmp_path, tokens, strategy):
    for side, vocabulary in (("old", {"a": 0, "b": 1}), ("new", tokens)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "vocab.json").write_text(json.dumps(vocabulary))
    write_safetensors(tmp_path / "old" / "model.safetensors", base())
    write_safetensors(tmp_path / "new" / "model.safetensors", moved(base(), 0.05))
    records = list(compare(str(tmp_path / "old"), str(tmp_path / "new"), analyses=("deployment_readiness",)))
    assert next(r for r in records if r["type"] == "deployment_readiness")["strategy"] == strategy


def test_junit_is_read_back_by_a_parser(tmp_path):
    bad = moved(base(), 0.02, "layers.2")
    bad["layers.9.\x1b[31m&<evil>"] = np.ones(3, np.float32)
    paths = [write_safetensors(tmp_path / f"{side}.safetensors", w) for side, w in (("old", base()), ("new", bad))]
    stream = io.BytesIO()
    writer = open_writer("junit-xml", stream, WriterOptions())
    for record in compare(*map(str, paths), analyses=("regression_test", "alert")):
        writer.write(record)
    writer.close()
    root = ElementTree.fromstring(stream.getvalue())
    cases = root.findall(".//testcase")
    assert int(root.attrib["tests"]) == len(cases) > LAYERS
    failures = [case for case in cases if case.find("failure") is not None]
    assert int(root.attrib["failures"]) == len(failures) == 2
    assert {case.attrib["name"] for case in failures} == {"model", "model.layers.2"}
    (tmp_path / "report.xml").write_bytes(stream.getvalue())
    (suite,) = JUnitXml.fromfile(str(tmp_path / "report.xml"))
    assert (suite.tests, suite.failures, suite.errors) == (len(cases), 2, 0)
    assert {case.name for case in suite if any(isinstance(result, Failure) for result in case.result)} == {
        "model",
        "model.layers.2",
    }
    assert "\x1b" not in stream.getvalue().decode()


def test_the_calls_of_the_command_line(tmp_path):
    paths = [str(write_safetensors(tmp_path / f"{n}.safetensors", w)) for n, w in (("a", base()), ("b", moved(base(), 0.02)))]
    command = [sys.executable, "-m", "diffai_stream.cli", *paths, "--regression-test", "--alert-on-degradation"]
    done = subprocess.run([*command, "--output-format", "junit-xml"], capture_output=True, check=False)
    assert done.returncode == 1
    assert ElementTree.fromstring(done.stdout).tag == "testsuites"
    assert subprocess.run([*command, "--tolerance", "0.1"], capture_output=True, check=False).returncode == 0
    wrong = subprocess.run([*command, "--tolerance-per-layer", "nothing=1"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert b"nothing" in wrong.stderr
