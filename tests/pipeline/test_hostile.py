"""Bad input: an error before the first record, or error records beside everything that is readable. Never anything else."""

import os
import time

import numpy as np
import pytest

from diffai_stream.errors import DiffaiError
from diffai_stream.pipeline import compare
from diffai_stream.report.ndjson import encode
from tests import hostile_messages  # noqa: F401 - adds to HOSTILE
from tests.assets_hostile import HOSTILE
from tests.checkpoints import write_safetensors, write_sharded
from tests.validation import of_type, printed, run, tensors

SECONDS = 5
ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = write_safetensors(tmp_path_factory.mktemp("good") / "good.safetensors", {"a": ARRAY, "b": ARRAY + 1})
    run(path, path, include_unchanged=True, analyses=("anomaly",))  # compiled before the clock runs
    return path


@pytest.mark.parametrize("flaw", HOSTILE)
def test_every_flaw_is_told_and_nothing_worse_happens(tmp_path, good, flaw):
    bad = HOSTILE[flaw](tmp_path)
    for pair in ((good, bad), (bad, good), (bad, bad)):
        started = time.monotonic()
        outcome = records_or_error(*map(str, pair))
        assert time.monotonic() - started < SECONDS
        if isinstance(outcome, DiffaiError):
            assert outcome.message
            assert "\n" not in outcome.message
            continue
        found = printed(outcome)
        assert (found[-1]["status"] == "failed") == (found[-1]["exit_status"] == 2) == bool(of_type(found, "error"))
        assert all(b"\n" not in encode(record) for record in outcome)


def records_or_error(old, new):
    try:
        return list(compare(old, new, include_unchanged=True, analyses=("anomaly",)))
    except DiffaiError as error:
        return error


def test_control_characters_in_names_survive_as_data(tmp_path, good):
    records = run(HOSTILE["control_characters"](tmp_path), good)
    assert "\x1b[2J\r\nevil\0" in tensors(records)
    assert records[0]["old"]["metadata"] == [{"key": "\x1b]0;x\x07", "value": "\x9b"}]


@pytest.fixture
def shards(tmp_path):
    """Two sharded checkpoints of which everything differs; the second shard is to be harmed."""
    random = np.random.default_rng(0)
    sides = []
    for side in ("old", "new"):
        parts = {
            f"model-{number:05}-of-00003.safetensors": {
                f"{number}.{k}": random.normal(size=(70, 1024)).astype(np.float32) for k in range(4)
            }
            for number in (1, 2, 3)
        }
        sides.append(write_sharded(tmp_path / side, parts))
    return sides


def shrink(path):
    os.truncate(path, 900_000)


def touch(path):
    os.utime(path, ns=(1, 1))


def replace(path):
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes()[::-1])
    os.replace(other, path)


@pytest.mark.parametrize("how", [shrink, touch, replace, os.remove])
@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("executor", ["synchronous", "threads"])
def test_a_file_that_changes_between_index_and_scan(shards, how, io, executor):
    harmed = shards[1] / "model-00002-of-00003.safetensors"
    records = compare(*map(str, shards), io=io, executor=executor, chunk_size=1 << 16, workers=2)
    seen = [next(records)]
    how(harmed)
    found = printed([*seen, *records])
    errors = of_type(found, "error")
    assert {record["tensor"] for record in errors} == {f"2.{k}" for k in range(4)}
    assert {record["path"] for record in errors} == {str(harmed)}
    assert {name for name, r in tensors(found).items() if r["status"] == "changed"} == {
        f"{n}.{k}" for n in (1, 3) for k in range(4)
    }
    assert (found[-1]["status"], found[-1]["exit_status"], found[-1]["counts"]["error"]) == ("failed", 2, 4)
    assert "model-00002" in errors[0]["path"]


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_file_that_changes_while_it_is_read(shards, io):
    harmed = shards[0] / "model-00003-of-00003.safetensors"
    records = compare(*map(str, shards), io=io, executor="synchronous", chunk_size=1 << 16)
    seen = []
    for record in records:
        seen.append(record)
        if record["type"] == "tensor" and record["name"] == "2.0":
            shrink(harmed)
    found = printed(seen)
    errors = of_type(found, "error")
    lost = {record["tensor"] for record in errors}
    assert {"3.3"} <= lost <= {f"3.{k}" for k in range(4)}  # what was read before is told
    assert {(record["error"], record["path"]) for record in errors} == {("ChangedFileError", str(harmed))}
    assert tensors(found).keys() == {f"{n}.{k}" for n in (1, 2, 3) for k in range(4)} - lost


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path, good):
    path = write_safetensors(tmp_path / "secret.safetensors", {"a": ARRAY})
    path.chmod(0)
    with pytest.raises(DiffaiError, match=r"secret\.safetensors"):
        run(good, path)


@pytest.mark.parametrize("flaw", ["named_pipe", "symlink_loop", "missing_file", "device", "unix_socket"])
def test_what_is_no_file_is_refused_by_name(tmp_path, good, flaw):
    path = HOSTILE[flaw](tmp_path)
    with pytest.raises(DiffaiError) as caught:
        compare(str(good), str(path))
    assert str(path) in str(caught.value)


def test_errors_are_not_mistaken_for_missing_tensors(tmp_path, good):
    found = run(good, HOSTILE["dtype_unknown"](tmp_path))
    assert [record["tensor"] for record in of_type(found, "error")] == ["b"]
    assert (found[-1]["counts"]["removed"], found[-1]["counts"]["error"]) == (0, 1)
    assert "b" not in tensors(found)
