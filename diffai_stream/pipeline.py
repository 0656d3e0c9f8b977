"""The whole flow: open, align, plan, scan, reduce, derive, compose. Each step is a room; this is the way through them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

from diffai_stream.analyses.base import ModelEvidence
from diffai_stream.analyses.catalogue import completed
from diffai_stream.comparison import Comparison
from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.inert import collection_paused
from diffai_stream.options import Options
from diffai_stream.plan.align import align, select
from diffai_stream.plan.memory import TENSOR_NBYTES
from diffai_stream.plan.naming import place, place_in
from diffai_stream.plan.pairs import TensorPair, numbered
from diffai_stream.plan.parts import shared
from diffai_stream.report.compose import Composer
from diffai_stream.report.progress import NoProgress, Progress
from diffai_stream.report.records import Record
from diffai_stream.run import Run, Step
from diffai_stream.session import Session, prepare, run_id
from diffai_stream.statistics.base import Statistic
from diffai_stream.store.profiles import KIND, STATISTICS, Profile, Profiles, is_profile, merge, write_index
from diffai_stream.store.results import ResultStore
from diffai_stream.trajectory import Throughout, expanded, plan_of


def compare(
    *checkpoints: str, options: Options | None = None, progress: Progress | None = None, **overrides: Any
) -> Comparison:
    """Compare checkpoints: yields records, each as soon as it is known, `header` first, `summary` last.

    More than two checkpoints, or a directory of `checkpoint-<step>`, are compared pair by pair, with a summary each.
    `overrides` are fields of Options. Raises UsageError, FormatError or MissingExtraError before the first record; later
    trouble becomes `error` records. Closing the iterator stops the work.
    """
    options = completed(replace(options or Options(), **overrides))
    if options.include_charts:
        import_module("diffai_stream.report.document.charts").require()
    paths = expanded(checkpoints)
    with collection_paused():
        profiles = {path: Profile(path) for path in paths if is_profile(path)}
        opened = [profiles[path].checkpoint if path in profiles else open_checkpoint(path) for path in paths]
        base = open_checkpoint(options.merge_base) if options.merge_base else None
        first = _session(opened[0], opened[1], options, len(opened) - 1, base)
        plans = [first.plan_info()]
        for old, new in pairwise(opened[1:]):  # planned to be checked and told now, and again when it is their turn
            plans.append(_session(old, new, options, len(opened) - 1, base).plan_info())
    store = ResultStore(options.store) if options.store else None
    progress = progress or NoProgress()
    if len(plans) == 1:
        records = Run(first, progress, store=store, profiles=_profiles(profiles, first)).records()
    else:
        records = _trajectory(opened, first, plans, options, progress, store, profiles)
    return Comparison(_documented(_closing(records, store), options), [checkpoint.path for checkpoint in opened])


def _profiles(profiles: Mapping[str, Profile], session: Session) -> Profiles | None:
    """The profiles by the side of a run that they stand for."""
    sides = {"old": profiles.get(session.old.path), "new": profiles.get(session.new.path)}
    found = {side: profile for side, profile in sides.items() if profile is not None}
    return Profiles(found) if found else None


def _documented(records: Generator[Record], options: Options) -> Generator[Record]:
    """The records, with those that carry a document where one is asked for."""
    asked = (("review", options.review_friendly), ("report", options.generate_report))
    kinds = [kind for kind, is_asked in asked if is_asked]
    if not kinds:
        return records
    from diffai_stream.report.documents import Documented

    return Documented(records, kinds, options.top, options.include_charts)


def _closing(records: Generator[Record], store: ResultStore | None) -> Generator[Record]:
    """The records, and at their end the store closed."""
    try:
        yield from records
    finally:
        if store is not None:
            store.close()


def _session(old: Checkpoint, new: Checkpoint, options: Options, pair_count: int, base: Checkpoint | None = None) -> Session:
    sides = shared(old, new, options.ignore_optimizer_state)
    aligned = align(sides.old, sides.new, options.maps)
    placed = [_placed(pair, options.model_type) for pair in aligned.pairs] if options.model_type else aligned.pairs
    selected = select(placed, options.include, options.exclude)
    if placed and not selected:
        raise UsageError("--include and --exclude leave no tensor to compare")
    pairs = _not_failed(selected, old, new)
    return prepare(old, new, pairs, (*sides.oddities, *aligned.oddities), options, pair_count, base)


def _placed(pair: TensorPair, model_type: str) -> TensorPair:
    """The pair at the place that the names of a family tell, where its own name tells none."""
    layer, role = place_in(pair.name, model_type)
    return pair._replace(layer=layer, role=role)


def _trajectory(
    checkpoints: Sequence[Checkpoint],
    first: Session,
    plans: Sequence[dict[str, Any]],
    options: Options,
    progress: Progress,
    store: ResultStore | None,
    profiles: Mapping[str, Profile],
) -> Generator[Record]:
    """The records of consecutive pairs, behind one header."""
    composer = Composer(run_id(checkpoints, options))
    kept_nbytes = TENSOR_NBYTES * sum(len(checkpoint.tensors) for checkpoint in checkpoints[2:])
    plan = plan_of(plans, kept_nbytes)
    yield composer.header(checkpoints, options.identity(), plan)
    throughout, previous = Throughout(progress, plan["read_nbytes"]), list[ModelEvidence]()
    try:
        for composer.pair, (old, new) in enumerate(pairwise(checkpoints)):
            session = first if composer.pair == 0 else _session(old, new, options, len(plans), first.context.base)
            step = Step(composer, tuple(previous), len(plans))
            run = Run(session, throughout, step=step, store=store, profiles=_profiles(profiles, session))
            yield from run.records()
            if run.tally.interrupted:
                return
            previous = [*(before._replace(extras={}) for before in previous), run.model]
    finally:
        throughout.end()


def _not_failed(pairs: Iterable[TensorPair], old: Checkpoint, new: Checkpoint) -> tuple[TensorPair, ...]:
    """The pairs less those that only look added or removed, because the other side names the tensor and cannot index it."""
    failed = {"added": {error.tensor for error in old.errors}, "removed": {error.tensor for error in new.errors}}
    return numbered(pair for pair in pairs if pair.name not in failed.get(pair.status, ()))


def inspect(
    path: str, options: Options | None = None, *, progress: Progress | None = None, **overrides: Any
) -> Iterator[Record]:
    """Yield the records of one checkpoint: its tensors, and with `stats` their figures and what is odd about them."""
    options = completed(replace(options or Options(), **overrides))
    if is_profile(path):
        raise UsageError(f"a profile is there to be compared with: diffai {path} NEW", path=path)
    session = _alone(open_checkpoint(path), options)
    store = ResultStore(options.store) if options.store else None
    return _closing(Run(session, progress or NoProgress(), inspecting=True, store=store).records(), store)


def _alone(checkpoint: Checkpoint, options: Options, keeping: tuple[Statistic[Any], ...] = ()) -> Session:
    """A run over one checkpoint."""
    pairs = [
        TensorPair(index, entry.name, "exact", entry, None, "removed", not options.stats, *place(entry.name))
        for index, entry in enumerate(checkpoint.tensors)
    ]
    kept = select(pairs, options.include, options.exclude)
    return prepare(checkpoint, checkpoint, kept, (), options, keeping=keeping)


def profile(
    path: str, options: Options | None = None, *, progress: Progress | None = None, **overrides: Any
) -> Iterator[Record]:
    """Yield the records of one checkpoint with their figures, and keep these as a profile in the directory `store`.

    `compare(profile, new)` then needs the weights of `new` only. A run that was cut off is resumed. Raises UsageError when
    no store is named.
    """
    options = completed(replace(options or Options(), **{"stats": True, **overrides}))
    if not options.store:
        raise UsageError("a profile needs a directory to be kept in: --store PATH")
    session = _alone(open_checkpoint(path), options, keeping=STATISTICS)
    store = ResultStore(options.store, KIND)
    run = Run(session, progress or NoProgress(), inspecting=True, store=store)
    return _closing(_profiling(run, store), store)


def _profiling(run: Run, store: ResultStore) -> Generator[Record]:
    """The records of a run; its index is written before the summary leaves, which is there only when the profile is."""
    for record in run.records():
        if record["type"] == "summary" and run.resume and not run.tally.interrupted:
            store.commit()
            write_index(store, run.session.old, run.session.pairs, run.resume.keys())
        yield record


def merge_profiles(paths: Sequence[str], path: str) -> int:
    """Join profiles of disjoint shards of a checkpoint in a new one at `path`; how many tensors it has."""
    store = ResultStore(path, KIND)
    try:
        return merge(paths, store)
    finally:
        store.close()
