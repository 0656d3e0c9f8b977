"""Runs of the real pipeline as a program reads them: printed as NDJSON, read back, every record held against the schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.pipeline import compare, inspect
from diffai_stream.report.ndjson import encode
from diffai_stream.report.schema import build_schema

Records = list[dict[str, Any]]
VARIABLE = {"summary": {"elapsed_seconds", "peak_memory_nbytes"}}
COST = {"batch_count", "chunk_nbytes", "projected_memory_nbytes", "executor", "worker_count"}


@cache
def validators() -> Mapping[str, Draft202012Validator]:
    """A validator by record type: the alternative of the printed schema that `type` picks."""
    schema = build_schema({row.name: row.fields for row in ANALYSES.values()})
    kinds = [alternative["$ref"].rpartition("/")[2].removesuffix("_record") for alternative in schema["oneOf"]]
    return {kind: Draft202012Validator({"$ref": f"#/$defs/{kind}_record", "$defs": schema["$defs"]}) for kind in kinds}


def check(record: Mapping[str, Any]) -> None:
    """Fail unless the record, as it was printed, is valid."""
    assert record["type"] in validators()
    errors = [f"{error.json_path}: {error.message[:200]}" for error in validators()[record["type"]].iter_errors(record)]
    if errors:
        pytest.fail(f"{errors} in {str(record)[:500]}", pytrace=False)


def printed(records: Iterable[Mapping[str, Any]]) -> Records:
    """The records as they are read from NDJSON, all of them valid and in order."""
    found = [json.loads(encode(record)) for record in records]
    for number, record in enumerate(found):
        check(record)
        assert record["seq"] == number
        assert record["run_id"] == found[0]["run_id"]
    assert [record["type"] for record in (found[0], found[-1])] == ["header", "summary"]
    return found


def run(old: Path | str, new: Path | str, **options: Any) -> Records:
    """The records of a comparison."""
    return printed(compare(str(old), str(new), **options))


def look(path: Path | str, **options: Any) -> Records:
    """The records of an inspection."""
    return printed(inspect(str(path), **options))


def of_type(records: Records, kind: str) -> Records:
    """The records of one type."""
    return [record for record in records if record["type"] == kind]


def tensors(records: Records) -> dict[str, dict[str, Any]]:
    """Tensor records by name."""
    return {record["name"]: record for record in of_type(records, "tensor")}


def anomalies(records: Records) -> set[tuple[str, str, str | None]]:
    """(kind, subject, side) of the anomalies."""
    return {(record["kind"], record["subject"], record["side"]) for record in of_type(records, "anomaly")}


def stable(records: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """NDJSON lines less what the clock and the cost of the run decide."""
    lines = []
    for record in records:
        kept = {key: value for key, value in record.items() if key not in VARIABLE.get(record["type"], ())}
        if record["type"] == "header":
            kept["plan"] = {key: value for key, value in record["plan"].items() if key not in COST}
        lines.append(encode(kept))
    return lines
