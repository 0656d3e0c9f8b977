"""What is kept of a run until its document is printed: ranked rows, counts of all, even samples; never all records."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, NamedTuple

from diffai_stream.plan.naming import place
from diffai_stream.report.document.blocks import Name, Part
from diffai_stream.report.figures import finite
from diffai_stream.report.kept import AnomalyList, FindingList, QuantizationList, SkipList
from diffai_stream.report.layers_kept import EvenSample, LayerList, short_role
from diffai_stream.report.ranking import TensorRanking
from diffai_stream.report.records import Record

BINS_PER_DECADE: Final = 4
_POINTS: Final = 400


class AnomalyBook(AnomalyList):
    """Anomalies, and how many there are of each kind."""

    def __init__(self, top: int) -> None:
        super().__init__(top)
        self.kinds: Counter[tuple[str, str]] = Counter()

    def add(self, record: Record) -> None:
        """Note one anomaly."""
        super().add(record)
        self.kinds[str(record.get("kind")), record.get("severity", "info")] += 1


class QuantizedTensor(NamedTuple):
    """What a chart needs of a tensor that was cast or quantized."""

    layer: str
    role: str
    sqnr_db: float | None
    bits: float | None


class QuantizationBook(QuantizationList):
    """Quantized tensors, and an even sample of them in the order of the model."""

    def __init__(self, top: int) -> None:
        super().__init__(top)
        self.sample = EvenSample[QuantizedTensor](_POINTS)

    def add(self, record: Record) -> None:
        """Note one tensor or the totals."""
        super().add(record)
        if record.get("scope") == "tensor":
            layer, role = place(record["subject"])
            figures = finite(record.get("sqnr_db")), finite(record.get("new_bits_per_weight"))
            self.sample.add(QuantizedTensor(layer, short_role(role), *figures))


class Magnitudes:
    """Counts of changed tensors by the logarithm of their relative change."""

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()
        self.undefined = 0

    def add(self, record: Record) -> None:
        """Note one tensor; only changed ones count."""
        if record["status"] != "changed":
            return
        relative_l2 = finite((record.get("change") or {}).get("relative_l2"))
        if relative_l2 is None or relative_l2 <= 0:
            self.undefined += 1
        else:
            self.bins[math.floor(math.log10(relative_l2) * BINS_PER_DECADE)] += 1


class Notices:
    """Errors or warnings: the first ones, and how many there are."""

    def __init__(self, top: int) -> None:
        self._top = top
        self.records: list[Record] = []
        self.total = 0

    def add(self, record: Record) -> None:
        """Note one."""
        self.total += 1
        if not self._top or len(self.records) < self._top:
            self.records.append(record)


class PairRecords:
    """What is kept of the comparison of two checkpoints."""

    def __init__(self, top: int) -> None:
        self._top = top
        self.tensors, self.state, self.magnitudes = TensorRanking(top), TensorRanking(top), Magnitudes()
        self.layers, self.anomalies, self.quantization = LayerList(), AnomalyBook(top), QuantizationBook(top)
        self.findings: dict[str, FindingList] = {}
        self.failed_gates = 0
        self.skipped, self.errors, self.warnings = SkipList(), Notices(top), Notices(top)
        self.review: Record | None = None
        self.summary: Record | None = None

    def add(self, record: Record) -> None:
        """Note one record."""
        match record["type"]:
            case "tensor" if "part" in record:
                self.state.add(record)
            case "tensor":
                self.tensors.add(record)
                self.magnitudes.add(record)
            case "layer_impact":
                self.layers.add(record)
            case "anomaly":
                self.anomalies.add(record)
            case "quantization":
                self.quantization.add(record)
            case "skipped":
                self.skipped.add(record)
            case "error":
                self.errors.add(record)
            case "warning":
                self.warnings.add(record)
            case "review":
                self.review = record
            case "summary":
                self.summary = record
            case "report":
                pass  # this document, as a record
            case other:
                self.failed_gates += other == "regression_test" and not record.get("passed")
                self.findings.setdefault(other, FindingList(other, self._top)).add(record)

    def finding(self, analysis: str) -> Record | None:
        """The record of an analysis that has one for the model."""
        found = self.findings.get(analysis)
        return found.records[-1] if found and found.records else None


class RunRecords:
    """What is kept of a run: the header, and a comparison or several in a row."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.header: Record | None = None
        self.pairs: list[PairRecords] = []

    def add(self, record: Record) -> None:
        """Note one record."""
        if record["type"] == "header":
            self.header = record
            return
        while len(self.pairs) <= record.get("pair", 0):
            self.pairs.append(PairRecords(self.top))
        self.pairs[record.get("pair", 0)].add(record)

    @property
    def paths(self) -> list[str]:
        """The checkpoints in order."""
        header = self.header or {}
        sides = header.get("checkpoints") or [header[side] for side in ("old", "new") if header.get(side)]
        return [str(side.get("path")) for side in sides]

    def step(self, place: int) -> list[Part]:
        """`old → new` of a pair."""
        old, new = [*self.paths[place : place + 2], "?", "?"][:2]
        return [Name(old), " → ", Name(new)]
