"""architecture_comparison: the facts of both sides, and what differs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from diffai_stream.analyses.base import Finding, ModelEvidence, RunContext
from diffai_stream.analyses.structure.facts import Facts, facts_of, needs_agreement, placed
from diffai_stream.options import Options

COMPARED = ("family", "depth", "width", "heads", "kv_heads", "head_dim", "vocabulary", "experts")


def needs_in(run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """No statistics; a configuration against the shapes ends here."""
    return needs_agreement("architecture_comparison", run, options)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """One record."""
    checkpoints = evidence.run.old, evidence.run.new
    rows = [placed(checkpoint, evidence.run.model_type) for checkpoint in checkpoints]
    facts = [facts_of(c, context, r) for c, context, r in zip(checkpoints, evidence.run.contexts, rows, strict=True)]
    sides = [_told(f, sum(entry.numel for _, _, entry in r)) for f, r in zip(facts, rows, strict=True)]
    counts = [Counter(role for _, role, _ in r) for r in rows]
    by_status = {
        status: [t.name for t in evidence.tensors if t.status == status] for status in ("added", "removed", "reshaped")
    }
    fields: dict[str, Any] = {
        "old": sides[0],
        "new": sides[1],
        "same_family": facts[0].family == facts[1].family,
        "differs_in": [name for name in COMPARED if sides[0][name] != sides[1][name]],
        **{status: names[: options.top] if options.top else names for status, names in by_status.items()},
        "roles": [
            {"role": role, "old_count": counts[0][role], "new_count": counts[1][role]}
            for role in sorted({*counts[0], *counts[1]})
            if counts[0][role] != counts[1][role]
        ],
    }
    yield Finding("model", "model", "derived", fields)


def _told(facts: Facts, parameter_count: int) -> dict[str, Any]:
    values = {name: getattr(facts, name) for name in COMPARED}
    return {**values, "evidence": list(facts.evidence), "parameter_count": parameter_count}
