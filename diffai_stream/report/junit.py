"""JUnit XML: gates, alerts and errors as test cases, as CI servers read them.

Every gate is a case that passes or fails, every critical alert a failed case, every `error` record an error; without gates
the verdict is a case. Layout: what Jenkins and GitLab share (testsuites, testsuite, testcase, failure, error, skipped).
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.records import Record

SUITE = "diffai"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def text(value: object) -> str:
    """A value as text that XML may hold: other control characters are left out."""
    return _FORBIDDEN.sub("", str(value))


class JunitWriter:
    """Collects the cases, which are few, and prints the document at the end."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._stream = stream
        self._cases: list[ElementTree.Element] = []
        self._counts = {"failures": 0, "errors": 0, "skipped": 0}
        self._has_gates = False
        self._seconds = 0.0
        self._closed = False

    def write(self, record: Record) -> None:
        """Note a record that is a test case; others are not printed."""
        row: dict[str, Any] = dict(record)
        kind = str(row["type"])
        if kind == "regression_test":
            self._has_gates = True
            case = self._case("gate." + row["gate"], row["subject"])
            if not row["passed"]:
                self._outcome(
                    case, "failures", "failure", f"{row['detail'] or row['gate']}: {row['value']} (limit {row['limit']})"
                )
        elif kind == "alert":
            case = self._case("alert." + row["trigger"], row["subject"])
            if row["severity"] == "critical":
                self._outcome(case, "failures", "failure", row["detail"])
            else:
                ElementTree.SubElement(case, "system-out").text = text(row["detail"])
        elif kind == "error":
            where = row["tensor"] or row["path"] or "input"
            self._outcome(self._case("error", where), "errors", "error", row["message"])
        elif kind == "skipped":
            self._outcome(self._case("analysis." + row["analysis"], row["subject"]), "skipped", "skipped", row["reason"])
        elif kind == "summary":
            self._summary(row)

    def _summary(self, row: dict[str, Any]) -> None:
        self._seconds = float(row["elapsed_seconds"])
        if not self._has_gates:
            case = self._case("verdict", "model")
            if row["exit_status"]:
                self._outcome(case, "failures", "failure", f"the checkpoints are {row['status']}")

    def _case(self, group: str, name: str) -> ElementTree.Element:
        case = ElementTree.Element("testcase", classname=text(f"{SUITE}.{group}"), name=text(name), time="0")
        self._cases.append(case)
        return case

    def _outcome(self, case: ElementTree.Element, count: str, tag: str, message: str) -> None:
        self._counts[count] += 1
        ElementTree.SubElement(case, tag, message=text(message))

    def close(self) -> None:
        """Print the document."""
        if self._closed:
            return
        counts = {"tests": str(len(self._cases)), **{name: str(count) for name, count in self._counts.items()}}
        told = {"name": SUITE, "time": f"{self._seconds:.3f}", **counts}
        root = ElementTree.Element("testsuites", told)
        suite = ElementTree.SubElement(root, "testsuite", told)
        suite.extend(self._cases)
        ElementTree.indent(root)
        self._stream.write(ElementTree.tostring(root, "utf-8", xml_declaration=True) + b"\n")
        self._closed = True
        self._stream.flush()
