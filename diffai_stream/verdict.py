"""The verdict of a comparison and the exit status that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from diffai_stream.analyses.base import Digest, Evidence, Finding
from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.options import Options
from diffai_stream.plan.pairs import PROFILED, TensorPair
from diffai_stream.plan.parts import changed_settings, differs_in_state, parameter_count
from diffai_stream.statistics.describe import finite, total
from diffai_stream.statistics.layout import View, column

STATUSES = ("unchanged", "changed", "added", "removed", "renamed", "reshaped", "retyped", "error")
DIFFERENCES = ("container", "sharding", "names", "encoding", "layout", "metadata", "optimizer_state")
FAIL_ON = ("different", "warning", "critical", "gate")
UNEQUAL = column(View.PAIR, "unequal")
SUCCESS, DIFFERENT, TROUBLE, INTERRUPTED = 0, 1, 2, 130


def check_fail_on(options: Options) -> None:
    """Raise UsageError for an unknown word in `--fail-on`."""
    unknown = set(options.fail_on) - set(FAIL_ON)
    if unknown:
        raise UsageError(f"--fail-on knows {', '.join(FAIL_ON)}, not {', '.join(sorted(unknown))}")


def is_gate(analysis: str) -> bool:
    """Whether an analysis sets the exit status."""
    return analysis in ANALYSES and ANALYSES[analysis].is_gate


def is_resharded(pairs: Iterable[TensorPair]) -> bool:
    """Whether tensors that share a file on one side lie in different files on the other."""
    stored = [entries for pair in pairs if pair.match != "tied" and len(entries := pair.entries) == 2]
    together = {(_file(old), _file(new)) for old, new in stored}
    return not len(together) == len({old for old, _ in together}) == len({new for _, new in together})


def _file(entry: TensorEntry) -> str:
    """The file that a tensor begins in."""
    for component in entry.components.values():
        for extent in component.extents:
            return extent.path
    return ""


@dataclass
class Tally:
    """What was seen of a run, as far as the verdict needs it."""

    counts: Counter[str] = field(default_factory=Counter)
    differs_in: set[str] = field(default_factory=set)
    old_squares: list[float] = field(default_factory=list)
    delta_squares: list[float] = field(default_factory=list)
    changed_parameters: int = 0
    is_uncounted: bool = False
    tolerated: bool = False
    severities: set[str] = field(default_factory=set)
    error_count: int = 0
    interrupted: bool = False
    state_differs: bool = False
    gate_failed: bool = False

    def surroundings(self, old: Checkpoint, new: Checkpoint, pairs: Iterable[TensorPair], options: Options) -> None:
        """Note what differs around the values: container, sharding, metadata, state beside the weights."""
        if not options.ignore_optimizer_state and differs_in_state(old, new):
            self.differs_in.add("optimizer_state")
            self.state_differs = options.compare_gradients and bool(changed_settings(old, new))
        if (old.format, old.container) != (new.format, new.container):
            self.differs_in.add("container")
        if is_resharded(pairs):
            self.differs_in.add("sharding")
        if dict(old.metadata) != dict(new.metadata):
            self.differs_in.add("metadata")

    def state(self, digest: Digest) -> None:
        """Note a finished tensor that is no weight and does not count for the verdict."""
        if digest.status != "unchanged":
            self.differs_in.add("optimizer_state")

    def tensor(self, evidence: Evidence, digest: Digest) -> None:
        """Note a finished tensor."""
        pair = evidence.pair
        self.counts[digest.status] += 1
        if pair.match != "exact":
            self.counts["renamed"] += 1
        old, new = pair.old, pair.new
        if (old is not None and old.region is not None) or (new is not None and new.region is not None):
            self.differs_in.add("layout")
        if old is not None and new is not None:
            if old.name != new.name:
                self.differs_in.add("names")
            if pair.old.encoding != pair.new.encoding:
                self.differs_in.add("encoding")
        self.tolerated |= digest.status != "changed" and evidence.row[UNEQUAL] > 0
        self.changed_parameters += digest.changed_count
        self.is_uncounted |= pair.status == PROFILED and digest.status == "changed"
        self.old_squares.append(digest.old_squares)
        self.delta_squares.append(digest.delta_squares)

    def error(self) -> None:
        """Note an error record."""
        self.error_count += 1

    def failed_tensor(self) -> None:
        """Note a tensor that could not be read."""
        self.counts["error"] += 1

    def finding(self, analysis: str, found: Finding) -> None:
        """Note how bad a finding is; a gate fails by a critical one."""
        if found.severity:
            self.severities.add(found.severity)
        self.gate_failed |= is_gate(analysis) and found.severity == "critical"

    @property
    def status(self) -> str:
        """identical, equivalent, different, failed or interrupted."""
        if self.interrupted:
            return "interrupted"
        if self.error_count:
            return "failed"
        if self.state_differs or any(self.counts[status] for status in ("changed", "added", "removed", "reshaped")):
            return "different"
        return "equivalent" if self.differs_in or self.tolerated else "identical"

    def exit_status(self, options: Options) -> int:
        """0 same, 1 different, 2 trouble, 130 interrupted; gates, `--fail-on`, `--strict` and `--exit-zero` decide."""
        status = self.status
        if status in ("interrupted", "failed"):
            return INTERRUPTED if status == "interrupted" else TROUBLE
        if options.fail_on:
            failed = status == "different" and "different" in options.fail_on
            failed |= "critical" in options.fail_on and "critical" in self.severities
            failed |= "warning" in options.fail_on and bool({"warning", "critical"} & self.severities)
            failed |= "gate" in options.fail_on and self.gate_failed
        elif any(map(is_gate, options.analyses)):
            failed = self.gate_failed
        else:
            failed = status == "different" or (options.strict and status == "equivalent")
        return DIFFERENT if failed and not options.exit_zero else SUCCESS

    def summary(self, old: Checkpoint, new: Checkpoint, options: Options) -> dict[str, Any]:
        """The summary record's fields, less what was measured of the run itself."""
        squares = total(self.old_squares)
        sizes = [parameter_count(checkpoint) for checkpoint in (old, new)]
        changed = None if self.is_uncounted else self.changed_parameters
        return {
            "status": self.status,
            "differs_in": [name for name in DIFFERENCES if name in self.differs_in],
            "counts": {status: self.counts[status] for status in STATUSES},
            "parameter_count": {"old": sizes[0], "new": sizes[1], "changed": changed},
            "relative_l2": finite(sqrt(total(self.delta_squares) / squares)) if squares > 0 else None,
            "exit_status": self.exit_status(options),
        }
