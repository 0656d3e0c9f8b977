"""risk_assessment: a table of rules, each with the level it means and what made it fire. No score, no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from diffai_stream.analyses.base import Finding, ModelEvidence
from diffai_stream.analyses.gates import judge
from diffai_stream.options import Options

LEVELS = ("low", "medium", "high", "critical")
LARGE_CHANGE, UNRELATED = 0.1, 0.9


class Rule(NamedTuple):
    """One rule: its name, the level it means, and a function that gives the evidence, or None when it does not fire."""

    name: str
    level: str
    judge: Callable[[ModelEvidence], str | None]


def _nonfinite(evidence: ModelEvidence) -> str | None:
    found = judge.newly_nonfinite(evidence.tensors)
    return f"new NaN or Inf in {judge.listed([t.name for t in found])}" if found else None


def _anomalies(severity: str) -> Callable[[ModelEvidence], str | None]:
    def told(evidence: ModelEvidence) -> str | None:
        found = [f for f in judge.anomalies(evidence, severity) if f.fields["kind"] != "nonfinite"]
        return judge.listed([f"{f.fields['kind']} in {f.subject}" for f in found]) if found else None

    return told


def _structure(evidence: ModelEvidence) -> str | None:
    found = [t for t in judge.structural(evidence.tensors) if t.role not in judge.TABLES]
    return judge.listed([f"{t.name} {t.status}" for t in found]) if found else None


def _vocabulary(evidence: ModelEvidence) -> str | None:
    found = [t for t in judge.structural(evidence.tensors) if t.role in judge.TABLES]
    return judge.listed([f"{t.name} {t.status}" for t in found]) if found else None


def _unrelated(evidence: ModelEvidence) -> str | None:
    value = judge.relative(judge.compared(evidence.tensors))
    return f"relative_l2 of the model {value:.3g} above {UNRELATED}" if value is not None and value > UNRELATED else None


def _large(evidence: ModelEvidence) -> str | None:
    layers = {name: judge.relative(members) for name, members in judge.by_layer(evidence.tensors).items()}
    found = [f"{name} ({value:.3g})" for name, value in layers.items() if value is not None and value > LARGE_CHANGE]
    return f"relative_l2 above {LARGE_CHANGE} in {judge.listed(found)}" if found else None


def _precision(evidence: ModelEvidence) -> str | None:
    found = [f for f in evidence.findings.get("quantization", []) if f.scope == "tensor" and f.fields["exceeds_threshold"]]
    return f"precision loss beyond the threshold in {judge.listed([f.subject for f in found])}" if found else None


RULES = (
    Rule("new_nonfinite", "critical", _nonfinite),
    Rule("critical_anomaly", "critical", _anomalies("critical")),
    Rule("structure_changed", "high", _structure),
    Rule("unrelated_weights", "high", _unrelated),
    Rule("large_layer_change", "medium", _large),
    Rule("precision_loss", "medium", _precision),
    Rule("vocabulary_changed", "medium", _vocabulary),
    Rule("anomaly_warning", "medium", _anomalies("warning")),
)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """One record: the worst level and every rule that fired."""
    fired = [
        {"rule": rule.name, "level": rule.level, "evidence": text}
        for rule in RULES
        if (text := rule.judge(evidence)) is not None
    ]
    level = max((str(row["level"]) for row in fired), key=LEVELS.index, default="low")
    severity = {"critical": "critical", "low": "info"}.get(level, "warning")
    fields = {"level": level, "rules": fired, "rule_count": len(RULES)}
    yield Finding("model", "model", "derived", fields, severity)
