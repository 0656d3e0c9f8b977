"""Growth is measured in pieces and fitted; what it is, is not judged here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("scale")


def program(*flags):
    command = [sys.executable, str(BENCH / "scale.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_points_are_measured_once_and_removed(tmp_path):
    results = tmp_path / "results"
    flags = ("--quick", "--rounds", 1, "--workers", 1, "--results", results, "--folder", tmp_path / "pairs")
    first = program(*flags, "--only", "100")
    assert first.returncode == 0, first.stderr
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert {row["tensors"] for row in rows} == {100}
    assert list((tmp_path / "pairs").iterdir()) == []
    program(*flags, "--only", "100", "--only", "1,000")
    after = [json.loads(line) for line in results.read_text().splitlines()]
    assert after[: len(rows)] == rows
    assert {row["tensors"] for row in after} == {100, 1000}


def test_a_law_is_found_again(scale):
    law = [(1e9, 100), (5e9, 200), (2e7, 1_000), (8e7, 20_000), (8e8, 200_000)]
    rows = [scale.Row("p", "warm", 1, n, t, 0.3 + 0.4e-9 * n + 50e-6 * t, 10**8) for n, t in law]
    fit = scale.fitted(rows)
    assert (fit.start, fit.by_byte, fit.by_tensor) == pytest.approx((0.3, 0.4e-9, 50e-6))
    assert max(map(abs, fit.residuals.values())) < 1e-9
    lines = scale.table(rows)
    assert "- warm, 1 worker: 0.30 s + 0.400 ns a byte (2.50 GB/s) + 50.0 µs a tensor; residuals up to 0 %" in lines
    assert sum(line.startswith("| p | ") for line in lines) == len(rows)


def test_too_few_points_are_told_without_a_fit(scale):
    assert not any(line.startswith("- ") for line in scale.table([scale.Row("p", "cold", 2, 1, 1, 1.0, 1)]))


def test_tiny_pairs_are_not_recorded():
    assert "--quick measures nothing" in program("--quick", "--write").stderr


def test_a_large_pair_is_not_begun_without_room(scale, tmp_path, monkeypatch):
    figures, rows = importlib.import_module("figures"), importlib.import_module("scale_figures")
    monkeypatch.setitem(rows.PAIR_NBYTES, "20gb", 1 << 60)
    bench = figures.Bench(tmp_path, 1, ["diffai"], "python", False, False)
    with pytest.raises(rows.MeasureError, match="of disk, and"):
        rows.cold(bench)
    assert list(tmp_path.iterdir()) == []
