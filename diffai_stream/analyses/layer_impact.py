"""layer_impact: how much each layer changed, and the ranking of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import sqrt
from typing import Any

from diffai_stream.analyses.base import Digest, Finding, Findings, LayerEvidence, ModelEvidence
from diffai_stream.options import Options
from diffai_stream.statistics.describe import finite, total


def relative(tensors: Iterable[Digest]) -> float | None:
    """‖delta‖ / ‖old‖ over tensors; None when ‖old‖ is 0."""
    squares = [(t.old_squares, t.delta_squares) for t in tensors]
    old = total([of_old for of_old, _ in squares])
    return finite(sqrt(total([of_delta for _, of_delta in squares]) / old)) if old > 0 else None


def layer(evidence: LayerEvidence, options: Options) -> Findings:
    """The record of one layer, when its last tensor is out."""
    compared = [t for t in evidence.tensors if t.status not in ("added", "removed", "reshaped")]
    numel = sum(t.compared_count for t in compared)
    roles: dict[str, list[Digest]] = {}
    for tensor in compared:
        roles.setdefault(tensor.role, []).append(tensor)
    fields: dict[str, Any] = {
        "relative_l2": relative(compared),
        "delta_l2_norm": finite(sqrt(total([t.delta_squares for t in compared]))),
        "changed_ratio": sum(t.changed_count for t in compared) / numel if numel else None,
        "element_count": sum(t.numel for t in evidence.tensors),
        "unread_count": evidence.unread_count,
        "roles": [{"role": role, "relative_l2": relative(tensors)} for role, tensors in sorted(roles.items())],
        "stats": evidence.stats,
    }
    yield Finding("layer", evidence.name, "measured", fields)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """The ranking of the layers by relative_l2, largest first."""
    layers: dict[str, list[Digest]] = {}
    for tensor in evidence.tensors:
        if tensor.status not in ("added", "removed", "reshaped"):
            layers.setdefault(tensor.layer, []).append(tensor)
    if not layers:
        return
    energy = total(t.delta_squares for tensors in layers.values() for t in tensors)
    ranking = [
        {
            "layer": name,
            "relative_l2": relative(tensors),
            "energy_ratio": finite(total([t.delta_squares for t in tensors]) / energy) if energy > 0 else None,
        }
        for name, tensors in layers.items()
    ]
    ranking.sort(key=lambda row: (row["relative_l2"] is None, -(row["relative_l2"] or 0.0), row["layer"]))  # type: ignore[operator]
    yield Finding("model", "model", "measured", {"ranking": ranking[: options.top] if options.top else ranking})
