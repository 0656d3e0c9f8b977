"""Log events: what a log store asks of a line, and that nothing of a record is lost on the way."""

from __future__ import annotations

import json

import pytest

from diffai_stream.report.log_events import COMMON, failed, level, message, nanoseconds
from tests.report import sample_records as sample
from tests.report.harness import HOSTILE, printed, renamed

CLOCK = "2026-01-02T03:04:05.678Z"
KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}  # what ECS 8.11 allows


def events(name, records=None):
    lines = printed(name, records or sample.full_run(), clock=lambda: CLOCK).splitlines()
    return [json.loads(line) for line in lines]


def own(record):
    return {key: value for key, value in record.items() if key not in COMMON}


def test_ecs_has_the_fields_of_every_event_and_all_of_the_record():
    for event, record in zip(events("ecs"), sample.full_run(), strict=True):
        assert event["@timestamp"] == CLOCK
        assert event["ecs"]["version"].startswith("8.")
        assert event["message"]
        assert event["log"]["level"] in ("info", "warning", "error", "critical")
        assert event["event"]["kind"] in KINDS
        assert event["event"]["dataset"] == f"diffai.{record['type']}"
        assert event["event"].get("outcome", "success") in ("success", "failure")
        assert event["diffai"][record["type"]] == own(record)
        assert (event["diffai"]["run_id"], event["diffai"]["seq"]) == (record["run_id"], record["seq"])


def test_otel_has_the_fields_of_the_data_model_and_all_of_the_record():
    for event, record in zip(events("otel"), sample.full_run(), strict=True):
        assert event["Timestamp"] == str(nanoseconds(CLOCK)) == "1767323045678000000"
        assert 1 <= event["SeverityNumber"] <= 24
        assert event["Body"]
        assert event["EventName"] == f"diffai.{record['type']}"
        prefix = f"diffai.{record['type']}."
        found = {key.removeprefix(prefix): item for key, item in event["Attributes"].items() if key.startswith(prefix)}
        assert found == own(record)
        assert event["Resource"]["service.name"] == "diffai"
        names = set(event["Attributes"])
        assert not [name for name in names if any(other.startswith(name + ".") for other in names)]  # no name is a namespace


def test_a_field_of_one_name_has_one_type_everywhere():
    """What a log store refuses: an object where another event had a number."""

    def typed(value, path, found):
        if isinstance(value, dict):
            found.setdefault(path, set()).add("object")
            for key, item in value.items():
                typed(item, f"{path}.{key}", found)
        elif isinstance(value, list):
            for item in value:
                typed(item, path, found)
        elif value is not None:
            found.setdefault(path, set()).add("number" if type(value) in (int, float) else type(value).__name__)

    found: dict[str, set[str]] = {}
    for event in events("ecs"):
        typed(event, "", found)
    assert {path: types for path, types in found.items() if len(types) > 1} == {}


@pytest.mark.parametrize(
    ("record", "expected", "outcome"),
    [
        ({"type": "error", "message": "gone"}, "error", True),
        ({"type": "warning", "message": "odd"}, "warning", None),
        ({"type": "anomaly", "severity": "critical"}, "critical", None),
        ({"type": "regression_test", "severity": "critical", "passed": False}, "critical", True),
        ({"type": "regression_test", "severity": "info", "passed": True}, "info", False),
        ({"type": "summary", "status": "failed"}, "error", True),
        ({"type": "summary", "status": "different"}, "info", False),
        ({"type": "tensor"}, "info", None),
    ],
)
def test_levels_and_outcomes(record, expected, outcome):
    assert (level(record), failed(record)) == (expected, outcome)


def test_messages_are_sentences():
    said = {record["type"]: message(record) for record in sample.full_run()}
    assert said["header"] == "comparing base.safetensors with out/model.gguf"
    assert said["summary"] == "failed: 17 changed, 1 added, 1 removed, 1 reshaped"
    assert said["skipped"].startswith("embedding_analysis skipped for model: ")
    assert said["anomaly"].startswith("anomaly nonfinite: ")
    assert message({**sample.full_run()[-1], "status": "identical", "counts": {}}) == "identical: no tensor differs"


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", ["ecs", "otel"])
def test_hostile_names_stay_in_their_line(name, hostile):
    found = events(name, renamed(sample.full_run(), hostile))
    assert len(found) == len(sample.full_run())


def test_numbers_that_json_has_not_are_null():
    record = {"type": "tensor", "name": "w", "status": "changed", "change": {"relative_l2": float("nan")}}
    assert events("ecs", [record])[0]["diffai"]["tensor"]["change"] == {"relative_l2": None}


def test_the_time_is_that_of_the_record_where_it_has_one():
    record = {"type": "warning", "message": "odd", "timestamp": "2025-01-01T00:00:00.000Z"}
    assert events("ecs", [record])[0]["@timestamp"] == "2025-01-01T00:00:00.000Z"
