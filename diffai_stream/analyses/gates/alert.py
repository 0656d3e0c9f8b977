"""alert: one record for each crossed threshold, none when all is well."""

from __future__ import annotations

from collections.abc import Iterator

from diffai_stream.analyses.base import Finding, ModelEvidence
from diffai_stream.analyses.gates import judge
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """New non-finite values, layers beyond the tolerance, critical anomalies of the new side."""
    for tensor in judge.newly_nonfinite(evidence.tensors):
        count = tensor.new_nonfinite - tensor.old_nonfinite
        detail = f"{count} more NaN or Inf than before, {tensor.new_nonfinite} in all"
        yield _alert("tensor", tensor.name, "critical", "new_nonfinite", float(count), 0.0, detail)
    for layer, members in judge.by_layer(evidence.tensors).items():
        value, limit = judge.relative(members), judge.limit_of(members, options.tolerance)
        if value is None or value > limit:
            detail = f"relative_l2 above {limit:g}, by --tolerance {options.tolerance:g}"
            yield _alert("layer", layer, "warning", "layer_change", finite(value) if value else None, limit, detail)
    for found in judge.anomalies(evidence, "critical"):
        kind, value = found.fields["kind"], found.fields["value"]
        if kind != "nonfinite":  # told above, when it is new
            detail = f"{kind}: {found.fields['detail'] or 'see its anomaly record'}"
            yield _alert(found.scope, found.subject, "critical", "critical_anomaly", value, found.fields["threshold"], detail)


def _alert(
    scope: str, subject: str, severity: str, trigger: str, value: float | None, threshold: float | None, detail: str
) -> Finding:
    fields = {"trigger": trigger, "value": value, "threshold": threshold, "detail": detail}
    return Finding(scope, subject, "measured", fields, severity)
