"""Mutate files of every format until a number of them was examined: python -m tests.fuzz --count 20000

Workers are processes of their own with a memory limit, so that a crash or an allocation by claim is a finding and not the
end. The seed of a finding reproduces it: python -m tests.fuzz --only FORMAT --seed SEED --count 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.corpus import CORPUS
from tests.fuzz.target import SECONDS
from tests.fuzz.worker import work

Outcomes = Counter[tuple[str, str]]  # by format and what came of it


def fuzz(cases: list[tuple[str, int]], queue: multiprocessing.Queue) -> tuple[Outcomes, list[str]]:
    """What came of them, and the findings; a worker that dies is replaced and its case is a finding."""
    outcomes: Outcomes = Counter()
    findings: list[str] = []
    while cases:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            names, seeds = [name for name, _ in cases], [seed for _, seed in cases]
            worker = multiprocessing.Process(target=work, args=(names, seeds, Path(folder), queue), daemon=True)
            worker.start()
            done, current = _follow(worker, queue, outcomes, findings)
            if current is not None:
                findings.append(f"{current[0]} --seed {current[1]}: the process died with {worker.exitcode} or hung")
                outcomes[CORPUS[current[0]].format, "finding"] += 1
        if not done:
            findings.append(f"the worker ended with {worker.exitcode} before its first file")
            break
        cases = cases[done:]
    return outcomes, findings


def _follow(
    worker: multiprocessing.Process, queue: multiprocessing.Queue, outcomes: Outcomes, findings: list[str]
) -> tuple[int, tuple[str, int] | None]:
    """Take a worker's messages until it ends: how many cases are done, and the one it died or hung in."""
    done, current, heard = 0, None, time.monotonic()
    while worker.is_alive() or not queue.empty():
        try:
            kind, name, seed, text = queue.get(timeout=0.2)
        except Exception:
            if current is not None and time.monotonic() - heard > 4 * SECONDS:
                worker.kill()
            continue
        heard = time.monotonic()
        if kind == "begin":
            current = (name, seed)
            continue
        done, current = done + 1, None
        outcomes[CORPUS[name].format, "finding" if kind == "finding" else text] += 1
        if kind == "finding":
            findings.append(f"{name} --seed {seed}:\n{text}")
    worker.join()
    return (done + 1 if current is not None else done), current


def by_format(outcomes: Outcomes) -> list[str]:
    """A line for each parser: how many files it was shown, and what came of them."""
    lines = []
    for parser in dict.fromkeys(name for name, _ in outcomes):
        found = {outcome: count for (name, outcome), count in sorted(outcomes.items()) if name == parser}
        told = ", ".join(f"{outcome} {count}" for outcome, count in found.items())
        lines.append(f"{parser:>12} {sum(found.values()):6}: {told}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="mutated files in all (default 20000)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--only", action="append", choices=sorted(CORPUS), help="this kind of file; repeatable")
    chosen = parser.parse_args()
    names = [name for name in chosen.only or CORPUS if CORPUS[name].is_available]
    cases = [(names[number % len(names)], chosen.seed + number // len(names)) for number in range(chosen.count)]
    multiprocessing.set_start_method("spawn")
    started = time.monotonic()
    outcomes, findings = fuzz(cases, multiprocessing.Queue())
    print(
        f"{sum(outcomes.values())} files of {len(names)} kinds in {time.monotonic() - started:.0f} s, {len(findings)} findings"
    )
    for line in by_format(outcomes):
        print(line)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
