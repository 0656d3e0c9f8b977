"""One run over one pair of checkpoints: what is read becomes evidence, evidence findings, findings records."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from diffai_stream.analyses import unsafe_pickle
from diffai_stream.analyses.base import (
    Analysis,
    Digest,
    Evidence,
    Finding,
    ModelEvidence,
    Skipped,
    StateTensor,
    Table,
    functions,
)
from diffai_stream.analyses.evidence import States, digests_of, state_of, table_of
from diffai_stream.analyses.layers import Layers
from diffai_stream.engine.executors import run
from diffai_stream.engine.reduce import Outcome, Reducer
from diffai_stream.errors import DiffaiError
from diffai_stream.formats.base import Checkpoint, Oddity
from diffai_stream.plan.chunks import sides_of
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.plugins import broken
from diffai_stream.report.compose import Composer, metadata_oddity, tensor_fields
from diffai_stream.report.progress import Progress, peak_memory_nbytes
from diffai_stream.report.records import Record
from diffai_stream.session import Session, reads_identical, run_id
from diffai_stream.store.profiles import Profiles
from diffai_stream.store.results import ResultStore
from diffai_stream.store.resume import Resume
from diffai_stream.verdict import Tally

TABLE_ROWS = 1024  # tensors judged and told together, at most


class Step(NamedTuple):
    """The place of a run in a trajectory: who numbers its records, the pairs before it, and how many there are in all."""

    composer: Composer
    previous: tuple[ModelEvidence, ...]
    pair_count: int


class Run:
    """One run from header to summary."""

    def __init__(
        self,
        session: Session,
        progress: Progress,
        inspecting: bool = False,
        step: Step | None = None,
        store: ResultStore | None = None,
        profiles: Profiles | None = None,
    ) -> None:
        self.session, self.options, self.progress, self.inspecting = session, session.options, progress, inspecting
        self.composer = step.composer if step else Composer(run_id((session.old, session.new), session.options))
        self.has_header = step is None
        self.tally, self.layers = Tally(), Layers(session.pairs)
        self.digests: list[Digest] = []
        self.context = session.context
        if step:
            self.context = replace(self.context, previous=step.previous, index=len(step.previous), count=step.pair_count)
        self.looks_at_state = any(row.looks_at_state for row in session.analyses)
        self.state_tensors: list[StateTensor] = []
        self.model = ModelEvidence(self.digests, {}, {}, {}, self.context, self.state_tensors)
        self.held: list[dict[str, Any]] = []
        self.states: dict[int, States] = {}
        self.failed: dict[int, DiffaiError] = {}
        self.next_pair = 0
        self.reads_identical = reads_identical(self.options)
        self.read_nbytes = 0
        analyses = [row for row in session.analyses if not inspecting or (row.one_sided and self.options.stats)]
        self.functions = {scope: functions(analyses, scope) for scope in ("tensor", "layer", "model")}
        self.profiles = profiles
        self.resume = Resume(store, session.batches, session.program) if store is not None else None
        self.started = time.perf_counter()

    def records(self) -> Generator[Record]:
        """All records in order; Ctrl-C ends them with an `interrupted` summary."""
        session = self.session
        try:
            if self.has_header:
                yield self.composer.header((session.old, session.new), self.options.identity(), session.plan_info())
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
                self.tally.finding("anomaly", unsafe)
                self.model.findings.setdefault("anomaly", []).append(unsafe)
                yield self.composer.finding("anomaly", unsafe)
        yield from map(self.composer.warning, session.oddities)
        yield from self._told_by_store()
        if self.context.index == 0:
            for plugin in broken():
                yield self.composer.warning(Oddity("broken_plugin", plugin.message))
        if not self.inspecting:
            self.tally.surroundings(session.old, session.new, session.pairs, self.options)
            yield from map(self.composer.warning, metadata_oddity(session.old, session.new))
        for analysis, skipped in session.skipped:
            yield self.composer.finding(analysis, skipped)

    def _scan(self) -> Iterator[Record]:
        session = self.session
        batches = self.resume.batches if self.resume else session.batches
        self.progress.start(sum(batch.nbytes for batch in batches))
        reducer = Reducer(session.program)
        results = run(batches, session.program, self.options)
        try:
            for batch in results:
                self.read_nbytes += batch.nbytes
                name = self._take(reducer.take(batch))
                yield from self._ready()
                yield from self._told_by_store()
                self.progress.advance(batch.nbytes, name)
        finally:
            close = getattr(results, "close", None)
            if close:
                close()
            if self.resume:
                self.resume.store.commit()
        yield from self._ready()
        yield from self._told_by_store()

    def _told_by_store(self) -> Iterator[Record]:
        """What is odd about the store, as soon as it shows."""
        if self.resume:
            yield from map(self.composer.warning, self.resume.store.told())

    def _take(self, outcomes: Iterable[Outcome]) -> str:
        """Note what tensors came to; the name of the last."""
        name = ""
        for piece, states, error in outcomes:
            name = piece.name
            if states is not None:
                self.states.setdefault(piece.pair, {})[piece.side] = states
                if self.resume:
                    self.resume.keep(piece, states)
            elif error is not None:
                self.failed.setdefault(piece.pair, error)
        return name

    def _ready(self) -> Iterator[Record]:
        """Records of the pairs that are complete, in plan order, some at a time."""
        pairs = self.session.pairs
        while self.next_pair < len(pairs):
            first = self.next_pair
            while self.next_pair < min(first + TABLE_ROWS, len(pairs)) and self._is_complete(pairs[self.next_pair]):
                self.next_pair += 1
            if self.next_pair == first:
                return
            yield from self._pairs(pairs[first : self.next_pair])

    def _is_complete(self, pair: TensorPair) -> bool:
        if pair.index in self.failed:
            return True
        sides = [side for side, _, _ in sides_of(pair, self.reads_identical)]
        if self.resume:
            self._recall(pair, sides, self.resume)
        states = self.states.get(pair.index, {})
        is_complete = pair.index in self.failed or all(side in states for side in sides)
        if is_complete and self.profiles:
            self._profiled(pair, self.profiles)
        return is_complete

    def _profiled(self, pair: TensorPair, profiles: Profiles) -> None:
        """Put what profiles say of a pair beside what was read of it."""
        try:
            told = profiles.states(pair)
        except DiffaiError as error:
            self.failed.setdefault(pair.index, error)
        else:
            if told:
                self.states.setdefault(pair.index, {}).update(told)

    def _recall(self, pair: TensorPair, sides: Sequence[str], resume: Resume) -> None:
        """Take what the store has of a pair, now that it is its turn."""
        for side in sides:
            if side in self.states.get(pair.index, {}):
                continue
            try:
                states = resume.states(pair.index, side)
            except DiffaiError as error:
                self.failed.setdefault(pair.index, error)
            else:
                if states is not None:
                    self.states.setdefault(pair.index, {})[side] = states

    def _pairs(self, pairs: Sequence[TensorPair]) -> Iterator[Record]:
        """The records of complete pairs, each with its findings and those of the layer it completes."""
        errors = {pair.index: self.failed.pop(pair.index) for pair in pairs if pair.index in self.failed}
        read = [pair for pair in pairs if pair.index not in errors]
        states = [self.states.pop(pair.index, {}) for pair in read]
        table = table_of(read, states, self.options, self.context, self.inspecting)
        digests = digests_of(table, self.options)
        layers = self.layers.take(pairs, table, digests, self.options)
        found = self._judged(table)
        told = [self._is_told(*tensor) for tensor in zip(table.evidence, digests, strict=True)]
        at_once = [] if self.options.sort_by_change_magnitude else [place for place, is_told in enumerate(told) if is_told]
        row, last = 0, at_once[-1] if at_once else 0
        for pair in pairs:
            self.progress.follows = row < last
            if pair.index in errors:
                self.states.pop(pair.index, None)
                self.tally.error()
                self.tally.failed_tensor()
                yield self.composer.error(errors[pair.index])
            else:
                yield from self._tensor(table.evidence[row], digests[row], found.get(row, ()), told[row])
                row += 1
            if pair.index in layers:
                self.model.layers[layers[pair.index].name] = layers[pair.index].stats
                for analysis, function in self.functions["layer"]:
                    yield from self._told(analysis, "layer", function(layers[pair.index], self.options))

    def _judged(self, table: Table) -> dict[int, list[tuple[Analysis, Finding | Skipped]]]:
        """The findings about the tensors of a table, by their place."""
        found: dict[int, list[tuple[Analysis, Finding | Skipped]]] = {}
        for analysis, function in self.functions["tensor"]:
            for row, finding in function(table, self.options):
                found.setdefault(row, []).append((analysis, finding))
        return found

    def _tensor(
        self, evidence: Evidence, digest: Digest, found: Iterable[tuple[Analysis, Finding | Skipped]], is_told: bool
    ) -> Iterator[Record]:
        pair = evidence.pair
        if pair.part == WEIGHTS:
            self.digests.append(digest)
        elif self.looks_at_state:
            self.state_tensors.append(state_of(evidence))
        if evidence.extras:
            kept = {statistic: columns for statistic, columns in evidence.extras.items() if statistic.kept}
            self.model.extras.update({pair.name: kept} if kept else {})
        if pair.part == WEIGHTS or self.options.compare_gradients:
            self.tally.tensor(evidence, digest)
        else:
            self.tally.state(digest)
        if is_told and self.options.sort_by_change_magnitude:
            self.held.append(tensor_fields(evidence))
        elif is_told:
            yield self.composer.record("tensor", tensor_fields(evidence))
        for analysis, finding in found:
            yield from self._told(analysis, "tensor", (finding,))

    def _is_told(self, evidence: Evidence, digest: Digest) -> bool:
        """Whether a tensor gets a record."""
        is_everything = self.inspecting or self.options.include_unchanged
        return is_everything or digest.status != "unchanged" or evidence.pair.match != "exact"

    def _told(self, analysis: Analysis, scope: str, findings: Iterable[Finding | Skipped]) -> Iterator[Record]:
        for found in findings:
            if isinstance(found, Finding):
                self.tally.finding(analysis.name, found)
                if analysis.ranks_tensors or scope != "tensor":
                    self.model.findings.setdefault(analysis.name, []).append(found)
            yield self.composer.finding(analysis.name, found)

    def _after(self) -> Iterator[Record]:
        """What ranks or sums over the whole model."""
        self.held.sort(key=_magnitude)
        for fields in self.held:
            yield self.composer.record("tensor", fields)
        for analysis, function in self.functions["model"]:
            yield from self._told(analysis, "model", function(self.model, self.options))

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


def _magnitude(fields: dict[str, Any]) -> tuple[float, str]:
    """Sort key: what cannot be measured by a ratio first, then the largest relative change."""
    change = fields["change"]
    relative = change["relative_l2"] if change is not None else None
    if relative is None:
        relative = 0.0 if change is not None and change["changed_count"] == 0 else float("inf")
    return -relative, str(fields["name"])
