"""What is asked of a run that met a fault: each tensor has one record, which is the one of an undisturbed run or an error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from tests.faults.process import Ended, Finding
from tests.validation import check, stable

Record = dict[str, Any]
ORDER = {"seq", "run_id"}  # an error in the place of a tensor takes its findings away, and so moves what follows


def expect(holds: bool, message: str, ended: Ended | None = None) -> None:
    """Raise Finding unless it holds, with what the process said."""
    if not holds:
        raise Finding(message + (f"\nstatus {ended.status}; stderr: {ended.said[-3000:]}" if ended else ""))


def records_of(ended: Ended) -> list[Record]:
    """The whole lines that were printed, each of them valid and in its place."""
    lines = ended.out.split(b"\n")[:-1]
    records = [json.loads(line) for line in lines]
    for number, record in enumerate(records):
        check(record)
        expect(record["seq"] == number, f"record {number} has the number {record['seq']}", ended)
    return records


def lines_of(records: Iterable[Record], *left_out: str) -> list[bytes]:
    """The records as lines less what the clock, the cost and a store decide."""
    kept = [{key: value for key, value in record.items() if key not in left_out} for record in records]
    return stable([{k: v for k, v in r.items() if k != "read_nbytes"} if r["type"] == "summary" else r for r in kept])


def check_same(ended: Ended, plain: list[Record]) -> None:
    """All records are those of the undisturbed run, byte for byte, and so is the exit status."""
    records = records_of(ended)
    expect(ended.status == plain[-1]["exit_status"], "another exit status than undisturbed", ended)
    check_lines(lines_of(records), lines_of(plain), ended)
    expect(len(records) == len(plain), f"{len(records)} records, {len(plain)} undisturbed", ended)


def check_begun(ended: Ended, plain: list[Record]) -> int:
    """What was printed is how the undisturbed run begins; how many records that are."""
    records = records_of(ended)
    check_lines(lines_of(records), lines_of(plain), ended)
    return len(records)


def check_lines(found: list[bytes], plain: list[bytes], ended: Ended) -> None:
    """Raise Finding at the first line that differs."""
    for number, (mine, right) in enumerate(zip(found, plain, strict=False)):
        expect(mine == right, f"record {number} differs from undisturbed:\n{mine[:1500]!r}\n{right[:1500]!r}", ended)


def check_told(ended: Ended, plain: list[Record], harmed: Collection[str], files: Collection[str]) -> int:
    """Each tensor has its undisturbed record or, when it is of the harmed ones, an error that names it and a harmed file.

    A file may have an error of its own. How many errors there are.
    """
    expect(ended.status == 2, "the exit status is not 2", ended)
    records = records_of(ended)
    expect(bool(records) and records[-1]["type"] == "summary", "no summary at the end", ended)
    expect(records[-1]["exit_status"] == 2, "the summary does not say 2", ended)
    right = {record["name"]: record for record in plain if record["type"] == "tensor"}
    errors = [record for record in records if record["type"] == "error"]
    told = Counter(record["name"] for record in records if record["type"] == "tensor")
    told += Counter(record["tensor"] for record in errors if record["tensor"] is not None)
    once = dict.fromkeys(right, 1)
    expect(told == once, f"not one record a tensor: {dict((Counter(once) - told) + (told - Counter(once)))}", ended)
    for record in records:
        if record["type"] == "tensor":
            check_lines(lines_of([record], *ORDER), lines_of([right[record["name"]]], *ORDER), ended)
    for error in errors:
        expect(error["tensor"] in {*harmed, None}, f"{error['tensor']} is not of the harmed file: {error}", ended)
        expect(error["path"].endswith(tuple(files)), f"the error does not name the harmed file: {error}", ended)
    return len(errors)


def check_refused(ended: Ended, *words: str) -> None:
    """It ended with 2, printed nothing and said in one line on stderr what is wrong."""
    expect(ended.status == 2, "the exit status is not 2", ended)
    expect(ended.out == b"", "it printed something", ended)
    told = ended.said.splitlines()
    expect(len(told) == 1 and told[0].startswith("diffai: error: "), "not one line of error", ended)
    expect("internal error" not in told[0], "an internal error", ended)
    expect(all(word in told[0] for word in words), f"stderr does not say {words}", ended)
