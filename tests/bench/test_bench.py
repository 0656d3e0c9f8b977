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
NUMBER = re.compile(r"\d+(\.\d+)?(x| s| MB| kB/GB)")
PARTLY = {
    "torch": "torch: not installed",
    "gguf-q4": "gguf: not",
    "gguf-q8": "gguf: not",
    **dict.fromkeys(("layout-gptq", "layout-awq", "layout-nf4", "layout-fp8"), "torch, safetensors: not installed"),
    **{f"{row}-{name}": "not installed" for row in ("format", "index") for name in ("pt", "onnx", "hdf5", "gguf")},
    **dict.fromkeys(("format-gguf-bf16", "format-gguf-f16", "index-gguf-vocabulary"), "gguf: not"),
    "cold": "the page cache keeps the files",
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


def test_only_a_full_run_is_recorded():
    done = bench("--quick", "--write")
    assert done.returncode == 2
    assert "--write takes a full run" in done.stderr


def test_readme_has_the_region_that_is_filled():
    text = (ROOT / "bench" / "README.md").read_text()
    begin, end = text.index("<!-- measured:begin -->"), text.index("<!-- measured:end -->")
    assert begin < end
