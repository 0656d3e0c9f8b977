"""The simulated cluster: its plan is the real one, and no machine does more than it can."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest

from diffai_stream.formats.catalogue import open_checkpoint

BENCH = Path(__file__).parents[2] / "bench"
GIVEN = ("--scan-ns", 0.4, "--tensor-us", 40, "--record-us", 60, "--result-kb", 100)
SMALL = ("--layers", 5, "--experts", 4)


@pytest.fixture
def simulate(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("simulate")


@pytest.fixture
def rates(simulate):
    return simulate.Rates(1e-9, 1e-3, 1e-4, 1e-4, 1e-9, 1e-5, 1e-5, 1e5)


def output(*flags):
    command = [sys.executable, str(BENCH / "simulate.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def test_the_checkpoint_has_the_size_that_is_published(simulate):
    moe = importlib.import_module("moe_pair")
    parameters = sum(prod(shape) for name, shape in moe.shapes(moe.Config()).items() if not name.endswith(moe.BIAS))
    assert round(parameters / 1e9) == 671


def test_files_of_holes_are_opened_as_what_they_claim_to_be(simulate, tmp_path):
    moe = importlib.import_module("moe_pair")
    old, _ = moe.write_pair(tmp_path, moe.Config(num_hidden_layers=4, n_routed_experts=2))
    found = open_checkpoint(str(old))
    shapes = moe.shapes(moe.Config(num_hidden_layers=4, n_routed_experts=2))
    assert {entry.name: entry.shape for entry in found.tensors} == shapes
    assert sum(path.stat().st_blocks * 512 for path in old.iterdir()) < 4 << 20


def test_lines_tell_the_rates_and_each_number_of_workers():
    about, *lines = map(json.loads, output("--json", "--workers", 1, "--workers", 4, *SMALL, *GIVEN).splitlines())
    assert about["rates"]["scan_seconds_per_byte"] == pytest.approx(0.4e-9)
    assert about["assumptions"]
    assert [line["workers"] for line in lines] == [1, 4]
    assert lines[0]["seconds"] > lines[1]["seconds"] > lines[0]["seconds"] / 4
    assert lines[0]["nbytes"] == lines[1]["nbytes"] > 1e9


def test_rates_that_are_not_given_are_measured():
    told = output("--workers", 2, *SMALL)
    assert "ns a byte and" in told
    assert told.splitlines()[-1].startswith("| 2 | ")


def test_one_worker_does_one_task_after_the_other(simulate, rates):
    tasks = [simulate.Task(1_000_000, 1, 1)] * 500
    outcome = simulate.simulated(tasks, 1, rates, 4)
    work = 500 * rates.task_seconds(1_000_000, 1)
    assert work < outcome.seconds < work + 0.02
    assert outcome.limit == "workers"


def test_no_run_is_shorter_than_what_its_busiest_machine_has_to_do(simulate, rates):
    tasks = [simulate.Task(1_000_000 * (1 + number % 5), 3, number % 2) for number in range(2000)]
    outcomes = [simulate.simulated(tasks, 2**k, rates, 4) for k in range(8)]
    for outcome in outcomes:
        shares = (outcome.worker_share, outcome.scheduler_share, outcome.client_share)
        assert max(shares) <= 1 + 1e-9
    assert all(right.seconds <= left.seconds * 1.01 for left, right in pairwise(outcomes))
    assert outcomes[-1].limit == "scheduler"
    assert outcomes[-1].seconds == pytest.approx(2000 * rates.scheduler_seconds, rel=0.05)


def test_no_more_tasks_are_under_way_than_the_program_keeps(simulate, rates):
    slow = rates._replace(scheduler_seconds=0.0, send_seconds=0.0, result_seconds=0.0, record_seconds=0.0)
    tasks = [simulate.Task(10**9, 1, 1), *[simulate.Task(1000, 1, 1)] * 100]
    outcome = simulate.simulated(tasks, 2, slow, 4)  # the first task holds the window of 8 back
    rest = slow.task_seconds(1000, 1)
    assert outcome.seconds == pytest.approx(slow.task_seconds(10**9, 1) + 93 * rest / 2, rel=1e-3)
