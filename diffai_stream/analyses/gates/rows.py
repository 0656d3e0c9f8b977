"""The rows of gates and verdicts; they run last, because they judge what the others found."""

from __future__ import annotations

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.gates.fields import (
    AlertFields,
    ChangeSummaryFields,
    ReadinessFields,
    RegressionFields,
    RiskFields,
)

_HERE = "diffai_stream.analyses.gates"

ROWS = (
    Analysis(
        name="change_summary",
        flag="--change-summary",
        title="what kind of change this is, and the evidence",
        family="review",
        scopes=("model",),
        basis="derived",
        module=f"{_HERE}.summary",
        fields=ChangeSummaryFields,
        needs=("agreement", "delta_rows"),
        reference="low-rank updates: Hu et al. 2021, arXiv 2106.09685",
    ),
    Analysis(
        name="regression_test",
        flag="--regression-test",
        title="gates: structure, finite values, change by layer, SQNR, size, frozen tensors",
        family="review",
        scopes=("tensor", "layer", "model"),
        basis="measured",
        module=f"{_HERE}.regression",
        fields=RegressionFields,
        needs=("agreement", "counts"),
        reference="limits by --tolerance, --tolerance-per-layer, --min-sqnr, --max-size, --expect-unchanged",
        is_gate=True,
    ),
    Analysis(
        name="alert",
        flag="--alert-on-degradation",
        title="one record for each crossed threshold; critical ones fail the run",
        family="review",
        scopes=("tensor", "layer", "model"),
        basis="measured",
        module=f"{_HERE}.alert",
        fields=AlertFields,
        needs=("agreement", "counts"),
        reference="limit by --tolerance; the severities of anomaly",
        is_gate=True,
    ),
    Analysis(
        name="risk_assessment",
        flag="--risk-assessment",
        title="the worst of a table of rules, with every rule that fired",
        family="review",
        scopes=("model",),
        basis="derived",
        module=f"{_HERE}.risk",
        fields=RiskFields,
        needs=("agreement", "counts"),
        reference="the rule table of this page",
    ),
    Analysis(
        name="deployment_readiness",
        flag="--deployment-readiness",
        title="a check list for rolling the new checkpoint out",
        family="review",
        scopes=("model",),
        basis="derived",
        module=f"{_HERE}.readiness",
        fields=ReadinessFields,
        needs=("agreement", "counts"),
        reference="the check list of this page",
    ),
)
