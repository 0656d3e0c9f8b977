"""A run, prepared: what is compared, which statistics each pair needs, the batches, and what they will cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from diffai_stream.analyses.base import Analysis, RunContext, Skipped
from diffai_stream.analyses.catalogue import ANALYSES, chosen
from diffai_stream.analyses.profiled import SHIFT, check_profiled, told_of_profiles
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.engine.executors import executor_name, worker_count
from diffai_stream.engine.program import Program
from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, Oddity
from diffai_stream.options import Options
from diffai_stream.plan.chunks import Batch, Slice, batches, real_shape, slices_of
from diffai_stream.plan.memory import REMOTE_NBYTES, check_limit, projected_nbytes, statistics_nbytes
from diffai_stream.plan.pairs import TensorPair
from diffai_stream.plan.sources import is_gathered, scanned_encoding
from diffai_stream.statistics.base import Statistic
from diffai_stream.statistics.finishing import Wants
from diffai_stream.statistics.joint import is_joint
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.scanner import Ask
from diffai_stream.storage.remote.addresses import is_remote
from diffai_stream.storage.windows import IO_MODES
from diffai_stream.store.profiles import COMPARED
from diffai_stream.verdict import check_fail_on

MIN_CHUNK_NBYTES = 1 << 16
ASKED_BY = {
    "tolerance_per_layer": ("regression_test",),
    "expect_unchanged": ("regression_test",),
    "min_sqnr": ("regression_test",),
    "max_size": ("regression_test", "deployment_readiness"),
    "memory_bandwidth": ("inference_speed_estimate",),
    "peak_flops": ("inference_speed_estimate",),
}
"""Options that only these analyses look at: without one of them a limit would be given and never judged."""


@dataclass(frozen=True)
class Session:
    """Everything known before the first byte of a tensor is read."""

    old: Checkpoint
    new: Checkpoint
    pairs: tuple[TensorPair, ...]
    oddities: tuple[Oddity, ...]
    analyses: tuple[Analysis, ...]
    batches: tuple[Batch, ...]
    skipped: tuple[tuple[str, Skipped], ...]
    program: Program
    options: Options
    context: RunContext
    projected_nbytes: int

    @property
    def read_nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(batch.nbytes for batch in self.batches)

    def plan_info(self) -> dict[str, Any]:
        """The plan as the header prints it."""
        workers, chunk = worker_count(self.options), self.options.chunk_size
        return {
            "batch_count": len(self.batches),
            "read_nbytes": self.read_nbytes,
            "chunk_nbytes": chunk,
            "projected_memory_nbytes": self.projected_nbytes,
            "executor": executor_name(self.options),
            "worker_count": workers,
        }


def run_id(checkpoints: Iterable[Checkpoint], options: Options) -> str:
    """Hash of the inputs (path as given, sizes, indexes) and of the options that can change a figure."""
    from xxhash import xxh3_64

    digest = xxh3_64()
    for part in _identity(checkpoints, options):
        digest.update(repr(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _identity(checkpoints: Iterable[Checkpoint], options: Options) -> Iterator[object]:
    for checkpoint in checkpoints:
        yield checkpoint.path, [stamp.nbytes for stamp in checkpoint.stamps.values()]
        for entry in checkpoint.tensors:
            yield entry.name, entry.shape, entry.encoding
    yield sorted(options.identity().items())


def prepare(
    old: Checkpoint,
    new: Checkpoint,
    pairs: Sequence[TensorPair],
    oddities: Iterable[Oddity],
    options: Options,
    pair_count: int = 1,
    base: Checkpoint | None = None,
    keeping: tuple[Statistic[Any], ...] = (),
) -> Session:
    """Plan a run over aligned pairs, one of `pair_count`; `keeping`: the statistics of a profile.

    Raises UsageError and MemoryLimitError before anything is read.
    """
    check(options)
    analyses = tuple(chosen(options.analyses))
    untold: list[tuple[str, Skipped]] = []
    if old.is_profile or new.is_profile:
        check_profiled(options, analyses)
        analyses, untold = told_of_profiles(analyses, pairs)
        keeping = COMPARED
    for analysis in analyses:
        if check_analysis := getattr(analysis.load(), "check", None):
            check_analysis(pairs, options)
    context = RunContext(old, new, tuple(pairs), count=pair_count, base=base, model_type=options.model_type)
    plan, skipped = _plan(context, analyses, options, keeping)
    stamps = {**(base.stamps if base else {}), **new.stamps, **old.stamps}
    has_remote = _has_remote(stamps, options)
    projected = _projected(pairs, plan, options) + (REMOTE_NBYTES if has_remote else 0)
    check_limit(projected, options.memory_limit, options.chunk_size, worker_count(options))
    ask = Ask(not options.fast, options.stats or not options.fast, options.epsilon, options.relative_tolerance)
    has_distances = options.stats or SHIFT in options.analyses
    wants = Wants(options.stats, has_distances, options.histograms, laws=not options.fast, codes=not options.fast)
    program = Program(ask, wants, options.io, options.chunk_size, stamps)
    told = (*untold, *skipped)
    return Session(old, new, tuple(pairs), tuple(oddities), analyses, tuple(plan), told, program, options, context, projected)


def check(options: Options) -> None:
    """Raise UsageError for options that make no sense, alone or together."""
    check_fail_on(options)
    _check_asked(options)
    if options.io not in IO_MODES:
        raise UsageError(f"--io knows {', '.join(IO_MODES)}, not {options.io!r}")
    if options.fast and options.histograms:
        raise UsageError("--fast computes no histograms; leave one of --fast and --histograms out")
    if options.ignore_optimizer_state and options.compare_gradients:
        raise UsageError("--ignore-optimizer-state leaves out what --compare-gradients counts; leave one out")
    if not (options.epsilon >= 0 and options.relative_tolerance >= 0):
        raise UsageError("--epsilon and --relative-tolerance must be 0 or more")
    if options.chunk_size < MIN_CHUNK_NBYTES:
        raise UsageError(f"--chunk-size must be at least {MIN_CHUNK_NBYTES} bytes")
    if options.workers is not None and options.workers < 1:
        raise UsageError("--workers must be at least 1")
    if options.precision_loss_threshold is not None and not options.precision_loss_threshold >= 0:
        raise UsageError("--precision-loss-threshold must be 0 or more")


def _has_remote(paths: Iterable[str], options: Options) -> bool:
    """Whether remote objects are read. Raises UsageError where they would be read by workers of a cluster."""
    path = next(filter(is_remote, paths), None)
    if path is not None and executor_name(options) == "distributed":
        raise UsageError("remote objects are read by this process alone; leave the scheduler out, or download it", path=path)
    return path is not None


def _check_asked(options: Options) -> None:
    """Raise UsageError for a limit that nothing looks at."""
    for name, analyses in ASKED_BY.items():
        if getattr(options, name) not in (None, ()) and not set(analyses) & set(options.analyses):
            flags = " or ".join(ANALYSES[analysis].flag for analysis in analyses)
            raise UsageError(f"--{name.replace('_', '-')} is for {flags}, which is not asked for; add it")


def reads_identical(options: Options) -> bool:
    """Whether sides that are known to be equal are read too."""
    asked = (row.reads_identical and row.name in options.analyses for row in chosen(options.analyses))
    return options.include_unchanged or any(asked)


def _asking(context: RunContext, analyses: Sequence[Analysis], options: Options) -> list[tuple[str, Any]]:
    """What each analysis needs, as a function of a pair, with its name."""
    found: list[tuple[str, Any]] = []
    for analysis in analyses:
        module = analysis.load()
        if needs := getattr(module, "needs", None):
            found.append((analysis.name, lambda pair, needs=needs: needs(pair, options)))
        if needs_in := getattr(module, "needs_in", None):
            found.append((analysis.name, needs_in(context, options)))
    return found


def _plan(
    context: RunContext, analyses: Sequence[Analysis], options: Options, keeping: tuple[Statistic[Any], ...]
) -> tuple[list[Batch], list[tuple[str, Skipped]]]:
    """The batches, and the statistics that cannot be computed for some tensor, by analysis."""
    read_identical, asking, pairs = reads_identical(options), _asking(context, analyses, options), context.pairs
    if keeping:
        asking.insert(0, ("profile", lambda pair: keeping))
    slices: list[Slice] = []
    skipped: list[tuple[str, Skipped]] = []
    for pair in pairs:
        statistics, reasons = statistics_for(pair, asking, options)
        skipped += reasons
        slices += slices_of(pair, options.chunk_size, statistics, read_identical)
    plan = list(batches(slices))
    return plan, skipped


def statistics_for(
    pair: TensorPair, asking: Sequence[tuple[str, Any]], options: Options
) -> tuple[tuple[Any, ...], list[tuple[str, Skipped]]]:
    """The statistics beyond the default ones that a pair needs, each once, and those it cannot have."""
    wanted: dict[Any, str] = {}
    for name, needs in asking:
        for statistic in needs(pair):
            wanted.setdefault(statistic, name)
    if options.stats and pair.status == "paired":
        from diffai_stream.statistics.ulp import UlpDistance

        wanted.setdefault(UlpDistance(View.PAIR), "stats")
    if not wanted:
        return (), []
    shape = real_shape(pair.entries[0])
    reasons = {statistic: statistic.skip_reason(shape) for statistic in wanted}
    skipped = [
        (name, Skipped(pair.name, f"{type(statistic).__name__}: {reason}"))
        for statistic, name in wanted.items()
        if (reason := reasons[statistic]) and len(shape) > 1
    ]
    return tuple(statistic for statistic in wanted if not reasons[statistic]), skipped


def _projected(pairs: Sequence[TensorPair], plan: Sequence[Batch], options: Options) -> int:
    entries = [entry for pair in pairs for entry in (pair.old, pair.new) if entry is not None]
    gather = 3 * options.chunk_size if any(map(is_gathered, entries)) else 0
    has_codes = any(ENCODINGS[encoding].pattern_bits == 8 for encoding in {entry.encoding for entry in entries})
    counts_pairs, other = has_codes and any(map(_counts_pairs, pairs)), statistics_nbytes(plan)
    return projected_nbytes(worker_count(options), options.chunk_size, len(pairs), gather, counts_pairs, other)


def _counts_pairs(pair: TensorPair) -> bool:
    """Whether a pair may be counted by pairs of 8-bit codes."""
    encodings = [scanned_encoding(entry) for entry in pair.entries]
    return is_joint((encodings[0], encodings[-1]), prod(real_shape(pair.entries[0])))
