"""The fields of gates, alerts, summaries, risks and readiness."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

Gate = Literal["structure", "nonfinite", "layer_change", "tensor_change", "sqnr", "size", "frozen"]
Level = Literal["low", "medium", "high", "critical"]


class RegressionFields(TypedDict):
    """regression_test: one record a gate."""

    gate: Annotated[Gate, "what is held against a limit"]
    passed: Annotated[bool, "whether the value keeps the limit"]
    value: Annotated[float | None, "the figure; null when it cannot be computed, which fails the gate"]
    limit: Annotated[float | None, "the limit"]
    detail: Annotated[str | None, "what the figure means, and where it is worst"]


class AlertFields(TypedDict):
    """alert: one record a crossed threshold."""

    trigger: Annotated[Literal["new_nonfinite", "layer_change", "critical_anomaly"], "what crossed its threshold"]
    value: Annotated[float | None, "the figure"]
    threshold: Annotated[float | None, "the threshold"]
    detail: Annotated[str, "in a sentence"]


class TopLayer(TypedDict):
    """A layer among those that changed most."""

    layer: Annotated[str, "name of the layer"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖"]


class ChangeClass(TypedDict):
    """A kind of change, and why it is believed."""

    kind: Annotated[str, "e.g. identical, cast, quantized, vocabulary_resized, full_fine_tune, low_rank_update"]
    evidence: Annotated[str, "the figures that say so"]


class ChangeSummaryFields(TypedDict):
    """change_summary: one record for the model."""

    classes: Annotated[list[ChangeClass], "kinds of change that fit, the most specific first"]
    tensor_count: Annotated[int, "tensors of both sides together, a pair counting once"]
    changed_count: Annotated[int, "tensors with other values"]
    added_count: Annotated[int, "tensors only in new"]
    removed_count: Annotated[int, "tensors only in old"]
    reshaped_count: Annotated[int, "tensors of another shape"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖ of the model"]
    rank: Annotated[int | None, "median rank of the change over matrices of low rank; null when it is not of low rank"]
    top_layers: Annotated[list[TopLayer], "layers by relative_l2, largest first (--top)"]


class FiredRule(TypedDict):
    """A rule of the risk table that fired."""

    rule: Annotated[str, "its name in the reference"]
    level: Annotated[Level, "how bad it is"]
    evidence: Annotated[str, "what was measured"]


class RiskFields(TypedDict):
    """risk_assessment: one record for the model."""

    level: Annotated[Level, "the worst of the rules that fired; low when none did"]
    rules: Annotated[list[FiredRule], "every rule that fired"]
    rule_count: Annotated[int, "rules that were judged"]


class Check(TypedDict):
    """One line of the check list."""

    check: Annotated[str, "what is checked"]
    passed: Annotated[bool | None, "null when it cannot be told"]
    detail: Annotated[str, "what was found, or why it cannot be told"]


class ReadinessFields(TypedDict):
    """deployment_readiness: one record for the model."""

    checks: Annotated[list[Check], "the check list"]
    passed_count: Annotated[int, "checks passed"]
    total_count: Annotated[int, "checks that could be told"]
    readiness: Annotated[float | None, "passed_count / total_count"]
    blocking: Annotated[list[str], "failed checks that forbid a roll-out"]
    strategy: Annotated[Literal["none", "hold", "shadow", "canary", "direct"], "none: nothing changed; by the documented rule"]
