"""change_summary: counts, the layers that moved most, and the kinds of change that the figures fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from diffai_stream.analyses.base import Digest, Finding, ModelEvidence
from diffai_stream.analyses.gates import judge
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite

UNRELATED = 0.9  # ‖delta‖/‖old‖: independent weights of one scale give √2, a fine-tune rarely more than 0.3
LOW_RANK_SHARE = 0.9  # of the changed energy that must lie in matrices of low rank
MIN_MATRIX = 64  # a matrix smaller than the sample has no rank to speak of


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """A few rows of the change of every matrix, for its rank; only when the summary is asked for."""
    if "change_summary" not in options.analyses or pair.status != "paired" or pair.identical:
        return ()
    if len(pair.old.shape) != 2 or min(pair.old.shape) < MIN_MATRIX:
        return ()
    from diffai_stream.statistics.delta_rows import DeltaRows

    return (DeltaRows(),)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """One record."""
    tensors = list(evidence.tensors)
    layers = sorted(
        ((judge.relative(members), name) for name, members in judge.by_layer(tensors).items()),
        key=lambda row: (-(row[0] if row[0] is not None else float("inf")), row[1]),
    )
    counts = {status: sum(t.status == status for t in tensors) for status in ("changed", *judge.STRUCTURAL)}
    moved = [
        {"layer": name, "relative_l2": finite(value) if value is not None else None} for value, name in layers if value != 0
    ]
    whole = judge.relative(judge.compared(tensors))
    rank = low_rank(evidence)
    fields = {
        "classes": [{"kind": kind, "evidence": text} for kind, text in classes(evidence, whole, rank)],
        "tensor_count": len(tensors),
        **{f"{status}_count": count for status, count in counts.items()},
        "relative_l2": _finite(whole),
        "rank": rank,
        "top_layers": moved[: options.top] if options.top else moved,
    }
    yield Finding("model", "model", "derived", fields)


def _finite(value: float | None) -> float | None:
    return finite(value) if value is not None else None


def low_rank(evidence: ModelEvidence) -> int | None:
    """The median rank of the changed matrices, None unless nearly all that changed is of low rank."""
    by_name = {t.name: t for t in evidence.tensors}
    ranks, energy = [], 0.0
    for name, extras in evidence.extras.items():
        found = [columns["rank"] for statistic, columns in extras.items() if type(statistic).__name__ == "DeltaRows"]
        if found and found[0] is not None and name in by_name:
            ranks.append(found[0])
            energy += by_name[name].delta_squares
    changed = sum(t.delta_squares for t in evidence.tensors)
    return int(median(ranks)) if ranks and changed > 0 and energy >= LOW_RANK_SHARE * changed else None


def classes(evidence: ModelEvidence, whole: float | None, rank: int | None) -> list[tuple[str, str]]:
    """(kind, evidence) of every kind of change that the figures fit, most specific first."""
    tensors = list(evidence.tensors)
    found = [*_structure(tensors), *_encodings(evidence), *_values(tensors, whole, rank)]
    return found or _surroundings(evidence, tensors)


def _structure(tensors: Sequence[Digest]) -> Iterator[tuple[str, str]]:
    tables = [t for t in tensors if t.status == "reshaped" and t.role in judge.TABLES]
    if tables:
        yield "vocabulary_resized", f"{judge.listed([t.name for t in tables])} of another length"
    heads = [t for t in tensors if t.role.split(".")[0] in ("lm_head", "classifier") and t.status != "unchanged"]
    others = [t for t in judge.compared(tensors) if t not in heads]
    if heads and not tables and others and all(t.status in ("unchanged", "retyped") for t in others):
        yield "head_replaced", f"only {judge.listed([t.name for t in heads])} differ"
    rest = [t for t in judge.structural(tensors) if t not in tables and t not in heads]
    if rest:
        yield "structure_changed", judge.listed([f"{t.name} {t.status}" for t in rest])


def _encodings(evidence: ModelEvidence) -> Iterator[tuple[str, str]]:
    pairs = [p for p in evidence.run.pairs if p.status == "paired" and p.old.encoding != p.new.encoding]
    if not pairs:
        return
    sizes = [sum(getattr(pair, side).stored_nbytes for pair in pairs) for side in ("old", "new")]
    kinds = sorted({f"{pair.old.encoding} to {pair.new.encoding}" for pair in pairs})
    text = f"{len(pairs)} tensors from {judge.listed(kinds)}, {sizes[0]} to {sizes[1]} bytes"
    casts = [f.fields["cast"] for f in evidence.findings.get("quantization", []) if f.scope == "tensor"]
    is_cast = bool(casts) and all(cast in ("exact", "rne", "truncated") for cast in casts)
    yield ("cast" if is_cast else "quantized"), text


def _values(tensors: Sequence[Digest], whole: float | None, rank: int | None) -> Iterator[tuple[str, str]]:
    both = judge.compared(tensors)
    changed = [t for t in both if t.status == "changed"]
    if not changed or whole is None:
        return
    told = f"relative_l2 {whole:.3g} over {len(changed)} of {len(both)} tensors"
    if whole > UNRELATED:
        yield "unrelated_weights", told
        return
    if rank is not None:
        yield "low_rank_update", f"rank {rank} (median), {told}"
    frozen = [t for t in both if t.status in ("unchanged", "retyped") and len(t.shape) > 1]
    if frozen:
        share = sum(t.numel for t in frozen) / max(1, sum(t.numel for t in both))
        yield "frozen_and_fine_tuned", f"{share:.0%} of the elements frozen, {told}"
    elif rank is None:
        yield "full_fine_tune", told


def _surroundings(evidence: ModelEvidence, tensors: Sequence[Digest]) -> list[tuple[str, str]]:
    """What differs when no value does."""
    old, new = evidence.run.old, evidence.run.new
    renamed = [p for p in evidence.run.pairs if p.old and p.new and p.old.name != p.new.name]
    if renamed:
        return [("renamed", f"{len(renamed)} tensors under other names or in another layout, every value equal")]
    if len(old.stamps) != len(new.stamps):
        return [("resharded", f"{len(old.stamps)} files to {len(new.stamps)}, every value equal")]
    if dict(old.metadata) != dict(new.metadata):
        return [("metadata_only", "every value equal, the metadata differs")]
    return [("identical", f"all {len(tensors)} tensors equal")]
