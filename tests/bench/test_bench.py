"""The benchmark programs run and fill every row; what they measure is not judged here."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "bench" / "run.py"
ROW = re.compile(r"^\| ([\w-]+) \| .+? \| .*? \| (.+?) \| (.*?) \| (.*?) ?\|$", re.MULTILINE)
NUMBER = re.compile(r"\d+(\.\d+)?(x| s| MB| kB/GB| µs)")
PARTLY = {
    "torch": "torch: not installed",
    "gguf-q4": "gguf: not",
    "gguf-q8": "gguf: not",
    **dict.fromkeys(("layout-gptq", "layout-awq", "layout-nf4", "layout-fp8"), "torch, safetensors: not installed"),
    **{f"{row}-{name}": "not installed" for row in ("format", "index") for name in ("pt", "onnx", "hdf5", "gguf")},
    **dict.fromkeys(("format-gguf-bf16", "format-gguf-f16", "index-gguf-vocabulary"), "gguf: not"),
    "cluster": "distributed: not installed",
    "http": "obstore: not installed",
    "s3": "moto.server: not installed",
    **dict.fromkeys(("cold", "cold-20gb"), "the page cache keeps the files"),
}


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RUN, *map(str, arguments)], capture_output=True, text=True, check=False)


def documented_rows() -> set[str]:
    table = (ROOT / "bench" / "README.md").read_text().partition("## What the rows mean")[2].partition("## Measured")[0]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {name for first in firsts for name in re.findall(r"`([\w-]+)`", first)}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    done = bench("--quick", "--rounds", 1, "--folder", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_row_has_a_number(quick):
    rows = {name: (measured, detail) for name, measured, detail, _ in ROW.findall(quick) if name not in ("row", "---")}
    assert set(rows) == documented_rows()
    for name, (measured, detail) in rows.items():
        if measured == "not measured":
            assert name in PARTLY, f"{name}: {detail}"
            assert PARTLY[name] in detail
        else:
            assert NUMBER.fullmatch(measured), f"{name}: {measured}"
    if importlib.util.find_spec("torch"):
        assert rows["torch"][0] != "not measured"


def test_table_names_commands_and_machine_without_its_folders(quick):
    assert "`diffai 1b/old.safetensors 1b/new.safetensors`; `cat 1b/old.safetensors 1b/new.safetensors`" in quick
    assert re.search(r"^Machine: .+ cores, .+ Python 3\.\d+\.\d+, diffai-stream ", quick, re.MULTILINE)
    assert str(ROOT) not in quick


def test_tiny_pairs_are_not_recorded():
    done = bench("--quick", "--write")
    assert done.returncode == 2
    assert "--quick measures nothing" in done.stderr


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(RUN.parent))
    spec = importlib.util.spec_from_file_location("bench_run", RUN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_measured_apart_are_joined_in_their_order_if_the_machine_is_the_same(run):
    head = run.HEAD.splitlines()
    old = [*head, "| fast | f | | 1x | | |", "| small | s | | 1 s | | |", "", "Machine: one."]
    new = [*head, "| small | s | | 2 s | | |", "| default | d | | 4x | | |", "", "Machine: one."]
    assert run.joined(old, new) == [*head, new[3], old[2], new[2], "", "Machine: one."]
    assert run.joined([*old[:-1], "Machine: other."], new) == new
    assert run.joined([], new) == new


def test_readme_of_the_project_shows_the_measured_table(run):
    assert run.marked(run.PROJECT_README) == run.brief(run.marked(run.README))
