"""gradient_analysis: gradients by layer, old against new, from what was stored of them or of the moments of Adam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from statistics import median
from typing import Any

from diffai_stream.analyses.base import Finding, Findings, ModelEvidence, Skipped
from diffai_stream.analyses.gates import judge
from diffai_stream.analyses.training.history import steps_between
from diffai_stream.analyses.training.moments import Gathered, by_layer
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite, total

EXPLODING = 10.0  # times the median of the blocks; its inverse is vanishing
MIN_BLOCKS = 3
_NONFINITE = ("old_nonfinite_count", "new_nonfinite_count")


def check(pairs: Any, options: Options) -> None:
    """A learning rate divides."""
    if options.learning_rate is not None and not options.learning_rate > 0:
        raise UsageError("--learning-rate must be above 0")


def model(evidence: ModelEvidence, options: Options) -> Findings:
    """One record a layer, in the order of the model."""
    if "gradient_analysis" not in options.analyses:
        return
    layers = {} if options.ignore_optimizer_state else by_layer(evidence.state)
    if layers:
        yield from _measured(layers)
    elif options.learning_rate is not None:
        yield from _proxies(evidence, options.learning_rate)
    else:
        yield Skipped("model", _reason(evidence, options))


def _reason(evidence: ModelEvidence, options: Options) -> str:
    proxy = "; with --learning-rate X, update / X is given as a proxy"
    if options.ignore_optimizer_state:
        return f"--ignore-optimizer-state leaves gradients and optimizer state out{proxy}"
    sides = {"old": evidence.run.old, "new": evidence.run.new}
    have = [side for side, found in sides.items() if any(e.part in ("gradient", "optimizer") for e in found.tensors)]
    if len(have) == 1:
        return f"only the {have[0]} checkpoint has gradients or optimizer state: nothing to compare them with{proxy}"
    return f"no gradients, and no optimizer state with moments, in both checkpoints{proxy}"


def _measured(layers: Mapping[str, Gathered]) -> Iterator[Finding]:
    middle = _median({name: layer.new.rms for name, layer in layers.items()})
    for name, layer in layers.items():
        old, new = layer.old, layer.new
        norms = sqrt(old.squares) * sqrt(new.squares)
        kind, ratio = _kind(name, new.rms, middle)
        fields: dict[str, Any] = {
            "source": layer.source,
            "element_count": new.count,
            "old_rms": _finite(old.rms),
            "new_rms": _finite(new.rms),
            "ratio": finite(new.rms / old.rms) if old.rms and new.rms is not None else None,
            "cosine_similarity": max(-1.0, min(1.0, layer.dot / norms)) if 0 < norms < float("inf") else None,
            "old_signal_to_noise": _finite(old.signal_to_noise),
            "new_signal_to_noise": _finite(new.signal_to_noise),
            "old_nonfinite_count": old.nonfinite,
            "new_nonfinite_count": new.nonfinite,
            **_judgement(kind, ratio),
        }
        yield Finding("layer", name, "measured", fields, _severity(kind, new.nonfinite))


def _judgement(kind: str | None, ratio: float | None) -> dict[str, Any]:
    return {"kind": kind, "ratio_to_median": ratio, "threshold": EXPLODING}


def _severity(kind: str | None, nonfinite: int) -> str:
    return "critical" if nonfinite else "warning" if kind else "info"


def _proxies(evidence: ModelEvidence, rate: float) -> Iterator[Finding]:
    """The update over the learning rate, a step where steps are known: the mean gradient, had it been plain descent."""
    steps = steps_between(evidence.run) or 1
    rms: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name, members in judge.by_layer(evidence.tensors).items():
        counts[name] = sum(t.compared_count for t in members)
        squares = total([t.delta_squares for t in members])
        rms[name] = sqrt(squares / counts[name]) / (rate * steps) if counts[name] else 0.0
    middle = _median(dict(rms))
    nothing = dict.fromkeys(
        ("old_rms", "ratio", "cosine_similarity", "old_signal_to_noise", "new_signal_to_noise", *_NONFINITE)
    )
    for name, value in rms.items():
        kind, ratio = _kind(name, value, middle)
        told = {"source": "update", "element_count": counts[name], **nothing, "new_rms": finite(value)}
        told |= {"learning_rate": rate, **_judgement(kind, ratio)}
        yield Finding("layer", name, "estimated", told, _severity(kind, 0))


def _finite(value: float | None) -> float | None:
    return finite(value) if value is not None else None


def is_block(name: str) -> bool:
    """Whether a layer is one of the repeated ones, which can be held against each other."""
    return name.rpartition(".")[2].isdigit()


def _median(values: Mapping[str, float | None]) -> float | None:
    """The median over the repeated blocks that have any; None when these are too few."""
    known = [value for name, value in values.items() if is_block(name) and value]
    return median(known) if len(known) >= MIN_BLOCKS else None


def _kind(name: str, value: float | None, middle: float | None) -> tuple[str | None, float | None]:
    """exploding, vanishing or neither, and the ratio to the median of the blocks."""
    if not middle or value is None or not is_block(name):
        return None, None
    ratio = value / middle
    kind = "exploding" if ratio > EXPLODING else "vanishing" if ratio * EXPLODING < 1 else None
    return kind, finite(ratio)
