"""learning_progress: how far the weights moved, where most, what stands still, and where the loss goes."""

from __future__ import annotations

from typing import Any

from diffai_stream.analyses.base import Finding, Findings, ModelEvidence, Skipped
from diffai_stream.analyses.gates import judge
from diffai_stream.analyses.training.history import after, losses, steps_between
from diffai_stream.analyses.training.trend import line_through
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite

SHOWN_LAYERS = 5
STEADY = 0.1  # relative change of the speed below which it counts as steady
TRENDS = {"falling": "improving", "rising": "worsening", "flat": "flat"}


def model(evidence: ModelEvidence, options: Options) -> Findings:
    """One record."""
    compared = judge.compared(evidence.tensors)
    if not compared:
        yield Skipped("model", "no tensor is in both checkpoints with the same shape")
        return
    magnitude, steps = magnitude_of(evidence), steps_between(evidence.run)
    frozen = [t for t in compared if t.changed_count == 0]
    numel = sum(t.compared_count for t in compared)
    fields: dict[str, Any] = {
        "magnitude": magnitude,
        "steps": steps,
        "speed": magnitude / steps if magnitude is not None and steps else None,
        "fastest_layers": _fastest(evidence),
        "frozen_ratio": sum(t.compared_count for t in frozen) / numel if numel else None,
        "frozen_tensor_count": len(frozen),
        **_trend(evidence, magnitude),
    }
    yield Finding("model", "model", "measured", fields)


def magnitude_of(evidence: ModelEvidence) -> float | None:
    """‖delta‖ / ‖old‖ of the model; None when ‖old‖ is 0 and something changed."""
    whole = judge.relative(judge.compared(evidence.tensors))
    return finite(whole) if whole is not None else None


def speed_of(evidence: ModelEvidence) -> float | None:
    """The magnitude a step, or a pair where the steps are not known."""
    magnitude, steps = magnitude_of(evidence), steps_between(evidence.run)
    return magnitude if magnitude is None or steps is None else magnitude / steps


def _fastest(evidence: ModelEvidence) -> list[dict[str, Any]]:
    layers = {name: judge.relative(members) for name, members in judge.by_layer(evidence.tensors).items()}
    moved = [(value, name) for name, value in layers.items() if value]
    moved.sort(key=lambda row: (-row[0], row[1]))
    return [{"layer": name, "relative_l2": finite(value)} for value, name in moved[:SHOWN_LAYERS]]


def _trend(evidence: ModelEvidence, magnitude: float | None) -> dict[str, Any]:
    """Of the loss between the checkpoints, of all the loss, or of the size of the updates, in this order."""
    fields: dict[str, Any] = dict.fromkeys(("trend", "trend_slope", "trend_points", "trend_source", "trend_reason"))
    history = losses(evidence.run)
    if history is not None:
        between = after(history.points, evidence.run.configurations[0].step) if history.by_step else []
        for points, where in ((between, " since old"), (history.points, "")):
            line = line_through(points)
            if line is not None:
                found = {"trend": TRENDS[line.direction], "trend_slope": line.slope, "trend_points": len(points)}
                return {**fields, **found, "trend_source": history.source + where}
    speeds = [speed_of(each) for each in (*evidence.run.previous, evidence)]
    if len(speeds) > 1 and speeds[-1] is not None and speeds[-2]:
        change = speeds[-1] / speeds[-2] - 1
        word = "steady" if abs(change) <= STEADY else "slowing" if change < 0 else "accelerating"
        found = {"trend": word, "trend_slope": change, "trend_points": len(speeds)}
        return {**fields, **found, "trend_source": "the last two updates"}
    reason = "no loss history beside the checkpoints or in them, and no third checkpoint to compare updates with"
    return {**fields, "trend_reason": reason}
