"""What all gates and verdicts look at: changes by layer, new non-finite values, what changed in structure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from math import inf, log10, sqrt

from diffai_stream.analyses.base import Digest, Finding, ModelEvidence
from diffai_stream.statistics.describe import finite, total

STRUCTURAL = ("added", "removed", "reshaped")
TABLES = ("embedding", "lm_head", "lm_head.bias")
NEW_SIDES = ("new", "both", None)


def relative(tensors: Iterable[Digest]) -> float | None:
    """‖delta‖ / ‖old‖ over tensors: 0 when nothing changed, infinite when only zeros did, None beyond float64."""
    rows = list(tensors)
    delta, old = total(t.delta_squares for t in rows), total(t.old_squares for t in rows)
    if delta == 0:
        return 0.0
    return finite(sqrt(delta / old)) if old > 0 else inf


def limit_of(tensors: Iterable[Digest], limit: float) -> float:
    """The limit of a relative change, or what the encodings explain of it where that is more (`--quantization-aware`)."""
    rows = list(tensors)
    allowed, old = total(t.allowed_squares for t in rows), total(t.old_squares for t in rows)
    return max(limit, sqrt(allowed / old)) if allowed > 0 and old > 0 else limit


def compared(tensors: Iterable[Digest]) -> list[Digest]:
    """The tensors whose values were compared."""
    return [tensor for tensor in tensors if tensor.status not in STRUCTURAL]


def by_layer(tensors: Iterable[Digest]) -> dict[str, list[Digest]]:
    """Compared tensors by layer, in plan order."""
    layers: dict[str, list[Digest]] = {}
    for tensor in compared(tensors):
        layers.setdefault(tensor.layer, []).append(tensor)
    return layers


def newly_nonfinite(tensors: Iterable[Digest]) -> list[Digest]:
    """Tensors with more NaN or infinite values in new than in old; an added one counts from 0."""
    return [tensor for tensor in tensors if tensor.new_nonfinite > tensor.old_nonfinite]


def structural(tensors: Iterable[Digest]) -> list[Digest]:
    """Tensors added, removed or of another shape."""
    return [tensor for tensor in tensors if tensor.status in STRUCTURAL]


def sqnr_db(tensor: Digest) -> float:
    """10·log10(Σold²/Σdelta²), dB; infinite when nothing changed, minus infinite when only zeros did."""
    if tensor.delta_squares == 0:
        return inf
    return 10 * log10(tensor.old_squares / tensor.delta_squares) if tensor.old_squares > 0 else -inf


def anomalies(evidence: ModelEvidence, severity: str) -> list[Finding]:
    """Anomalies of this severity that the new side shows."""
    found = evidence.findings.get("anomaly", [])
    return [f for f in found if f.severity == severity and f.fields["side"] in NEW_SIDES]


def matcher(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    """Case-sensitive globs, compiled."""
    return [re.compile(translate(pattern)) for pattern in patterns]


def listed(names: Sequence[str], limit: int = 4) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
