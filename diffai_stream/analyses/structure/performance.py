"""performance_impact_estimate: new over old, from the bounds of inference_speed_estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from diffai_stream.analyses.base import Finding, ModelEvidence, RunContext
from diffai_stream.analyses.structure.facts import needs_agreement
from diffai_stream.analyses.structure.speed import ASSUMPTIONS, load_of
from diffai_stream.options import Options
from diffai_stream.plan.parts import WEIGHTS


def needs_in(run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """No statistics; a configuration against the shapes ends here."""
    return needs_agreement("performance_impact_estimate", run, options)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """One record of three ratios."""
    run = evidence.run
    old, new = (load_of(c, context, run.model_type) for c, context in zip((run.old, run.new), run.contexts, strict=True))
    sizes = [sum(entry.stored_nbytes for entry in c.tensors if entry.part == WEIGHTS) for c in (run.old, run.new)]
    fields = {
        "latency_ratio": new.nbytes / old.nbytes if old.nbytes else None,
        "throughput_ratio": old.flops / new.flops if new.flops else None,
        "memory_ratio": sizes[1] / sizes[0] if sizes[0] else None,
        "assumptions": [
            *ASSUMPTIONS,
            "the same hardware, which computes at one rate whatever the encoding",
            *dict.fromkeys(load.assumption for load in (old, new) if load.assumption),
        ],
    }
    yield Finding("model", "model", "estimated", fields)
