"""The example plug-in, installed and used as a user would do it; broken ones are told of and left out."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffai_stream import plugins
from tests.checkpoints import write_safetensors

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
BROKEN = """
[diffai_stream.formats]
gone = no_such_module:FORMAT
[diffai_stream.analyses]
anomaly = broken:ANOMALY
late = broken:LATE
stats = broken:STATS
[diffai_stream.writers]
bad = broken:BAD
other = broken:NOT_A_ROW
"""
MODULE = """
from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.fields import AnomalyFields
from diffai_stream.report.catalogue import WriterRow
def row(name, flag): return Analysis(name, flag, name, "x", ("model",), "measured", "broken_late", AnomalyFields)
ANOMALY, LATE, STATS = row("anomaly", "--mine"), row("late", "--late"), row("stats", "--stats")
BAD = WriterRow("bad", "bad", "broken:Bad", "text/plain")
NOT_A_ROW = 3
class Bad:
    def __init__(self, stream, options): raise RuntimeError("no ink")
"""
LATE = """
def model(evidence, options): raise RuntimeError("too late")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the package is installed in."""
    folder = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source") / "plugin"
    __import__("shutil").copytree(PLUGIN, source, ignore=lambda *_: ["__pycache__", "tests"])
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        folder,
        source,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def broken(tmp_path):
    folder = tmp_path / "site" / "broken_things-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-things\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(BROKEN)
    (folder.parent / "broken.py").write_text(MODULE)
    (folder.parent / "broken_late.py").write_text(LATE)
    return folder.parent


def run(folder, *arguments):
    """`diffai`, or another module of this Python, with a folder of packages."""
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{inherited}", "DIFFAI_PROGRESS": "none"}
    module = () if arguments[0] == "-m" else ("-m", "diffai_stream.cli")
    command = [sys.executable, *module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    old = {"a": np.linspace(1, 2, 60, dtype=np.float32).reshape(6, 10), "b": np.ones(5, np.float32)}
    new = {**old, "a": old["a"] * np.float32(4)}
    return [write_safetensors(folder / f"{name}.safetensors", side) for name, side in (("old", old), ("new", new))]


def records(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_its_own_tests_pass(installed, tmp_path):
    done = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, PLUGIN / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_analysis_has_a_flag_and_runs_with_all(installed, pair):
    for flag in ("--scaling", "--all-analyses"):
        done = run(installed, *pair, flag)
        assert done.returncode == 1, done.stderr
        found = [record for record in records(done) if record["type"] == "scaling"]
        assert [(record["subject"], record["factor"], record["spread"]) for record in found] == [("a", 4.0, 0.0)]
    assert not [r for r in records(run(installed, *pair)) if r["type"] == "scaling"]


def test_its_output_prints(installed, pair):
    done = run(installed, *pair, "-o", "tsv")
    title, line = (line.split("\t") for line in done.stdout.splitlines())
    assert (title, line[:2]) == (["name", "status", "relative_l2"], ["a", "changed"])
    assert float(line[2]) == pytest.approx(3, rel=1e-6)


def test_its_format_and_its_encoding_are_read(installed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    from diffai_example.lines import write

    codes = np.arange(1, 31, dtype=np.uint8)
    old = write(tmp_path / "old", {"a": ("LOG8", codes)})
    new = write(tmp_path / "new", {"a": ("LOG8", codes + np.uint8(8))})
    done = run(installed, old, new, "--scaling")
    found = records(done)
    assert (found[0]["old"]["format"], found[1]["old"]["encoding"]) == ("lines", "LOG8")
    assert [record["factor"] for record in found if record["type"] == "scaling"] == pytest.approx([2.0])


def test_it_is_listed_everywhere(installed):
    assert "--scaling" in run(installed, "--help").stdout
    assert "tsv" in run(installed, "compare", "--help").stdout
    assert "diffai_example 0.1" in run(installed, "analyses").stdout
    assert '"name":"lines"' in run(installed, "formats", "--json").stdout
    assert "scaling_record" in run(installed, "schema").stdout
    names = {row["name"] for row in map(json.loads, run(installed, "doctor", "--json").stdout.splitlines())}
    assert {f"plug-in {name}" for name in ("lines", "LOG8", "ratio_range", "scaling", "tsv")} <= names


def test_parquet_has_a_column_for_its_fields(installed, pair, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{inherited}"}
    command = [sys.executable, "-m", "diffai_stream.cli", *map(str, pair), "--all-analyses", "-o", "parquet"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    (tmp_path / "r.parquet").write_bytes(done.stdout)
    assert [row["factor"] for row in parquet.read_table(tmp_path / "r.parquet").to_pylist() if row["type"] == "scaling"] == [
        4.0
    ]


def test_entry_points_are_those_that_the_library_finds(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    for kind in plugins.KINDS:
        found = {(point.name, point.value) for point in importlib.metadata.entry_points(group=f"diffai_stream.{kind}")}
        assert {(point.name, f"{point.module}:{point.attribute}") for point in plugins.entry_points(kind)} == found
        assert found


def test_a_run_that_needs_none_imports_none(broken, pair):
    code = "import sys; from diffai_stream import compare; list(compare(*sys.argv[1:])); print('broken' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": f"{broken}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", code, *map(str, pair)]
    assert subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout == "False\n"


def test_broken_ones_are_told_of_and_left_out(broken, pair):
    done = run(broken, *pair, "--all-analyses")
    assert done.returncode == 1, done.stderr
    found = records(done)
    told = [record["message"] for record in found if record["type"] == "warning" and record["code"] == "broken_plugin"]
    assert ["'anomaly'" in text and "diffai_stream itself has a row of that name" in text for text in told].count(True) == 1
    assert any("'stats'" in text and "another option is called --stats" in text for text in told) or len(told) == 1
    late = [record for record in found if record["type"] == "skipped" and record["analysis"] == "late"]
    assert [record["subject"] for record in late] == ["model"]
    assert "RuntimeError: too late" in late[0]["reason"]
    assert found[-1]["type"] == "summary"


def test_broken_ones_are_told_of_on_stderr(broken, pair):
    done = run(broken, *pair, "-o", "bad")
    assert done.returncode == 2
    assert "no ink" in done.stderr
    done = run(broken, *pair, "-o", "other")
    assert done.returncode == 2
    assert "is no WriterRow but a int" in done.stderr
    done = run(broken, "formats")
    assert "'gone' of broken_things 1.0 is left out: ModuleNotFoundError" in done.stderr
    done = run(broken, "doctor")
    assert done.returncode == 0
    assert "plug-in gone" in done.stdout


def test_an_unknown_file_is_still_refused_in_one_line(broken, pair, tmp_path):
    (tmp_path / "x").write_bytes(b"\xc8" * 100)
    done = run(broken, tmp_path / "x", pair[0])
    assert done.returncode == 2
    assert "of no known format" in done.stderr
