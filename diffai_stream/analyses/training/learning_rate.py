"""learning_rate_analysis: the rate of each parameter group, the schedule it follows, and what an update cost of it."""

from __future__ import annotations

from typing import Any

from diffai_stream.analyses.base import Finding, Findings, ModelEvidence, Skipped
from diffai_stream.analyses.training.convergence import norm_of
from diffai_stream.analyses.training.history import Rates, after, rate_history, rates_of, steps_between
from diffai_stream.analyses.training.schedule import fitted
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite


def model(evidence: ModelEvidence, options: Options) -> Findings:
    """One record."""
    old, new = (rates_of(context) for context in evidence.run.configurations)
    history = rate_history(evidence.run)
    if old is None and new is None:
        yield Skipped("model", "no learning rate in an optimizer, a scheduler, a log or a configuration of either checkpoint")
        return
    fit = fitted(history.points if history else ())
    mean = _mean_rate(evidence, old, new)
    steps = steps_between(evidence.run)
    norm = norm_of(evidence)
    spent = mean * (steps or 1) if mean else None
    fields: dict[str, Any] = {
        "groups": _groups(old, new),
        "source": (new or old or _NONE).source,
        "pattern": fit.pattern,
        "pattern_residual": fit.residual,
        "pattern_points": len(history.points) if history else 0,
        "pattern_source": history.source if history else None,
        "warmup_steps": fit.warmup_steps,
        "mean_learning_rate": mean,
        "steps": steps,
        "update_per_lr": finite(norm / spent) if norm is not None and spent else None,
    }
    yield Finding("model", "model", "measured", fields)


_NONE = Rates({}, "")


def _groups(old: Rates | None, new: Rates | None) -> list[dict[str, Any]]:
    """The rates of each group; that of a log or a configuration stands for all of them."""
    sides = [side.groups if side is not None else {} for side in (old, new)]
    names = dict.fromkeys((*sides[0], *sides[1]))
    found = []
    for name in names:
        before, now = (side.get(name) for side in sides)
        ratio = finite(now / before) if before and now is not None else None
        found.append({"group": name, "old": before, "new": now, "ratio": ratio})
    return found


def _mean_rate(evidence: ModelEvidence, old: Rates | None, new: Rates | None) -> float | None:
    """The mean of the rates that a log has between old and new, else of the first group's on the sides that have one."""
    start, end = (context.step for context in evidence.run.configurations)
    logged = [
        (point.step, rate) for point in evidence.run.configurations[1].history if (rate := point.learning_rate) is not None
    ]
    between = [rate for step, rate in after(logged, start) if end is None or step <= end]
    rates = between or [next(iter(side.groups.values())) for side in (old, new) if side is not None]
    return sum(rates) / len(rates) if rates else None
