"""regression_test: figures held against limits, one record a gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from diffai_stream.analyses.base import Digest, Finding, ModelEvidence
from diffai_stream.analyses.gates import judge
from diffai_stream.errors import UsageError
from diffai_stream.options import Options


def check(pairs: Sequence[Any], options: Options) -> None:
    """Raise UsageError for a pattern that matches neither a layer nor a tensor."""
    patterns = [("--expect-unchanged", pattern) for pattern in options.expect_unchanged]
    patterns += [("--tolerance-per-layer", pattern) for pattern, _ in options.tolerance_per_layer]
    for option, pattern in patterns:
        (glob,) = judge.matcher([pattern])
        if not any(glob.match(pair.name) or glob.match(pair.layer) for pair in pairs):
            raise UsageError(f"{option} {pattern!r} matches no tensor and no layer")


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """Every gate, in a fixed order."""
    tensors = evidence.tensors
    yield _structure(tensors)
    yield _nonfinite(tensors)
    yield from _changes(tensors, options)
    if options.min_sqnr is not None:
        yield _sqnr(tensors, options.min_sqnr)
    if options.max_size is not None:
        yield _size(evidence, options.max_size)
    for pattern in options.expect_unchanged:
        yield _frozen(tensors, pattern)


def _gate(gate: str, subject: str, scope: str, passed: bool, value: float | None, limit: float, detail: str | None) -> Finding:
    told = value if value is not None and isfinite(value) else None
    fields = {"gate": gate, "passed": passed, "value": told, "limit": limit, "detail": detail}
    return Finding(scope, subject, "measured", fields, "info" if passed else "critical")


def _structure(tensors: Sequence[Digest]) -> Finding:
    found = judge.structural(tensors)
    detail = f"{judge.listed([f'{t.name} {t.status}' for t in found])}" if found else "no tensor added, removed or reshaped"
    return _gate("structure", "model", "model", not found, float(len(found)), 0.0, detail)


def _nonfinite(tensors: Sequence[Digest]) -> Finding:
    found = judge.newly_nonfinite(tensors)
    count = sum(t.new_nonfinite - t.old_nonfinite for t in found)
    detail = f"new NaN or Inf in {judge.listed([t.name for t in found])}" if found else "no new NaN or Inf"
    return _gate("nonfinite", "model", "model", not found, float(count), 0.0, detail)


def _changes(tensors: Sequence[Digest], options: Options) -> Iterator[Finding]:
    """One gate a layer, and one for each tensor that a pattern names itself; the last pattern that matches counts."""
    rules = list(zip(judge.matcher([p for p, _ in options.tolerance_per_layer]), options.tolerance_per_layer, strict=True))
    for layer, members in judge.by_layer(tensors).items():
        limit = next((value for glob, (_, value) in reversed(rules) if glob.match(layer)), options.tolerance)
        yield _change("layer_change", layer, "layer", members, limit)
    for tensor in judge.compared(tensors):
        own = next((value for glob, (_, value) in reversed(rules) if glob.match(tensor.name)), None)
        if own is not None and tensor.name != tensor.layer:
            yield _change("tensor_change", tensor.name, "tensor", [tensor], own)


def _change(gate: str, subject: str, scope: str, members: Sequence[Digest], limit: float) -> Finding:
    value, limit = judge.relative(members), judge.limit_of(members, limit)
    passed = value is not None and value <= limit
    return _gate(gate, subject, scope, passed, value, limit, None if passed else "relative_l2 beyond the limit")


def _sqnr(tensors: Sequence[Digest], limit: float) -> Finding:
    changed = [t for t in judge.compared(tensors) if t.delta_squares > 0]
    if not changed:
        return _gate("sqnr", "model", "model", True, None, limit, "no tensor changed")
    worst = min(changed, key=judge.sqnr_db)
    value = judge.sqnr_db(worst)
    return _gate("sqnr", "model", "model", value >= limit, value, limit, f"lowest SQNR in dB, of {worst.name}")


def _size(evidence: ModelEvidence, limit: int) -> Finding:
    stored = sum(entry.stored_nbytes for entry in evidence.run.new.tensors)
    return _gate("size", "model", "model", stored <= limit, float(stored), float(limit), "bytes of the new tensors as stored")


def _frozen(tensors: Sequence[Digest], pattern: str) -> Finding:
    (glob,) = judge.matcher([pattern])
    matched = [t for t in tensors if glob.match(t.name) or glob.match(t.layer)]
    moved = [t for t in matched if t.status not in ("unchanged", "retyped")]
    names = [f"{t.name} {t.status}" for t in moved]
    detail = judge.listed(names) if moved else f"{len(matched)} tensors unchanged"
    return _gate("frozen", pattern, "model", not moved, float(len(moved)), 0.0, detail)
