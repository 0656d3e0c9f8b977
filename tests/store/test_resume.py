"""Runs with a store: what a killed one finished is not read again, and no record changes by it."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from diffai_stream.errors import UsageError
from diffai_stream.pipeline import compare
from diffai_stream.store import results
from tests.checkpoints import write_safetensors
from tests.models import llama, tuned
from tests.validation import look, of_type, run, stable


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints: every tensor changed, one added, one removed, one reshaped, one equal."""
    folder = tmp_path_factory.mktemp("pair")
    old = llama()
    new = tuned(old)
    new["model.norm.weight"] = old["model.norm.weight"]
    new["extra.weight"] = new.pop("model.layers.5.mlp.up_proj.weight")
    new["lm_head.weight"] = new["lm_head.weight"][:100]
    return write_safetensors(folder / "old.safetensors", old), write_safetensors(folder / "new.safetensors", new)


def same(records, others):
    """Whether the records are equal but for what was read and the clock."""
    lines = [[json.loads(line) for line in stable(found)] for found in (records, others)]
    for found in lines:
        found[-1].pop("read_nbytes")
    return lines[0] == lines[1]


ASKED = [{}, {"stats": True, "histograms": True}, {"fast": True}, {"all_analyses": True}]


@pytest.mark.parametrize("options", ASKED, ids=str)
def test_a_second_run_reads_nothing_and_says_the_same(pair, tmp_path, options):
    plain = run(*pair, **options)
    first = run(*pair, store=str(tmp_path / "s"), **options)
    second = run(*pair, store=str(tmp_path / "s"), **options)
    assert stable(first) == stable(plain)
    assert same(second, plain)
    assert second[-1]["read_nbytes"] == 0 < first[-1]["read_nbytes"]


def test_the_chunk_size_may_change_between_runs(pair, tmp_path):
    plain = run(*pair)
    run(*pair, store=str(tmp_path / "s"), chunk_size=1 << 16)
    assert same(run(*pair, store=str(tmp_path / "s")), plain)


def test_other_figures_are_not_taken_for_those_asked_for(pair, tmp_path):
    run(*pair, store=str(tmp_path / "s"))
    for options in ({"epsilon": 0.5}, {"stats": True}, {"all_analyses": True}, {"fast": True}):
        again = run(*pair, store=str(tmp_path / "s"), **options)
        assert same(again, run(*pair, **options))
        assert again[-1]["read_nbytes"] > 0


def test_inspecting_has_a_store_too(pair, tmp_path):
    plain = look(pair[0], stats=True)
    look(pair[0], stats=True, store=str(tmp_path / "s"))
    again = look(pair[0], stats=True, store=str(tmp_path / "s"))
    assert same(again, plain)
    assert again[-1]["read_nbytes"] == 0


def test_only_the_tensors_of_a_touched_file_are_read_again(tmp_path):
    old, new = llama(), tuned(llama())
    names = sorted(old)
    folders = []
    for name, model in (("old", old), ("new", new)):
        folder = tmp_path / name
        for number, chosen in enumerate((names[::2], names[1::2])):
            write_safetensors(folder / f"model-{number}.safetensors", {n: model[n] for n in chosen})
        weights = {n: f"model-{i % 2}.safetensors" for i, n in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
        folders.append(folder)
    full = run(*folders, store=str(tmp_path / "s"))[-1]["read_nbytes"]
    shard = folders[1] / "model-1.safetensors"
    changed = {n: new[n] + np.float32(1) for n in names[1::2]}
    status = shard.stat()
    write_safetensors(shard, changed)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time: only the status change tells
    again = run(*folders, store=str(tmp_path / "s"))
    assert 0 < again[-1]["read_nbytes"] < 0.7 * full
    assert same(again, run(*folders))


def test_the_library_opens_what_was_written(pair, tmp_path):
    run(*pair, store=str(tmp_path / "s"))
    group = zarr.open_group(str(tmp_path / "s"), mode="r")
    assert group.attrs["kind"] == "results"
    batches = [array for _, array in group["batches"].arrays()]
    assert batches
    for array in batches:
        assert array[:].size == array.shape[0] > 0  # the library checks the checksum
        assert array.attrs["keys"]


def batches_of(store):
    return sorted(path for path in (store / "batches").iterdir() if path.is_dir())


def flip(path, place=0.5):
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * place)] ^= 0x10
    path.write_bytes(raw)


def drop(path):
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


DAMAGE = {
    "data flipped": lambda store: flip(batches_of(store)[0] / "0"),
    "data cut": lambda store: os.truncate(batches_of(store)[0] / "0", 100),
    "data empty": lambda store: os.truncate(batches_of(store)[0] / "0", 0),
    "data gone": lambda store: (batches_of(store)[0] / "0").unlink(),
    "metadata flipped": lambda store: flip(batches_of(store)[0] / "zarr.json"),
    "metadata cut": lambda store: os.truncate(batches_of(store)[0] / "zarr.json", 50),
    "metadata gone": lambda store: (batches_of(store)[0] / "zarr.json").unlink(),
    "root flipped": lambda store: flip(store / "zarr.json"),
    "root gone": lambda store: (store / "zarr.json").unlink(),
    "root empty": lambda store: os.truncate(store / "zarr.json", 0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_told_and_computed_anew(pair, tmp_path, damage):
    store = tmp_path / "s"
    plain = run(*pair, store=str(store))
    damage(store)
    again = run(*pair, store=str(store))
    told = [record for record in of_type(again, "warning") if record["code"] == "store_damaged"]
    assert len(told) == 1
    assert told[0]["path"] == str(store)
    kept = [record for record in again if record not in told]
    for number, record in enumerate(kept):
        record["seq"] = number
    assert same(kept, plain)
    assert again[-1]["read_nbytes"] > 0
    third = run(*pair, store=str(store))
    assert third[-1]["read_nbytes"] == 0
    assert same(third, plain)


@pytest.mark.parametrize("seed", range(20))
def test_no_flipped_byte_of_a_store_is_believed(pair, tmp_path, seed):
    store = tmp_path / "s"
    plain = run(*pair, store=str(store))
    chosen = random.Random(seed)
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size)
    flip(chosen.choice(files), chosen.random())
    again = run(*pair, store=str(store))
    kept = [record for record in again if not (record["type"] == "warning" and record["code"].startswith("store_"))]
    for number, record in enumerate(kept):
        record["seq"] = number
    assert same(kept, plain)


def test_a_store_of_another_version_is_named_and_rebuilt(pair, tmp_path, monkeypatch):
    store = str(tmp_path / "s")
    with monkeypatch.context() as patched:
        patched.setattr(results, "computed_by", lambda: "0.0.9-other")
        run(*pair, store=store)
    again = run(*pair, store=store)
    assert {record["code"] for record in of_type(again, "warning")} == {"store_version"}
    assert "0.0.9" in of_type(again, "warning")[0]["message"]
    assert again[-1]["read_nbytes"] == again[0]["plan"]["read_nbytes"]
    assert run(*pair, store=store)[-1]["read_nbytes"] == 0


def test_another_layout_is_named_and_rebuilt(pair, tmp_path, monkeypatch):
    store = str(tmp_path / "s")
    with monkeypatch.context() as patched:
        patched.setattr(results, "STORE_VERSION", 99)
        run(*pair, store=store)
    again = run(*pair, store=store)
    assert [record["code"] for record in of_type(again, "warning")] == ["store_version"]
    assert "99" in of_type(again, "warning")[0]["message"]


def test_two_runs_cannot_share_a_store(pair, tmp_path):
    first = iter(compare(*map(str, pair), store=str(tmp_path / "s")))
    next(first)
    with pytest.raises(UsageError, match="another run has it open"):
        compare(*map(str, pair), store=str(tmp_path / "s"))
    first.close()
    assert run(*pair, store=str(tmp_path / "s"))


def test_a_directory_of_something_else_is_left_alone(pair, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        compare(*map(str, pair), store=str(tmp_path))
    with pytest.raises(UsageError, match="cannot be used"):
        compare(*map(str, pair), store=str(tmp_path / "mine.txt"))
    assert os.listdir(tmp_path) == ["mine.txt"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
from diffai_stream.cli.process import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_full_disk_ends_the_storing_and_not_the_run(pair, tmp_path):
    command = [sys.executable, "-c", LIMITED, *map(str, pair), "--store", str(tmp_path / "s"), "--no-progress"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    told = [record for record in of_type(records, "warning") if record["code"] == "store_full"]
    assert done.returncode == 1
    assert len(told) == 1
    kept = [record for record in records if record not in told]
    for number, record in enumerate(kept):
        record["seq"] = number
    assert same(kept, run(*pair))
    assert batches_of(tmp_path / "s") == []
    assert same(run(*pair, store=str(tmp_path / "s")), run(*pair))


EAGER = """
import sys
from diffai_stream.store import results
results.COMMIT_SECONDS = results.COMMIT_SHARE = 0
from diffai_stream.cli.process import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A pair whose comparison takes a while: 48 MB a side."""
    folder = tmp_path_factory.mktemp("larger")
    old = llama(layers=8, width=320)
    return write_safetensors(folder / "a.safetensors", old), write_safetensors(folder / "b.safetensors", tuned(old))


@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_any_moment_is_resumed(larger, tmp_path, seed):
    store = tmp_path / "s"
    command = [sys.executable, "-c", EAGER, *map(str, larger), "--store", str(store), "--no-progress"]
    command += ["--stats", "--chunk-size", "64KiB", "--workers", "1"]
    plain = run(*larger, stats=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not (store.is_dir() and any(store.glob("batches/0*"))) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
    again = run(*larger, stats=True, store=str(store))
    assert same(again, plain)
    assert again[-1]["read_nbytes"] < again[0]["plan"]["read_nbytes"]
    assert run(*larger, stats=True, store=str(store))[-1]["read_nbytes"] == 0
