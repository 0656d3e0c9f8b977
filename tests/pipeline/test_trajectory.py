"""Several checkpoints in a row: order of steps, one header, a summary a pair, what a pair says as it says it alone."""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.pipeline import compare
from diffai_stream.report.progress import NoProgress
from diffai_stream.run import Run
from diffai_stream.trajectory import expanded, steps_in
from tests.checkpoints import write_safetensors
from tests.validation import printed

STEPS = (5, 100, 20, 1000)
RUN_FIELDS = ("elapsed_seconds", "peak_memory_nbytes", "seq", "run_id", "pair")


@pytest.fixture
def folder(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    for step in STEPS:
        tensors = {"model.layers.0.mlp.up_proj.weight": values + np.float32(step / 1e4), "fixed.weight": values}
        write_safetensors(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors", tensors)
    (tmp_path / "run" / "checkpoint-best").mkdir()
    return tmp_path / "run"


def stripped(records):
    return [{k: v for k, v in record.items() if k not in RUN_FIELDS} for record in records if record["type"] != "header"]


def test_a_directory_expands_in_the_order_of_the_steps(folder):
    assert [path.rpartition("-")[2] for path in steps_in(str(folder))] == ["5", "20", "100", "1000"]
    assert expanded([str(folder)]) == steps_in(str(folder))


def test_one_header_and_a_summary_a_pair(folder):
    records = printed(compare(str(folder)))
    assert [record["seq"] for record in records] == list(range(len(records)))
    assert len({record["run_id"] for record in records}) == 1
    assert [record["type"] for record in records].count("header") == 1
    header = records[0]
    assert [side["path"].rpartition("-")[2] for side in header["checkpoints"]] == ["5", "20", "100", "1000"]
    assert (header["old"], header["new"]) == (header["checkpoints"][0], header["checkpoints"][-1])
    assert "pair" not in header
    assert [record["pair"] for record in records if record["type"] == "summary"] == [0, 1, 2]
    pairs = [record["pair"] for record in records[1:]]
    assert pairs == sorted(pairs)
    assert header["plan"]["read_nbytes"] == sum(r["read_nbytes"] for r in records if r["type"] == "summary")


def test_each_pair_says_what_it_says_alone(folder):
    paths = steps_in(str(folder))
    records = list(compare(*paths, stats=True))
    for number in range(3):
        alone = list(compare(*paths[number : number + 2], stats=True))
        assert stripped(r for r in records[1:] if r["pair"] == number) == stripped(alone)


def test_two_checkpoints_of_a_directory_are_a_plain_pair(folder):
    for step in (100, 1000):
        (folder / f"checkpoint-{step}" / "model.safetensors").unlink()
        (folder / f"checkpoint-{step}").rmdir()
    records = list(compare(str(folder)))
    assert "checkpoints" not in records[0]
    assert not [record for record in records if "pair" in record]


def test_a_base_before_a_directory(folder, tmp_path):
    base = str(write_safetensors(tmp_path / "base.safetensors", {"fixed.weight": np.zeros((6, 40), np.float32)}))
    assert expanded([base, str(folder)]) == [base, *steps_in(str(folder))]


def test_a_directory_with_weights_of_its_own_is_a_checkpoint_among_others(folder, tmp_path):
    """The Trainer saves the last model beside the checkpoints: two such directories are compared as they always were."""
    write_safetensors(folder / "model.safetensors", {"fixed.weight": np.zeros((6, 40), np.float32)})
    assert expanded([str(folder), str(folder)]) == [str(folder)] * 2
    assert len(expanded([str(folder)])) == len(STEPS)


def test_usage(folder, tmp_path):
    other = tmp_path / "other"
    write_safetensors(other / "checkpoint-1" / "model.safetensors", {"a": np.zeros(3, np.float32)})
    with pytest.raises(UsageError, match="inspect a"):
        compare("a")
    with pytest.raises(UsageError, match="two checkpoints"):
        compare()
    with pytest.raises(UsageError, match="only one checkpoint"):
        compare(str(other))
    with pytest.raises(UsageError, match="both hold several"):
        compare(str(folder), str(other))
    with pytest.raises(UsageError, match="fast"):
        compare(str(folder), fast=True, histograms=True)


def test_a_gate_is_checked_for_every_pair_before_any_scan(folder):
    write_safetensors(folder / "checkpoint-1000" / "model.safetensors", {"else.weight": np.zeros((6, 40), np.float32)})
    write_safetensors(folder / "checkpoint-100" / "model.safetensors", {"else.weight": np.zeros((6, 40), np.float32)})
    with pytest.raises(UsageError, match="matches no"):
        compare(str(folder), analyses=("regression_test",), expect_unchanged=("fixed.*",))


def test_what_a_pair_knows_of_those_before(folder, monkeypatch):
    seen = []

    def init(self, *arguments, original=Run.__init__, **named):
        original(self, *arguments, **named)
        seen.append((self.context.index, self.context.count, len(self.context.previous), self.context.is_last))

    monkeypatch.setattr(Run, "__init__", init)
    list(compare(str(folder), options=Options(), progress=NoProgress()))
    assert seen == [(0, 3, 0, False), (1, 3, 1, False), (2, 3, 2, True)]


def test_an_unreadable_pair_leaves_the_others(folder):
    """The middle checkpoint lost a tensor's bytes: its pairs fail, the one after them does not."""
    path = folder / "checkpoint-20" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    summaries = [record for record in compare(str(folder)) if record["type"] == "summary"]
    assert [summary["exit_status"] for summary in summaries] == [2, 2, 1]


def test_an_interrupt_ends_all(folder):
    records = compare(str(folder))
    for record in records:
        if record["type"] == "summary":
            break
    next(records)
    left = [records.throw(KeyboardInterrupt()), *records]
    assert [(record["type"], record["status"], record["pair"]) for record in left] == [("summary", "interrupted", 1)]
