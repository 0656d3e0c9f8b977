"""merge_analysis: old and new as two changes of a common base, and whether they get in each other's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Finding, ModelEvidence, PlacedFindings, RunContext, Skipped, Table
from diffai_stream.encodings.decode import decoded
from diffai_stream.errors import UsageError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.options import Options
from diffai_stream.plan.align import align
from diffai_stream.plan.parts import WEIGHTS, only
from diffai_stream.plan.sources import Source, check_size
from diffai_stream.statistics.describe import finite
from diffai_stream.statistics.task_vectors import TaskField, TaskVectors
from diffai_stream.storage.extent import FileStamp

NAME = "merge_analysis"
KEY = "bases of the pairs"
NO_BASE = "there is no base to compare with: --merge-analysis BASE"
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class EntryReader:
    """Reads the base of one tensor."""

    entry: TensorEntry = field(hash=False)
    stamps: Mapping[str, FileStamp] = field(hash=False, compare=False)
    io: str

    def values(self, start: int, stop: int) -> NDArray[Any]:
        """Decoded elements [start, stop). Raises CheckpointError."""
        source = Source(self.entry, self.stamps, self.io)
        return decoded(source.read(start, stop), source.encoding, stop - start)


def needs_in(run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """The sums of both task vectors, for the tensors that the base has in the same shape.

    Raises UsageError when it has none of them.
    """
    if NAME not in options.analyses or run.base is None:
        return lambda pair: ()
    bases = _bases(run, options)
    run.memo[KEY] = bases
    if not bases:
        raise UsageError(f"--merge-analysis {run.base.path}: it has no tensor of these checkpoints in the same shape")
    return lambda pair: (TaskVectors(base=bases[pair.index]),) if pair.index in bases else ()


def _bases(run: RunContext, options: Options) -> dict[int, EntryReader]:
    """The base by the number of the pair; layouts that differ from that of the old side are left out."""
    assert run.base is not None
    weights = {WEIGHTS}
    found = align(only(run.base, weights), only(run.old, weights)).pairs
    by_name = {p.new.name: p.old for p in found if p.status == "paired" and p.old and p.new and p.new.region is None}
    bases: dict[int, EntryReader] = {}
    for pair in run.pairs:
        if pair.status != "paired" or pair.part != WEIGHTS or pair.old is None or pair.old.region is not None:
            continue
        entry = by_name.get(pair.old.name)
        if entry is not None and entry.shape == pair.old.shape:
            check_size(entry)
            bases[pair.index] = EntryReader(entry, run.base.stamps, options.io)
    return bases


def tensor(table: Table, options: Options) -> PlacedFindings:
    """One record a tensor that either side changed."""
    for place, evidence in enumerate(table.evidence):
        for statistic, columns in evidence.extras.items():
            if type(statistic).__name__ == "TaskVectors" and columns["sums"][[TaskField.OLD_COUNT, TaskField.NEW_COUNT]].any():
                yield place, Finding("tensor", evidence.pair.name, "measured", _fields(columns["sums"], table.run))


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """All tensors together."""
    if NAME not in options.analyses:
        return
    run = evidence.run
    if run.base is None:
        yield Skipped("model", NO_BASE)
        return
    sums = [
        columns["sums"]
        for extras in evidence.extras.values()
        for statistic, columns in extras.items()
        if type(statistic).__name__ == "TaskVectors"
    ]
    if not sums:
        yield Skipped("model", "old and new are known to be the same without reading: they have no two task vectors")
        return
    bases = run.memo[KEY]
    compared = sum(pair.status == "paired" and pair.part == WEIGHTS for pair in run.pairs)
    fields = {
        **_fields(sum(sums[1:], sums[0]), run),
        "tensor_count": len(sums),
        "unmatched_count": compared - len(bases),
        "base_read_nbytes": sum(reader.entry.stored_nbytes for reader in bases.values()),
    }
    yield Finding("model", "model", "measured", fields)


def _fields(sums: Sums, run: RunContext) -> dict[str, Any]:
    assert run.base is not None
    told = dict(zip(TaskField, map(float, sums), strict=True))
    count, old2, new2 = told[TaskField.N], told[TaskField.OLD_SQUARES], told[TaskField.NEW_SQUARES]
    conflicting = (told[TaskField.PRODUCTS] - told[TaskField.DOT]) / 2
    cosine = _ratio(told[TaskField.DOT], sqrt(old2) * sqrt(new2))
    return {
        "base": run.base.path,
        "old_relative_l2": _ratio(sqrt(old2), sqrt(told[TaskField.BASE_SQUARES])),
        "new_relative_l2": _ratio(sqrt(new2), sqrt(told[TaskField.BASE_SQUARES])),
        "cosine_similarity": max(-1.0, min(1.0, cosine)) if cosine is not None else None,
        "old_density": _ratio(told[TaskField.OLD_COUNT], count),
        "new_density": _ratio(told[TaskField.NEW_COUNT], count),
        "old_effective_density": _ratio(told[TaskField.OLD_SIZES] ** 2, count * old2),
        "new_effective_density": _ratio(told[TaskField.NEW_SIZES] ** 2, count * new2),
        "overlap_ratio": _ratio(told[TaskField.BOTH_COUNT], count),
        "sign_conflict_ratio": _ratio(told[TaskField.CONFLICTS], told[TaskField.BOTH_COUNT]),
        "weighted_conflict_ratio": _ratio(max(0.0, conflicting), told[TaskField.PRODUCTS]),
        "trimmed_conflict_ratio": _ratio(told[TaskField.KEPT_CONFLICTS], told[TaskField.KEPT_COUNT]),
        "trimmed_count": int(told[TaskField.KEPT_COUNT]),
        "compared_count": int(count),
    }


def _ratio(above: float, below: float) -> float | None:
    return finite(above / below) if below > 0 else None
