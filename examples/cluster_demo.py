"""Start a dask scheduler and three workers on this machine, compare the demo pair through them, and show that nothing differs.

    python examples/cluster_demo.py demo/base demo/finetuned

On real machines the scheduler and the workers are there already: then `diffai OLD NEW --scheduler tcp://HOST:8786` is all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffai_stream import compare

WORKERS = 3
PATIENCE_SECONDS = 60
VARIES = ("run_id", "elapsed_seconds", "peak_memory_nbytes", "plan")


def start(module: str, *flags: str, log: Path) -> subprocess.Popen[bytes]:
    """A part of dask as a process; what it says goes to the log."""
    with log.open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", f"distributed.cli.{module}", *flags], stdout=output, stderr=output)


def wait_for(file: Path, scheduler: subprocess.Popen[bytes], log: Path) -> None:
    """Until the scheduler wrote its address."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not file.exists():
        if scheduler.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the scheduler did not start:\n{log.read_text()}")
        time.sleep(0.05)


def told(records: object) -> list[dict[str, object]]:
    """The records without what is about the run itself."""
    return [{key: value for key, value in record.items() if key not in VARIES} for record in records]  # type: ignore[attr-defined]


def main() -> None:
    old, new = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "scheduler.json", Path(folder) / "dask.log"
        where = ("--host", "tcp://127.0.0.1", "--port", "0", "--no-dashboard")
        processes = [start("dask_scheduler", *where, "--scheduler-file", str(file), log=log)]
        try:
            wait_for(file, processes[0], log)
            joins = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder)
            flags = ("--scheduler-file", str(file), *joins)
            processes += [start("dask_worker", *flags, log=log) for _ in range(WORKERS)]
            through = told(compare(old, new, scheduler_file=str(file), executor="distributed"))
        finally:
            for process in reversed(processes):  # workers first: one without its scheduler waits for it
                process.kill()
                process.wait(PATIENCE_SECONDS)
    here = told(compare(old, new))
    tensors = sum(record["type"] == "tensor" for record in through)
    print(f"{len(through)} records, {tensors} of tensors, through a scheduler and {WORKERS} workers")
    print("the same as without them" if through == here else "they differ from those without them")
    raise SystemExit(through != here)


if __name__ == "__main__":
    main()
