"""What can be said where of one side only its figures are there: which analyses run, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diffai_stream.analyses.base import Analysis, Skipped
from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.plan.pairs import PROFILED, TensorPair

REASON = "a side is a profile: this needs the weights of both"
SHIFT = "distribution_shift"
REFUSED = ("epsilon", "relative_tolerance", "quantization_aware", "merge_base")


def check_profiled(options: Options, analyses: Sequence[Analysis]) -> None:
    """Raise UsageError for options that decide by pairs of elements: without them they would pass or fail for no reason."""
    gates = [row.flag for row in analyses if row.is_gate]
    chosen = [f"--{name.replace('_', '-')}" for name in REFUSED if getattr(options, name)]
    if gates or chosen:
        raise UsageError(f"{(gates + chosen)[0]} needs the weights of both sides, and one is a profile; leave it out")


def told_of_profiles(
    analyses: Sequence[Analysis], pairs: Sequence[TensorPair]
) -> tuple[tuple[Analysis, ...], list[tuple[str, Skipped]]]:
    """The analyses that run, and what is skipped for which reason."""
    running = {row.name for row in analyses if row.one_sided} | {SHIFT}
    skipped = [(row.name, Skipped("model", REASON)) for row in analyses if row.name not in running]
    return tuple(row for row in ANALYSES.values() if row.name in running), [*skipped, *_untold(pairs)]


def _untold(pairs: Sequence[TensorPair]) -> Iterator[tuple[str, Skipped]]:
    """Tensors that the hashes of their bytes cannot compare."""
    for pair in pairs:
        if pair.status == PROFILED and pair.old is not None and pair.new is not None and pair.old.encoding != pair.new.encoding:
            stored = f"stored as {pair.old.encoding} and as {pair.new.encoding}"
            reason = f"{stored}, and one side is a profile: it counts as changed, whether or not the values are equal"
            yield "equality", Skipped(pair.name, reason)
