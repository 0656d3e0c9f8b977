"""What is kept of the tensor records: those that changed most, in bounded memory, and counts of all."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from diffai_stream.report.figures import finite
from diffai_stream.report.records import Record

_GROUPS: Final = (("added", "removed", "reshaped", "retyped"), ("changed",), ("unchanged",))
_CHANGE_FIELDS: Final = ("changed_ratio", "relative_l2", "cosine_distance", "cosine_similarity", "max_abs", "sqnr_db")


@dataclass(frozen=True)
class ShownTensor:
    """What a row of a table needs of its record."""

    name: str
    new_name: str
    match: str
    status: str
    layer: str | None
    role: str | None
    shapes: Sequence[Sequence[int]]
    encodings: Sequence[str]
    change: Mapping[str, float | None]
    stats: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]

    @classmethod
    def of(cls, record: Record) -> ShownTensor:
        """The row of a `tensor` record."""
        old, new = record.get("old"), record.get("new")
        sides = [side for side in (old, new) if side]
        stats = record.get("stats") or {}
        detailed = any(side and "quantiles" in side for side in stats.values())
        return cls(
            name=record["name"],
            new_name=new["name"] if old and new else record["name"],
            match=record.get("match", "exact"),
            status=record["status"],
            layer=record.get("layer"),
            role=record.get("role"),
            shapes=distinct([side["shape"] for side in sides]),
            encodings=distinct([side["encoding"] for side in sides]),
            change={key: finite((record.get("change") or {}).get(key)) for key in _CHANGE_FIELDS},
            stats=(stats.get("old"), stats.get("new")) if detailed else (None, None),
        )


class TensorRanking:
    """Collects `tensor` records, keeping only the rows that will be printed (0 = all), and counts the rest."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._heaps: dict[int, list[tuple[float, int, ShownTensor]]] = {group: [] for group in range(len(_GROUPS))}
        self._seen = 0
        self.counts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Note one record; among equals the earlier one is kept."""
        status = record["status"]
        self.counts[status] += 1
        self._seen += 1
        group = next((i for i, names in enumerate(_GROUPS) if status in names), 1)
        entry = (_rank(record) if group == 1 else 0.0, -self._seen)
        heap = self._heaps[group]
        if not self._top or len(heap) < self._top:
            heapq.heappush(heap, (*entry, ShownTensor.of(record)))
        elif entry > heap[0][:2]:
            heapq.heapreplace(heap, (*entry, ShownTensor.of(record)))

    @property
    def has_changes(self) -> bool:
        """Whether some tensor changed its values."""
        return bool(self._heaps[1])

    def largest(self) -> ShownTensor | None:
        """The changed tensor with the largest relative change."""
        return max(self._heaps[1], default=(0.0, 0, None))[2]

    def selected(self) -> list[ShownTensor]:
        """The rows to print: changes in tensors as such first, at most half of them while there are values to rank."""
        groups = [
            [item for *_, item in sorted(heap, key=lambda entry: entry[:2], reverse=True)] for heap in self._heaps.values()
        ]
        structural, changed, unchanged = groups
        if self._top:
            room = max(self._top // 2, self._top - len(changed))
            structural = structural[:room]
            changed = changed[: self._top - len(structural)]
            unchanged = unchanged[: self._top - len(structural) - len(changed)]
        return structural + changed + unchanged

    def rest(self, shown: Sequence[ShownTensor]) -> str:
        """How many of which status are not among the rows shown: `40 more changed`; empty when all are."""
        rest = self.counts - Counter(item.status for item in shown)
        kinds = ", ".join(f"{total:,} {status}" for status, total in rest.items())
        return f"{rest.total():,} more: {kinds}" if len(rest) > 1 else kinds.replace(" ", " more ", 1)


def _rank(record: Record) -> float:
    """Order of changed tensors: a change from all zeros has no relative size and comes first."""
    relative_l2 = finite((record.get("change") or {}).get("relative_l2"))
    return math.inf if relative_l2 is None else relative_l2


def distinct(values: Sequence[Any]) -> list[Any]:
    """Both values, or one when they are equal."""
    return [values[0]] if len(values) == 2 and values[0] == values[1] else list(values)
