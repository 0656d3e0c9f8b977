"""The memory that the header promises is kept by the process, whatever the size of the tensors."""

import json
import subprocess
import sys

import numpy as np
import pytest

from diffai_stream.engine import scan
from tests.checkpoints import write_raw_safetensors, write_safetensors
from tests.validation import run

PROGRAM = """
import re, sys
from diffai_stream.cli.process import run
status = run(sys.argv[1:])
with open("/proc/self/status") as file:  # getrusage would tell the peak of a larger parent
    peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", file.read())[1]) * 1024
print(status, peak, file=sys.stderr)
"""
ROWS, COLUMNS = 12_800, 4096  # 210 MB in float32


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """One large tensor and many small ones a side, written without holding them."""
    folder, random = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    block = random.normal(size=(ROWS // 16, COLUMNS)).astype(np.float32)
    paths = []
    for name, step in (("old.safetensors", 0.0), ("new.safetensors", 1e-3)):
        header, place = {}, 0
        for tensor, shape in [("large", (ROWS, COLUMNS)), *((f"t.{k}", (2, COLUMNS)) for k in range(200))]:
            nbytes = 4 * shape[0] * shape[1]
            header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + nbytes]}
            place += nbytes
        path = write_raw_safetensors(folder / name, header)
        with path.open("ab") as file:
            for part in range(16):
                (block * np.float32(1 + part + step)).tofile(file)
            (block[:400] + np.float32(step)).tofile(file)
        paths.append(str(path))
    yield paths
    for path in paths:
        open(path, "w").close()


def measured(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, "-o", "ndjson"], capture_output=True, text=True, check=True
    )
    status, peak = done.stderr.split()[-2:]
    return int(status), int(peak), [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "arguments", [[], ["--chunk-size", "1MiB", "--io", "pread"], ["--workers", "1", "--stats", "--histograms"]]
)
def test_the_peak_is_below_the_promise(pair, arguments):
    status, peak, records = measured(*pair, *arguments)
    assert status == 1
    assert peak <= records[0]["plan"]["projected_memory_nbytes"] < 420 << 20
    assert records[-1]["peak_memory_nbytes"] <= peak
    assert records[-1]["counts"]["changed"] == 201


def test_a_plan_above_the_limit_is_refused(pair):
    status, _, records = measured(*pair, "--memory-limit", "64MiB")
    assert (status, records) == (2, [])


def projected(pair, *flags):
    out = subprocess.run(
        [sys.executable, "-m", "diffai_stream.cli", *pair, *flags, "-o", "ndjson", "--exit-zero"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(out.splitlines()[0])["plan"]["projected_memory_nbytes"]


def test_states_of_other_statistics_are_in_the_promise(pair):
    assert projected(pair, "--similarity-matrix") >= projected(pair) + 2 * 8 * 4096 * 200


def test_what_cannot_be_allocated_is_an_error_of_its_tensor(tmp_path, monkeypatch):
    values = {name: np.full((3, 4), number, np.float32) for number, name in enumerate("abc")}
    old = write_safetensors(tmp_path / "old.safetensors", values)
    new = write_safetensors(tmp_path / "new.safetensors", {name: value + 1 for name, value in values.items()})
    read, asked = scan._scan_one, scan._scan_group

    def alone(reading, program):
        if reading.piece.name == "b":
            raise MemoryError
        return read(reading, program)

    def together(group, program):
        if len(group) > 1:
            raise MemoryError
        return asked(group, program)

    monkeypatch.setattr(scan, "_scan_one", alone)
    monkeypatch.setattr(scan, "_scan_group", together)
    records = run(old, new, executor="synchronous")
    (error,) = [record for record in records if record["type"] == "error"]
    assert (error["tensor"], error["path"]) == ("b", str(new))
    assert "not enough memory" in error["message"]
    assert [record["name"] for record in records if record["type"] == "tensor"] == ["a", "c"]
