"""Records leave as soon as they are known; closing the iterator, or Ctrl-C, ends the work."""

import threading
import time

import numpy as np
import pytest

from diffai_stream.engine import graph, local
from diffai_stream.engine.local import PENDING_WINDOWS
from diffai_stream.engine.windows import WINDOWS
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.validation import printed

CHUNK = 1 << 16
TENSORS = 100
BATCHES = 2 * TENSORS


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Tensors that all differ, of two chunks each."""
    folder, values = tmp_path_factory.mktemp("pair"), np.arange(65_536, dtype=np.float32).reshape(2, -1)
    return tuple(
        str(write_safetensors(folder / name, {f"t.{number}.w": values * scale for number in range(TENSORS)}))
        for name, scale in (("old.safetensors", np.float32(1)), ("new.safetensors", np.float32(1.5)))
    )


@pytest.fixture
def scans(monkeypatch):
    """Counts the batches scanned."""
    scan, seen = graph.scan_batch, []

    def counted(batch, program):
        seen.append(batch.index)
        return scan(batch, program)

    for module in (graph, local):
        monkeypatch.setattr(module, "scan_batch", counted)
    return seen


def ends_with(threads):
    """Whether no more threads are left than there were, the one that reads ahead given a moment to end."""
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() <= threads


def first_tensor(records):
    return next(record for record in records if record["type"] == "tensor")


@pytest.mark.parametrize("executor", ["synchronous", "threads"])
def test_the_first_record_leaves_with_its_window(pair, scans, executor):
    records = compare(*pair, executor=executor, chunk_size=CHUNK, workers=2)
    assert next(records)["plan"]["batch_count"] == BATCHES
    assert scans == []
    assert first_tensor(records)["name"] == "t.0.w"
    ahead = 1 if executor == "synchronous" else 1 + PENDING_WINDOWS + 2
    assert WINDOWS[0] <= len(scans) <= sum(WINDOWS[:ahead]) < BATCHES / 3
    records.close()


@pytest.mark.parametrize("executor", ["synchronous", "threads"])
def test_a_closed_iterator_stops_the_work(pair, scans, executor):
    before = threading.active_count()
    records = compare(*pair, executor=executor, chunk_size=CHUNK, workers=2)
    first_tensor(records)
    records.close()
    done = len(scans)
    assert done < BATCHES / 3
    time.sleep(0.1)
    assert len(scans) == done
    assert ends_with(before)


def test_an_iterator_never_read_starts_nothing(pair, scans):
    compare(*pair, chunk_size=CHUNK).close()
    assert scans == []


def test_a_slow_reader_holds_the_work_back(pair, scans):
    records = compare(*pair, chunk_size=CHUNK, workers=2)
    first_tensor(records)
    time.sleep(0.3)
    assert len(scans) < BATCHES / 2
    records.close()


@pytest.mark.parametrize("executor", ["synchronous", "threads"])
def test_an_interrupt_ends_with_a_summary(pair, executor):
    records = compare(*pair, executor=executor, chunk_size=CHUNK, workers=2)
    seen = [next(records), next(records)]
    seen.append(records.throw(KeyboardInterrupt()))
    assert list(records) == []
    summary = printed(seen)[-1]
    assert (summary["status"], summary["exit_status"]) == ("interrupted", 130)
    assert summary["counts"]["changed"] >= 1
    assert 0 < summary["read_nbytes"] < seen[0]["plan"]["read_nbytes"]


def test_records_come_in_the_order_of_the_plan(pair):
    names = [record["name"] for record in compare(*pair, chunk_size=CHUNK, workers=4) if record["type"] == "tensor"]
    assert names == [f"t.{number}.w" for number in range(TENSORS)]


def test_a_bug_in_a_task_is_raised_not_swallowed(pair, monkeypatch):
    def broken(batch, program):
        raise RuntimeError("a bug")

    monkeypatch.setattr(graph, "scan_batch", broken)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="a bug"):
        list(compare(*pair, chunk_size=CHUNK, workers=2))
    assert ends_with(before)
