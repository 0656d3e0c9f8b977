"""Each example runs, and finds what the demo pair has planted."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from diffai_stream import open_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
NAN, EXPLODED = "model.layers.7.mlp.up_proj.weight", "model.layers.4"


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run with this Python and its `diffai` first on the path."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run(sys.executable, EXAMPLES / "demo_pair.py", ".", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert NAN in done.stdout
    assert EXPLODED in done.stdout
    return folder


def written(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_demo_pair_is_sound(demo):
    base, finetuned = (open_checkpoint(str(demo / side)) for side in ("base", "finetuned"))
    for checkpoint in (base, finetuned):
        assert (checkpoint.format, checkpoint.errors, checkpoint.oddities) == ("huggingface", (), ())
        assert len(list(Path(checkpoint.path).glob("*.safetensors"))) == 3
        assert json.loads((Path(checkpoint.path) / "config.json").read_text())["num_hidden_layers"] == 12
    assert [entry.name for entry in base.tensors] == [entry.name for entry in finetuned.tensors]
    assert all(55e6 < sum(map(len, written(demo / side))) < 70e6 for side in ("base", "finetuned"))


def test_demo_pair_is_the_same_each_time(demo, tmp_path):
    specification = importlib.util.spec_from_file_location("demo_pair", EXAMPLES / "demo_pair.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.make_demo(tmp_path)
    assert written(tmp_path / "base") == written(demo / "base")
    assert written(tmp_path / "finetuned") == written(demo / "finetuned")
    name, first = next(module.base())
    assert (name, first.shape) == ("model.embed_tokens.weight", (32_000, 384))
    assert np.isclose(first.std(), 0.014, rtol=1e-3)


def test_demo_pair_shows_what_was_planted_and_nothing_else(demo):
    done = run("diffai", "base", "finetuned", "--include-unchanged", "--output", "ndjson", "--no-progress", cwd=demo)
    assert done.returncode == 1, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    judged = [record for record in records if record["type"] == "anomaly" and record["severity"] in ("warning", "critical")]
    assert {(r["kind"], r["side"]) for r in judged} == {("nonfinite", "new"), ("exploding", "new"), ("update_spike", None)}
    assert [r["subject"] for r in judged if r["kind"] == "nonfinite"] == [NAN]
    exploded = [r["subject"] for r in judged if r["kind"] == "exploding"]
    assert len(exploded) == 7
    assert all(name.startswith(EXPLODED + ".") for name in exploded)
    status = {record["name"]: record["status"] for record in records if record["type"] == "tensor"}
    assert [name for name in status if status[name] == "unchanged"] == ["model.embed_tokens.weight"]


def test_demo_pair_changes_late_layers_more(demo):
    done = run("diffai", "base", "finetuned", "--output", "ndjson", "--no-progress", cwd=demo)
    records = map(json.loads, done.stdout.splitlines())
    changes = {r["name"]: r["change"]["relative_l2"] for r in records if r["type"] == "tensor" and r["change"]}
    blocks = [changes[f"model.layers.{block}.self_attn.v_proj.weight"] for block in range(12) if block != 4]
    assert blocks == sorted(blocks)
    assert blocks[-1] > 5 * blocks[0]


def test_simple_comparison(demo):
    done = run(sys.executable, EXAMPLES / "simple_comparison.py", "base", "finetuned", cwd=demo)
    assert done.returncode == 0, done.stderr
    assert "different: 109 tensors changed" in done.stdout
    assert any(NAN in line and line.endswith("nonfinite") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("candidate", "status", "said"),
    [("base", 0, "passed"), ("finetuned", 1, "refused"), ("missing", 2, "not judged")],
)
def test_ci_gate(demo, tmp_path, candidate, status, said):
    done = run("bash", EXAMPLES / "ci_gate.sh", demo / "base", demo / candidate, tmp_path / "report.ndjson", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_log_pipeline(demo):
    done = run("bash", EXAMPLES / "log_pipeline.sh", "base", "finetuned", cwd=demo)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"level": "critical", "event": "nonfinite", "where": NAN}.items() <= lines[0].items()
    assert (lines[-1]["event"], lines[-1]["status"], lines[-1]["changed"]) == ("compared", "different", 109)


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_log_pipeline_keeps_trouble(demo):
    assert run("bash", EXAMPLES / "log_pipeline.sh", "base", "missing", cwd=demo).returncode == 2


def test_readme_lists_every_example():
    readme = (EXAMPLES / "README.md").read_text()
    programs = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")]
    assert [name for name in programs if f"[`{name}`]({name})" not in readme] == []


def test_finetuning_analysis(demo):
    done = run(sys.executable, EXAMPLES / "finetuning_analysis.py", "base", "finetuned", cwd=demo)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split()[0] == EXPLODED
    assert "left alone: model.embed_tokens.weight" in lines
    assert f"broken: nonfinite in {NAN}" in lines
    assert any(line.startswith("kind of change: ") for line in lines)


def test_quantization_impact(tmp_path):
    done = run(sys.executable, EXAMPLES / "quantization_impact.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if "dB" in line}
    assert "dB" in lines["layers.0.weight"]
    assert lines["layers.0.weight"].endswith("fine")
    assert lines["layers.4.weight"].endswith("too much")  # below the smallest numbers of float16
    assert f"layers.2.weight{' ':2}critical: nonfinite" in done.stdout
    assert done.stdout.splitlines()[-1] == "the whole model takes 1/2 of the bytes"


def test_cluster_demo(demo):
    pytest.importorskip("distributed")
    done = run(sys.executable, EXAMPLES / "cluster_demo.py", "base", "finetuned", cwd=demo)
    assert done.returncode == 0, done.stderr
    assert "through a scheduler and 3 workers" in done.stdout
    assert "the same as without them" in done.stdout


def test_trajectory(tmp_path):
    done = run(sys.executable, EXAMPLES / "trajectory.py", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["pair 0", "pair 1", "pair 2", "pair 3"]
    assert lines[-1] == "slowing down"
    changes = [float(line.split()[-1]) for line in lines[:-1]]
    assert changes[0] == pytest.approx(0.004 / 0.02, rel=0.02)
    assert changes[1] / changes[0] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(("candidate", "status"), [("base", 0), ("finetuned", 1)])
def test_regression_gate(demo, tmp_path, candidate, status):
    done = run("bash", EXAMPLES / "regression_gate.sh", demo / "base", demo / candidate, tmp_path / "junit.xml", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    cases = list(suites.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None]
    assert len(cases) > len(failed)
    assert bool(failed) == (status == 1)
    assert done.stdout.split()[0] == str(len(failed))


def test_query_records(demo):
    pytest.importorskip("duckdb")
    done = run(sys.executable, EXAMPLES / "query_records.py", "base", "finetuned", cwd=demo)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{EXPLODED}: 9 tensors")
    assert "nonfinite: 1" in lines
