"""inference_speed_estimate: the two bounds of the roofline, bytes touched and operations done for a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from diffai_stream.analyses.base import Finding, ModelEvidence, RunContext, Skipped
from diffai_stream.analyses.structure.facts import facts_of, needs_agreement, placed
from diffai_stream.context.base import Context
from diffai_stream.formats.base import Checkpoint
from diffai_stream.options import Options

ASSUMPTIONS = (
    "every weight is read once for a token, embedding rows only for the token itself",
    "decoding is bound by memory, prefill by arithmetic",
    "two operations a parameter; attention over the context is left out",
)


def needs_in(run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """No statistics; a configuration against the shapes ends here."""
    return needs_agreement("inference_speed_estimate", run, options)


class Load(NamedTuple):
    """What one token costs, and what was assumed beyond the usual."""

    nbytes: int
    flops: int
    assumption: str | None


def load_of(checkpoint: Checkpoint, context: Context, model_type: str = "") -> Load:
    """Bytes and operations of one token: of the experts of a layer only the active ones count."""
    rows = placed(checkpoint, model_type)
    facts = facts_of(checkpoint, context, rows)
    share, assumption = 1.0, None
    if any(role.startswith("experts.") for _, role, _ in rows):
        if facts.experts and facts.active_experts:
            share = facts.active_experts / facts.experts
            assumption = f"{facts.active_experts} of {facts.experts} experts are active"
        else:
            assumption = "the number of active experts is unknown: all count"
    tied = not any(role == "lm_head" for _, role, _ in rows)
    nbytes = flops = 0.0
    for _, role, entry in rows:
        if role == "embedding" and not tied:
            nbytes += entry.stored_nbytes / max(1, entry.shape[0])
            continue
        factor = share if role.startswith("experts.") else 1.0
        nbytes += factor * entry.stored_nbytes
        flops += factor * 2 * entry.numel
    return Load(round(nbytes), round(flops), assumption)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """One record; speeds only where the hardware is told."""
    run = evidence.run
    old, new = (load_of(c, context, run.model_type) for c, context in zip((run.old, run.new), run.contexts, strict=True))
    bandwidth, peak = options.memory_bandwidth, options.peak_flops
    fields = {
        "old_bytes_per_token": old.nbytes,
        "new_bytes_per_token": new.nbytes,
        "old_flops_per_token": old.flops,
        "new_flops_per_token": new.flops,
        "bytes_ratio": new.nbytes / old.nbytes if old.nbytes else None,
        "flops_ratio": new.flops / old.flops if old.flops else None,
        "old_decode_tokens_per_second": bandwidth / old.nbytes if bandwidth and old.nbytes else None,
        "new_decode_tokens_per_second": bandwidth / new.nbytes if bandwidth and new.nbytes else None,
        "old_prefill_tokens_per_second": peak / old.flops if peak and old.flops else None,
        "new_prefill_tokens_per_second": peak / new.flops if peak and new.flops else None,
        "assumptions": [*ASSUMPTIONS, *dict.fromkeys(load.assumption for load in (old, new) if load.assumption)],
    }
    yield Finding("model", "model", "estimated", fields)
