"""The README shows what the program prints: its console blocks are run and compared.

UPDATE_README=1 puts what is printed now in place of what is shown.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLUMNS = 100
VARYING = [
    (r" in [\d.]+ \w+( \([\d.]+ GB/s\))?, peak memory [\d.]+ \w+", " in TIME, peak memory SIZE"),
    (r'"(elapsed_seconds|peak_memory_nbytes)":[\d.e+-]+', r'"\1":0'),
]
COLOR = re.compile(r"\x1b\[[\d;]*m")  # jq colours a terminal whatever NO_COLOR says
LONG_NUMBER = re.compile(r"-?\d+\.\d{6,}(?:[eE][+-]?\d+)?")


def steps(block: str) -> list[tuple[str, str]]:
    """(command, output shown) of a console block."""
    parts = [part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in parts]


BLOCKS = [found.group(1) for found in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def stable(text: str) -> str:
    """Text without what changes from run to run; numbers of full precision to four digits."""
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    return LONG_NUMBER.sub(lambda number: f"{float(number.group()):.4g}", text)


def environment() -> dict[str, str]:
    """That of a reader: this Python's `diffai` first on the path, a terminal in UTF-8, no colour."""
    unwanted = ("DIFFAI_", "LC_", "CLICOLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    fixed = {"LANG": "C.UTF-8", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(COLUMNS), "DIFFAI_PROGRESS": "none"}
    return {**kept, **fixed, "PATH": path}


def run(command: str, status: int, folder: Path) -> tuple[str, int]:
    """What a command prints on a terminal, and its exit status; `status` is that of the command before it."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    script = ["bash", "-c", f"(exit {status}); {command}"]
    streams = {"stdin": subprocess.DEVNULL, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen(script, cwd=folder, env=environment(), start_new_session=True, **streams)
    os.close(terminal)
    printed = b""
    try:
        while data := os.read(reader, 1 << 16):
            printed += data
    except OSError:
        pass  # Linux ends a terminal that nobody writes to any more with EIO
    os.close(reader)
    lines = COLOR.sub("", printed.decode().replace("\r\n", "\n")).splitlines()
    return "".join(line.rstrip() + "\n" for line in lines), process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds the demo pair; the kernels are compiled, so that nothing is said about that."""
    made = tmp_path_factory.mktemp("readme")
    subprocess.run([sys.executable, ROOT / "examples" / "demo_pair.py", "demo"], cwd=made, check=True, capture_output=True)
    run("diffai warmup", 0, made)
    return made


def test_the_readme_shows_comparisons():
    commands = [command for block in BLOCKS for command, _ in steps(block)]
    assert sum(command.startswith("diffai ") for command in commands) >= 4
    assert all(command.startswith(("diffai ", "echo $?")) for command in commands)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_console_block(number, folder):
    shown, printed, status = BLOCKS[number], "", 0
    if "| jq" in shown and shutil.which("jq") is None:
        pytest.skip("needs jq")
    for command, _ in steps(shown):
        output, status = run(command, status, folder)
        printed += f"$ {command}\n{output}"
    assert "internal error" not in printed
    if os.environ.get("UPDATE_README") == "1" and stable(printed) != stable(shown):
        README.write_text(README.read_text(encoding="utf-8").replace(shown, printed, 1), encoding="utf-8")
        return
    assert stable(printed) == stable(shown)


def test_markers_that_the_benchmarks_fill_are_there():
    text = README.read_text(encoding="utf-8")
    for name in ("measured", "compile"):
        assert re.search(rf"<!-- {name}:begin -->.*?<!-- {name}:end -->", text, re.DOTALL)
