"""convergence_analysis: whether updates shrink, grow or turn back, over three checkpoints or more, and what the loss says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from diffai_stream.analyses.base import Digest, Finding, Findings, ModelEvidence, RunContext, Skipped
from diffai_stream.analyses.gates import judge
from diffai_stream.analyses.training.history import losses
from diffai_stream.analyses.training.progress import magnitude_of, speed_of
from diffai_stream.analyses.training.trend import Line, line_through, tail
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite, total
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.sketch import Estimate, Product, Sketch, cosine_of, sketch_of

CONVERGED = 1e-4  # ‖delta‖/‖old‖ below which nothing moves
BACKWARDS = -0.1  # direction_cosine below which an update takes the one before back
GROWING, SHRINKING = 1.5, 0.9  # of update_ratio
LAST_UPDATES = 5
MIN_UPDATES = 3  # that a standard deviation is told of
ACTIONS = {
    "converged": "the weights or the loss stand still: stop, or change the data or the learning rate",
    "converging": "updates shrink, or the loss still falls: train on",
    "oscillating": "an update takes back the one before: lower the learning rate, or average the checkpoints",
    "diverging": "updates or the loss grow: go back to an earlier checkpoint and lower the learning rate",
    "undetermined": "nothing here decides: name a third checkpoint, or keep the loss history beside them",
}


def needs_in(run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """A sketch of the change of every weight, where there are more pairs than one to compare it with."""
    wanted = "convergence_analysis" in options.analyses and run.count > 1

    def needs(pair: Any) -> tuple[Any, ...]:
        is_changed = pair.status == "paired" and pair.part == "weights" and not pair.identical
        return (Sketch(View.DELTA),) if wanted and is_changed else ()

    return needs


class Signs(NamedTuple):
    """What speaks for a status: the last update, its ratio to the one before, the angle between them, the loss."""

    update: float | None
    ratio: float | None
    direction: Estimate
    loss: Line | None


def model(evidence: ModelEvidence, options: Options) -> Findings:
    """One record a pair; that of the last pair is about the whole trajectory."""
    if not judge.compared(evidence.tensors):
        yield Skipped("model", "no tensor is in both checkpoints with the same shape")
        return
    pairs = [*evidence.run.previous, evidence]
    norms, speeds = [norm_of(pair) for pair in pairs], [speed_of(pair) for pair in pairs]
    history = losses(evidence.run)
    loss = line_through(tail(history.points)) if history is not None else None
    direction = direction_of(evidence.run.previous[-1], evidence) if evidence.run.previous else Estimate(None, None)
    signs = Signs(magnitude_of(evidence), _ratio(speeds), direction, loss)
    status, reason = status_of(signs)
    fields: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "update_norms": norms,
        "update_ratio": signs.ratio,
        "direction_cosine": direction.cosine,
        "standard_error": direction.standard_error,
        "stability": stability_of([norm for norm in norms if norm is not None]),
        "loss_slope": loss.slope if loss else None,
        "is_loss_plateau": loss.direction == "flat" if loss else None,
        "loss_source": history.source if history is not None and loss else None,
        "converged_below": CONVERGED,
        "action": ACTIONS[status],
    }
    yield Finding("model", "model", "measured", fields)


def norm_of(evidence: ModelEvidence) -> float | None:
    """‖delta‖ of the model."""
    return finite(sqrt(total([t.delta_squares for t in judge.compared(evidence.tensors)])))


def _ratio(speeds: Sequence[float | None]) -> float | None:
    """The last update over the one before, a step where steps are known."""
    if len(speeds) < 2 or speeds[-1] is None or not speeds[-2]:
        return None
    return finite(speeds[-1] / speeds[-2])


def stability_of(norms: Sequence[float]) -> float | None:
    """Standard deviation over mean of the last update norms; None for fewer than MIN_UPDATES."""
    last = np.array(norms[-LAST_UPDATES:])
    return float(last.std() / last.mean()) if last.size >= MIN_UPDATES and last.mean() > 0 else None


def direction_of(before: ModelEvidence, now: ModelEvidence) -> Estimate:
    """The cosine between the update before and this one, over the tensors that both changed or left alone."""
    earlier = {t.name: t for t in judge.compared(before.tensors)}
    products = []
    for tensor in judge.compared(now.tensors):
        other = earlier.get(tensor.name)
        if other is not None and other.shape == tensor.shape:
            product = _product(before, other, now, tensor)
            if product is None:
                return Estimate(None, None)
            products.append(product)
    return cosine_of(products)


def _product(before: ModelEvidence, other: Digest, now: ModelEvidence, tensor: Digest) -> Product | None:
    """A tensor's share; None when it changed and there is no sketch of that."""
    norms = sqrt(other.delta_squares), sqrt(tensor.delta_squares)
    if not all(norms):
        return Product(_NOTHING, _NOTHING, True, *norms)
    sketches = [sketch_of(e.extras.get(t.name, {}), View.DELTA) for e, t in ((before, other), (now, tensor))]
    if sketches[0] is None or sketches[1] is None:
        return None
    return Product(sketches[0]["sketch"], sketches[1]["sketch"], sketches[0]["is_exact"], *norms)


_NOTHING = np.empty(0, np.float32)


def status_of(signs: Signs) -> tuple[str, str]:
    """The status by the first rule that applies, and that rule with its figures."""
    update, ratio, direction, loss = signs
    if update is not None and update < CONVERGED and (ratio is not None or update > 0):
        return "converged", f"the last update is {update:.3g} of the weights, below {CONVERGED:g}"
    if direction.cosine is not None and direction.cosine + 2 * (direction.standard_error or 0.0) < BACKWARDS:
        return "oscillating", f"the cosine between the last two updates is {direction.cosine:.3g}, below {BACKWARDS:g}"
    if loss is not None and loss.direction == "rising":
        return "diverging", f"the loss rises by {loss.slope:.3g} a step at the end"
    if ratio is not None and ratio > GROWING:
        return "diverging", f"the last update is {ratio:.3g} times the one before, above {GROWING:g}"
    if loss is not None:
        if loss.direction == "flat":
            return "converged", "the loss is flat at the end"
        return "converging", f"the loss falls by {-loss.slope:.3g} a step at the end"
    if ratio is not None and ratio < SHRINKING:
        return "converging", f"the last update is {ratio:.3g} times the one before, below {SHRINKING:g}"
    if ratio is not None:
        return "undetermined", f"the last update is {ratio:.3g} times the one before: neither shrinks nor grows"
    return "undetermined", "one update and no loss history"
