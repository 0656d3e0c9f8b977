"""What is kept of the findings until they are shown: the worst ones, in bounded memory, and counts of all."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from diffai_stream.report.figures import finite
from diffai_stream.report.records import FindingRecord, Record

SEVERITIES: Final = ("critical", "warning", "info")
BASE_FIELDS: Final = frozenset(FindingRecord.__annotations__)
_MAX_REASONS: Final = 100


class AnomalyList:
    """Collects `anomaly` records: the first of each severity, and counts."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._kept: dict[str, list[Record]] = {severity: [] for severity in SEVERITIES}
        self._counts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Note one anomaly."""
        severity = record.get("severity", "info")
        self._counts[severity] += 1
        kept = self._kept.setdefault(severity, [])
        if not self._top or len(kept) < self._top:
            kept.append(record)

    @property
    def total(self) -> int:
        """How many there were."""
        return self._counts.total()

    def records(self) -> list[Record]:
        """The ones to show, the most severe first, in the order of the model among equals."""
        return [record for severity in self._kept for record in self._kept[severity]][: self._top or None]

    def totals(self) -> str:
        """`1 critical, 2 warning`."""
        return ", ".join(f"{self._counts[severity]:,} {severity}" for severity in self._kept if self._counts[severity])


class QuantizationList:
    """Collects `quantization` records: the tensors with the lowest SQNR, and those about the model."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._worst: list[tuple[float, int, Record]] = []
        self.model: list[Record] = []
        self.total = 0

    def add(self, record: Record) -> None:
        """Note one tensor or the totals."""
        if record.get("scope") != "tensor":
            self.model.append(record)
            return
        self.total += 1
        sqnr_db = finite(record.get("sqnr_db"))
        entry = (float("-inf") if sqnr_db is None else -sqnr_db, -self.total, record)
        if not self._top or len(self._worst) < self._top:
            heapq.heappush(self._worst, entry)
        elif entry[:2] > self._worst[0][:2]:
            heapq.heapreplace(self._worst, entry)

    def records(self) -> list[Record]:
        """The tensors to show, the lowest SQNR first."""
        return [record for *_, record in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]


class FindingList:
    """Collects records of any other analysis: of tensors and layers the most severe, those about the model apart."""

    def __init__(self, analysis: str, top: int) -> None:
        self.analysis = analysis
        self._top = top
        self._kept: dict[bool, dict[str, list[Record]]] = {about_model: {} for about_model in (False, True)}
        self.total = 0

    def add(self, record: Record) -> None:
        """Note one record."""
        self.total += 1
        severities = self._kept[record.get("scope") == "model"]
        kept = severities.setdefault(record.get("severity", "info"), [])
        if not self._top or len(kept) < self._top:
            kept.append(record)

    @property
    def records(self) -> list[Record]:
        """The ones to show: tensors and layers in the order of the model, the less severe left out first, then the model."""
        return [*self._selected(False), *self._selected(True)]

    def _selected(self, about_model: bool) -> list[Record]:
        severities = self._kept[about_model]
        found = [record for severity in SEVERITIES for record in severities.get(severity, ())][: self._top or None]
        return sorted(found, key=lambda record: record.get("seq", 0))

    @property
    def title(self) -> str:
        """The name of the analysis as a heading, with a word where its figures are no measurements."""
        title = self.analysis.replace("_", " ")
        estimated = any(record.get("basis") == "estimated" for record in self.records)
        return title[:1].upper() + title[1:] + (" (estimated)" if estimated else "")


class SkipList:
    """Counts `skipped` records by analysis and reason."""

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], list[Any]] = {}

    def add(self, record: Record) -> None:
        """Note one reason; beyond a hundred different ones only the known ones are counted."""
        key = (record["analysis"], record["reason"])
        if key in self._subjects or len(self._subjects) < _MAX_REASONS:
            entry = self._subjects.setdefault(key, [record.get("subject", ""), 0])
            entry[1] += 1

    def reasons(self) -> list[tuple[str, str, str, int]]:
        """Analysis, reason, the first subject, and how many subjects."""
        return [(*key, str(subject), total) for key, (subject, total) in self._subjects.items()]


def own_fields(record: Record) -> dict[str, Any]:
    """The fields that the analysis declares."""
    return {key: item for key, item in record.items() if key not in BASE_FIELDS}


def telling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say something: null and empty lists say nothing to people."""
    return {key: item for key, item in fields.items() if item is not None and not (isinstance(item, list) and not item)}
