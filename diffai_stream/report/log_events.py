"""Records as log events: ECS (Elastic Common Schema 8) or the OpenTelemetry log data model, one JSON object a line.

The fields of a record lie in a place of their own for each type, `diffai.<type>`: a field that is a number in one type of
record and an object in another would otherwise be refused by a log store. An event has a time, so that here equal runs do not
print equal bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from diffai_stream._version import __version__
from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.figures import number
from diffai_stream.report.ndjson import encode_value
from diffai_stream.report.plain import fitted
from diffai_stream.report.records import CORE_RECORDS, Record

ECS_VERSION: Final = "8.11.0"
COMMON: Final = frozenset({"schema_version", "run_id", "seq", "type", "pair", "timestamp"})
SEVERITY_NUMBERS: Final = {"info": 9, "warning": 13, "error": 17, "critical": 18}
"""INFO, WARN, ERROR and ERROR2 of the OpenTelemetry log data model; nothing here ends a program, which FATAL would say."""

SEVERITY_TEXTS: Final = {"info": "INFO", "warning": "WARN", "error": "ERROR", "critical": "ERROR2"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _EventWriter(ABC):
    """Writes each record as one event, flushed as soon as it is known."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._stream, self._options = stream, options

    @abstractmethod
    def event(self, record: Record, time: str) -> dict[str, Any]:
        """The event of a record that is printed at a time."""

    def write(self, record: Record) -> None:
        """Print the event of the record."""
        event = self.event(fitted(record), record.get("timestamp") or self._options.clock())
        self._stream.write(encode_value(event) + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Flush; every event is already out."""
        self._stream.flush()


class EcsWriter(_EventWriter):
    """Elastic Common Schema: the record's own fields are custom ones, below `diffai`."""

    def event(self, record: Record, time: str) -> dict[str, Any]:
        """The event; `event.outcome` only where something succeeded or failed."""
        kind = record["type"]
        about: dict[str, Any] = {
            "kind": _ecs_kind(record),
            "module": "diffai",
            "dataset": f"diffai.{kind}",
            "action": action(record),
        }
        about |= {"sequence": record["seq"]} if "seq" in record else {}
        about |= {"outcome": "failure" if failed(record) else "success"} if failed(record) is not None else {}
        event: dict[str, Any] = {
            "@timestamp": time,
            "ecs": {"version": ECS_VERSION},
            "message": message(record),
            "log": {"level": level(record), "logger": "diffai_stream"},
            "event": about,
            "service": {"name": "diffai", "version": __version__},
        }
        if kind == "error":
            event["error"] = {"type": record["error"], "message": record["message"]}
        if kind in ("error", "warning") and record.get("path"):
            event["file"] = {"path": record["path"]}
        return {**event, "diffai": {**_run(record), kind: own(record)}}


class OtelWriter(_EventWriter):
    """The OpenTelemetry log data model by the names of its fields; 64-bit times are text, as in OTLP over JSON."""

    def event(self, record: Record, time: str) -> dict[str, Any]:
        """The event; attributes are dotted names."""
        kind = record["type"]
        attributes = {f"diffai.{name}": value for name, value in _run(record).items()}
        attributes |= {f"diffai.{kind}.{name}": value for name, value in own(record).items()}
        attributes |= {"error.type": record["error"]} if kind == "error" else {}
        return {
            "Timestamp": str(nanoseconds(time)),
            "SeverityText": SEVERITY_TEXTS[level(record)],
            "SeverityNumber": SEVERITY_NUMBERS[level(record)],
            "Body": message(record),
            "EventName": f"diffai.{kind}",
            "Attributes": attributes,
            "Resource": {"service.name": "diffai", "service.version": __version__},
            "InstrumentationScope": {"Name": "diffai_stream", "Version": __version__},
        }


def nanoseconds(time: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time, which has microseconds at most."""
    return (datetime.fromisoformat(time) - _EPOCH) // timedelta(microseconds=1) * 1000


def own(record: Record) -> dict[str, Any]:
    """The fields that belong to the type of the record."""
    return {name: value for name, value in record.items() if name not in COMMON}


def _run(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in ("schema_version", "run_id", "seq", "pair") if name in record}


def level(record: Record) -> str:
    """info, warning, error or critical."""
    kind = record["type"]
    if kind == "error" or (kind == "summary" and record.get("status") in ("failed", "interrupted")):
        return "error"
    return "warning" if kind == "warning" else str(record.get("severity") or "info")


def failed(record: Record) -> bool | None:
    """Whether what the record tells of failed; None where nothing was to succeed."""
    if record["type"] == "summary":
        return level(record) == "error"
    if record["type"] == "error":
        return True
    return not record["passed"] if isinstance(record.get("passed"), bool) else None


def action(record: Record) -> str:
    """What happened, in a word: the status, code, class or kind that the record has."""
    for name in ("status", "code", "error", "kind", "gate", "trigger"):
        if isinstance(record.get(name), str):
            return str(record[name])
    return str(record["type"])


def message(record: Record) -> str:
    """One sentence for people."""
    kind = record["type"]
    if kind == "header":
        return f"comparing {record['old']['path']} with {record['new']['path']}"
    if kind == "tensor":
        relative = (record.get("change") or {}).get("relative_l2")
        return f"{record['name']}: {record['status']}" + (f", relative change {number(relative)}" if relative else "")
    if kind in ("warning", "error"):
        return str(record["message"])
    if kind == "skipped":
        return f"{record['analysis']} skipped for {record['subject']}: {record['reason']}"
    if kind == "summary":
        counts = record["counts"]
        told = ", ".join(f"{counts[name]} {name}" for name in ("changed", "added", "removed", "reshaped") if counts.get(name))
        return f"{record['status']}: {told or 'no tensor differs'}"
    word = action(record)
    return f"{kind}{'' if word == kind else f' {word}'}: {record.get('subject', 'model')}"


def _ecs_kind(record: Record) -> str:
    """One of the values that ECS allows: alert, metric or event."""
    if record["type"] not in CORE_RECORDS and record.get("severity") in ("warning", "critical"):
        return "alert"
    return "metric" if record["type"] == "tensor" else "event"
