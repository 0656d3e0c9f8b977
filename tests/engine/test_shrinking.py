"""A file that becomes shorter at the worst moments, in a process of its own: a fault under a map would kill it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.checkpoints import write_sharded
from tests.validation import check

PROGRAM = """
import os, sys
from diffai_stream.engine import scan
from diffai_stream.plan import sources
from diffai_stream.pipeline import compare
from diffai_stream.report.ndjson import encode
from diffai_stream.storage import windows

moment, io, old, new, harmed = sys.argv[1:]
check, read = windows.check_unchanged, sources.read_window

def checked(descriptor, extent, *rest):
    check(descriptor, extent, *rest)
    if extent.path == harmed:
        os.truncate(harmed, 200)

def mapped(extent, *rest):
    window = read(extent, *rest)
    if extent.path == harmed:
        os.truncate(harmed, 200)
    return window

if moment == "after the check":
    windows.check_unchanged = checked
else:
    sources.read_window = scan.read_window = mapped
for record in compare(old, new, io=io, chunk_size=1 << 16, workers=2):
    sys.stdout.buffer.write(encode(record) + b"\\n")
"""


@pytest.mark.parametrize("io", ["mmap", "pread", "auto"])
@pytest.mark.parametrize("moment", ["after the check", "after the map"])
def test_its_tensors_are_errors_and_all_others_are_told(tmp_path, moment, io):
    random = np.random.default_rng(0)
    parts = {
        f"model-{number:05}-of-00003.safetensors": {
            f"{number}.{k}": random.normal(size=shape).astype(np.float32) for k, shape in enumerate([(80, 1024), (7, 9), (5,)])
        }
        for number in (1, 2, 3)
    }
    old = write_sharded(tmp_path / "old", parts)
    new = write_sharded(tmp_path / "new", {s: {name: v + 1 for name, v in part.items()} for s, part in parts.items()})
    harmed = old / "model-00002-of-00003.safetensors"
    command = [sys.executable, "-c", PROGRAM, moment, io, *map(str, (old, new, harmed))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        check(record)
    errors = [record for record in records if record["type"] == "error"]
    assert {record["tensor"] for record in errors} == {"2.0", "2.1", "2.2"}
    assert {(record["path"], record["error"]) for record in errors} == {(str(harmed), "ChangedFileError")}
    assert [record["name"] for record in records if record["type"] == "tensor"] == [
        f"{n}.{k}" for n in (1, 3) for k in range(3)
    ]
    assert (records[-1]["status"], records[-1]["exit_status"]) == ("failed", 2)
