"""How a run ends: exit statuses in this process, pipes and signals in a process of their own."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from diffai_stream.errors import FormatError
from tests.cli.fakes import FakePipeline, header, plain_run, tensor

ROOT = Path(__file__).parents[2]
START = "from tests.cli.fakes import *; install({pipeline}); from diffai_stream.cli import main; main()"
HEAVY = ("numpy", "rich", "orjson", "dask", "numba", "torch", "yaml", "distributed")


def command(pipeline="FakePipeline()"):
    return [sys.executable, "-c", START.format(pipeline=pipeline), "a", "b"]


def start(pipeline, *arguments, **streams):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command(pipeline), *arguments], cwd=ROOT, env=environment, **streams)


def shell(line, pipeline="EndlessPipeline()"):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = ["bash", "-c", line, "bash", *command(pipeline)]
    return subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_summary_sets_the_status(diffai, use, status):
    use(FakePipeline(plain_run(status)))
    assert diffai("a", "b")[0] == status


def test_no_summary_is_trouble(diffai, use):
    use(FakePipeline([header(), tensor(1)]))
    assert diffai("a", "b")[0] == 2


def test_an_error_before_the_first_record_leaves_stdout_empty(diffai, use):
    pipeline = use(FakePipeline([FormatError("it is \x1b[31mempty", path="a\n.bin")]))
    status, out, err = diffai("a", "b", "-o", "json")
    assert (status, out) == (2, "")
    assert err == "diffai: error: a\\n.bin: it is \\x1b[31mempty\n"
    assert pipeline.is_closed


def test_an_error_later_ends_the_document(diffai, use):
    use(FakePipeline([header(), FormatError("gone")]))
    status, out, err = diffai("a", "b", "-o", "json")
    assert status == 2
    assert [record["type"] for record in json.loads(out)] == ["header"]
    assert "gone" in err


def test_a_defect_is_said_in_one_line_with_a_traceback_on_request(diffai, use, monkeypatch):
    use(FakePipeline([ZeroDivisionError("by zero")]))
    status, out, err = diffai("a", "b")
    assert (status, out) == (2, "")
    assert "internal error: ZeroDivisionError: by zero; please report with the output of diffai doctor" in err
    assert "Traceback" not in err
    monkeypatch.setenv("DIFFAI_DEBUG", "1")
    assert "Traceback" in diffai("a", "b")[2]


def test_memory_that_is_not_there_is_no_defect(diffai, use):
    use(FakePipeline([header(), MemoryError()]))
    status, _, err = diffai("a", "b")
    assert status == 2
    assert err == "diffai: error: not enough memory; try fewer --workers or a smaller --chunk-size\n"


def test_a_broken_pipe_of_the_engine_is_not_taken_for_ours(diffai, use):
    use(FakePipeline([header(), BrokenPipeError(32, "worker gone")]))
    status, _, err = diffai("a", "b")
    assert status == 2
    assert "internal error" in err


def test_an_interrupt_that_the_pipeline_does_not_take_is_130(diffai, use):
    use(FakePipeline([KeyboardInterrupt()]))
    assert diffai("a", "b")[0] == 130


def test_handlers_are_restored(diffai, pipeline):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    diffai("a", "b")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("output", ["ndjson", "json"])  # text prints its tables at the end, which never comes here
def test_head_ends_the_run_quietly_with_141(output):
    done = shell(f'"$@" -o {output} | head -1; echo ${{PIPESTATUS[0]}}')
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


def test_help_into_a_closed_pipe_is_141_too():
    assert shell('"$@" --help | true; echo ${PIPESTATUS[0]}').stdout == "141\n"


def test_closed_stdout_is_refused():
    done = shell('"$@" >&-')
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("arguments", ["", "--help", "-o json", "-o text"])
def test_a_full_disk_is_told(arguments):
    done = shell(f'"$@" {arguments} >/dev/full', "FakePipeline()")
    assert done.returncode == 2
    assert done.stderr == "diffai: error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("redirection", ["2>&-", "2> >(true)"])
def test_nobody_listening_on_stderr_changes_nothing(redirection):
    done = shell(f'"$@" --progress json {redirection}', "FakePipeline()")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 3)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_an_interrupted_summary(number, status, tmp_path):
    output = tmp_path / "records"
    with output.open("wb") as stdout:
        process = start("EndlessPipeline()", stdout=stdout, stderr=subprocess.PIPE)
        while output.stat().st_size < 2000 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, b"")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [records[-1][key] for key in ("type", "status", "exit_status")] == ["summary", "interrupted", status]
    assert [record["seq"] for record in records] == list(range(len(records)))


def waiting_nbytes(pipe):
    """Bytes in a pipe that nobody has read."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def test_a_second_signal_ends_a_run_that_nobody_reads():
    process = start("EndlessPipeline()", "--include-unchanged", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    capacity = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
    deadline = time.monotonic() + 60
    while waiting_nbytes(process.stdout) < capacity - 4096 and time.monotonic() < deadline:
        time.sleep(0.02)  # until the program hangs in a write, where the first signal waits
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.poll() == 130
    process.stdout.close()
    process.stderr.close()


def test_help_loads_nothing_heavy():
    code = "import sys; from diffai_stream.cli.process import run; run(['--help']); run([]); run(['--version']); run(['a'])"
    code += f"; sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "diffai_stream.cli", "--version"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
