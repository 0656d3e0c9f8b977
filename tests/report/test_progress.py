import io
import json

import pytest

from diffai_stream.report.progress import BarProgress, JsonProgress, LogProgress, NoProgress, open_progress, peak_memory_nbytes


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(progress, clock, steps, seconds):
    progress.start(steps * 1_000_000_000)
    for step in range(steps):
        clock.now += seconds
        progress.advance(1_000_000_000, f"t\x1b[{step}")
    progress.stop()


def test_a_short_run_leaves_no_line_in_a_log():
    stream, clock = io.StringIO(), Clock()
    run(LogProgress(stream, clock), clock, 4, 1.0)
    assert stream.getvalue() == ""


def test_a_long_run_leaves_a_line_every_five_seconds():
    stream, clock = io.StringIO(), Clock()
    run(LogProgress(stream, clock), clock, 12, 1.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("diffai: 5 GB of 12 GB (42%), 1 GB/s, 7.00 s left, peak memory ")
    assert lines[0].endswith(r", t\x1b[4")


def test_json_lines():
    stream, clock = io.StringIO(), Clock()
    progress = JsonProgress(stream, clock)
    run(progress, clock, 3, 0.6)
    progress.stop()
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(record["state"], record["read_nbytes"]) for record in records] == [
        ("running", 0),
        ("running", 2_000_000_000),
        ("done", 3_000_000_000),
    ]
    assert records[0]["remaining_seconds"] is None
    assert records[1]["remaining_seconds"] == 0.6


def test_bar_is_taken_away():
    stream, clock = Terminal(), Clock()
    progress = BarProgress(stream, clock)
    progress.start(2_000_000_000)
    clock.now = 1.0
    progress.advance(1_000_000_000, "[red]model\x1b[31m.weight")
    progress.clear()
    progress.clear()
    clock.now = 2.0
    progress.advance(1_000_000_000, "b")
    progress.stop()
    progress.stop()
    progress.advance(1, "late")
    shown = stream.getvalue()
    assert "1.0/2.0 GB" in shown
    assert "\x1b[31m.weight" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 2


@pytest.mark.parametrize(
    ("kind", "stream", "expected"),
    [
        ("auto", Terminal(), BarProgress),
        ("auto", io.StringIO(), LogProgress),
        ("bar", io.StringIO(), BarProgress),
        ("json", Terminal(), JsonProgress),
        ("none", Terminal(), NoProgress),
    ],
)
def test_kinds(kind, stream, expected):
    progress = open_progress(kind, stream)
    assert type(progress) is expected
    progress.start(10)
    progress.advance(10, "x")
    progress.clear()
    progress.stop()


def test_peak_memory_is_in_bytes():
    assert 1_000_000 < peak_memory_nbytes() < 100_000_000_000
