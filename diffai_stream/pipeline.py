"""The whole flow: open, align, plan, scan, reduce, derive, compose. Each step is a room; this is the way through them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from diffai_stream.analyses import unsafe_pickle
from diffai_stream.analyses.base import Digest, Finding, ModelEvidence, functions
from diffai_stream.analyses.evidence import States, digest_of, evidence_of, pair_columns
from diffai_stream.analyses.layers import Layers
from diffai_stream.engine.executors import run
from diffai_stream.engine.reduce import Outcome, Reducer
from diffai_stream.errors import DiffaiError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.options import Options
from diffai_stream.plan.align import align, select
from diffai_stream.plan.chunks import sides_of
from diffai_stream.plan.naming import place
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.plan.parts import WEIGHTS, shared
from diffai_stream.report.compose import Composer, metadata_oddity, tensor_fields
from diffai_stream.report.progress import NoProgress, Progress, peak_memory_nbytes
from diffai_stream.report.records import Record
from diffai_stream.session import Session, prepare
from diffai_stream.verdict import Tally


def compare(
    old: str, new: str, options: Options | None = None, *, progress: Progress | None = None, **overrides: Any
) -> Iterator[Record]:
    """Yield the records of a comparison, each as soon as it is known: `header` first, `summary` last.

    `overrides` are fields of Options. Raises UsageError, FormatError or MissingExtraError before the first record; later
    trouble becomes `error` records. Closing the iterator stops the work.
    """
    options = replace(options or Options(), **overrides)
    checkpoints = open_checkpoint(old), open_checkpoint(new)
    sides = shared(*checkpoints, options.ignore_optimizer_state)
    aligned = align(sides.old, sides.new, options.maps)
    pairs = _not_failed(select(aligned.pairs, options.include, options.exclude), *checkpoints)
    session = prepare(*checkpoints, pairs, (*sides.oddities, *aligned.oddities), options)
    return Run(session, progress or NoProgress()).records()


def _not_failed(pairs: Iterable[TensorPair], old: Checkpoint, new: Checkpoint) -> list[TensorPair]:
    """The pairs less those that only look added or removed, because the other side names the tensor and cannot index it."""
    failed = {"added": {error.tensor for error in old.errors}, "removed": {error.tensor for error in new.errors}}
    kept = [pair for pair in pairs if pair.name not in failed.get(pair.status, ())]
    return [pair._replace(index=index) for index, pair in enumerate(kept)]


def inspect(
    path: str, options: Options | None = None, *, progress: Progress | None = None, **overrides: Any
) -> Iterator[Record]:
    """Yield the records of one checkpoint: its tensors, and with `stats` their figures and what is odd about them."""
    options = replace(options or Options(), **overrides)
    checkpoint = open_checkpoint(path)
    pairs = [
        TensorPair(index, entry.name, "exact", entry, None, "removed", not options.stats, *place(entry.name))
        for index, entry in enumerate(checkpoint.tensors)
    ]
    kept = select(pairs, options.include, options.exclude)
    session = prepare(checkpoint, checkpoint, kept, (), options)
    return Run(session, progress or NoProgress(), inspecting=True).records()


class Run:
    """One run from header to summary."""

    def __init__(self, session: Session, progress: Progress, inspecting: bool = False) -> None:
        self.session, self.options, self.progress, self.inspecting = session, session.options, progress, inspecting
        self.composer = Composer(session.run_id())
        self.tally, self.layers = Tally(), Layers(filter(_is_weight, session.pairs))
        self.digests: list[Digest] = []
        self.model = ModelEvidence(self.digests, {})
        self.held: list[dict[str, Any]] = []
        self.states: dict[int, States] = {}
        self.failed: dict[int, DiffaiError] = {}
        self.next_pair = 0
        self.read_nbytes = 0
        analyses = [row for row in session.analyses if not inspecting or (row.one_sided and self.options.stats)]
        self.functions = {scope: functions(analyses, scope) for scope in ("tensor", "layer", "model")}
        self.started = time.perf_counter()

    def records(self) -> Iterator[Record]:
        """All records in order; Ctrl-C ends them with an `interrupted` summary."""
        session = self.session
        try:
            yield self.composer.header(session.old, session.new, self.options.identity(), session.plan_info())
            yield from self._before()
            yield from self._scan()
            yield from self._after()
        except KeyboardInterrupt:
            self.tally.interrupted = True
        finally:
            self.progress.stop()
        yield self._summary()

    def _before(self) -> Iterator[Record]:
        """What the indexes alone say: errors, oddities, statistics that cannot be had."""
        session = self.session
        checkpoints: list[Checkpoint] = [session.old] if self.inspecting else [session.old, session.new]
        for checkpoint in checkpoints:
            for error in checkpoint.errors:
                self.tally.error()
                self.tally.counts["error"] += error.tensor is not None
                yield self.composer.error(error)
            yield from map(self.composer.warning, checkpoint.oddities)
        for checkpoint, side in zip(checkpoints, ("old", "new"), strict=False):
            if (unsafe := unsafe_pickle.finding(checkpoint, side)) is not None:
                self.tally.finding(unsafe)
                yield self.composer.finding("anomaly", unsafe)
        yield from map(self.composer.warning, session.oddities)
        if not self.inspecting:
            self.tally.surroundings(session.old, session.new, session.pairs, self.options)
            yield from map(self.composer.warning, metadata_oddity(session.old, session.new))
        for analysis, skipped in session.skipped:
            yield self.composer.finding(analysis, skipped)

    def _scan(self) -> Iterator[Record]:
        session = self.session
        self.progress.start(session.read_nbytes)
        reducer = Reducer(session.program)
        results = run(session.batches, session.program, self.options)
        try:
            for batch in results:
                self.read_nbytes += batch.nbytes
                for outcome in reducer.take(batch):
                    self._take(outcome)
                    self.progress.advance(0, outcome.piece.name)
                    yield from self._ready()
                self.progress.advance(batch.nbytes, "")
        finally:
            close = getattr(results, "close", None)
            if close:
                close()
        yield from self._ready()

    def _take(self, outcome: Outcome) -> None:
        pair = outcome.piece.pair
        if outcome.states is not None:
            self.states.setdefault(pair, {})[outcome.piece.side] = outcome.states
        elif outcome.error is not None:
            self.failed.setdefault(pair, outcome.error)

    def _ready(self) -> Iterator[Record]:
        """Records of the pairs that are complete, in plan order."""
        pairs = self.session.pairs
        while self.next_pair < len(pairs):
            pair = pairs[self.next_pair]
            expected = sides_of(pair, self._reads_identical()) if pair.index not in self.failed else []
            if any(side not in self.states.get(pair.index, {}) for side, _, _ in expected):
                return
            self.next_pair += 1
            yield from self._pair(pair)
            evidence = self.layers.settle(pair, self.options) if _is_weight(pair) else None
            if evidence is not None:
                yield from self._findings("layer", evidence)

    def _reads_identical(self) -> bool:
        return self.options.include_unchanged or "anomaly" in self.options.analyses

    def _pair(self, pair: TensorPair) -> Iterator[Record]:
        states = self.states.pop(pair.index, {})
        error = self.failed.pop(pair.index, None)
        if error is not None:
            self.tally.error()
            self.tally.failed_tensor()
            yield self.composer.error(error)
            return
        evidence = evidence_of(pair, states, self.options)
        if self.inspecting:
            evidence = evidence._replace(status="unchanged")
        digest = digest_of(evidence)
        if _is_weight(pair):
            self.digests.append(digest)
            self.layers.add(evidence, digest, states)
        both = states.get("both")
        tolerated = both is not None and digest.status != "changed" and pair_columns(both)["unequal"] > 0
        if _is_weight(pair) or self.options.compare_gradients:
            self.tally.tensor(pair, digest, tolerated)
        else:
            self.tally.state(digest)
        if self.inspecting or self.options.include_unchanged or digest.status != "unchanged" or pair.match != "exact":
            fields = tensor_fields(evidence)
            if self.options.sort_by_change_magnitude:
                self.held.append(fields)
            else:
                yield self.composer.record("tensor", fields)
        if evidence.is_read:
            yield from self._findings("tensor", evidence)

    def _findings(self, scope: str, evidence: Any) -> Iterator[Record]:
        for analysis, function in self.functions[scope]:
            for found in function(evidence, self.options):
                if isinstance(found, Finding):
                    self.tally.finding(found)
                    if analysis.ranks_tensors and scope == "tensor":
                        self.model.findings.setdefault(analysis.name, []).append(found)
                yield self.composer.finding(analysis.name, found)

    def _after(self) -> Iterator[Record]:
        """What ranks or sums over the whole model."""
        self.held.sort(key=_magnitude)
        for fields in self.held:
            yield self.composer.record("tensor", fields)
        yield from self._findings("model", self.model)

    def _summary(self) -> Record:
        session = self.session
        return self.composer.record(
            "summary",
            {
                **self.tally.summary(session.old, session.new, self.options),
                "read_nbytes": self.read_nbytes,
                "elapsed_seconds": time.perf_counter() - self.started,
                "peak_memory_nbytes": peak_memory_nbytes(),
            },
        )


def _is_weight(pair: TensorPair) -> bool:
    return pair.part == WEIGHTS


def _magnitude(fields: dict[str, Any]) -> tuple[float, str]:
    """Sort key: what cannot be measured by a ratio first, then the largest relative change."""
    change = fields["change"]
    relative = change["relative_l2"] if change is not None else None
    if relative is None:
        relative = 0.0 if change is not None and change["changed_count"] == 0 else float("inf")
    return -relative, str(fields["name"])
