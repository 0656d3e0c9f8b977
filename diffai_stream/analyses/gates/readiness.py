"""deployment_readiness: a check list for rolling the new checkpoint out, and the cautious way to do it.

strategy: `none` when nothing changed; `hold` while a blocking check fails; `shadow` when another check fails; `direct` when all
pass and the model moved by no more than --tolerance; else `canary`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from diffai_stream.analyses.base import Finding, ModelEvidence
from diffai_stream.analyses.gates import judge
from diffai_stream.analyses.structure.speed import load_of
from diffai_stream.options import Options

INTERFACE = ("embedding", "lm_head", "classifier", "patch_embedding", "position_embedding")
SPEED_BUDGET = 1.1
CONFIG_KEYS = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size", "model_type")


class Line(NamedTuple):
    """One check: passed is None when it cannot be told."""

    check: str
    passed: bool | None
    detail: str
    blocks: bool = True


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """One record."""
    lines = [line for line in _lines(evidence, options) if line is not None]
    told = [line for line in lines if line.passed is not None]
    passed = sum(bool(line.passed) for line in told)
    blocking = [line.check for line in told if not line.passed and line.blocks]
    value = judge.relative(judge.compared(evidence.tensors))
    is_same = value == 0 and not judge.structural(evidence.tensors)
    strategy = _strategy(is_same, bool(blocking), passed == len(told), value is not None and value <= options.tolerance)
    fields = {
        "checks": [{"check": line.check, "passed": line.passed, "detail": line.detail} for line in lines],
        "passed_count": passed,
        "total_count": len(told),
        "readiness": passed / len(told) if told else None,
        "blocking": blocking,
        "strategy": strategy,
    }
    yield Finding("model", "model", "derived", fields, "critical" if blocking else "warning" if passed < len(told) else "info")


def _strategy(is_same: bool, is_blocked: bool, all_passed: bool, is_small: bool) -> str:
    if is_blocked:
        return "hold"
    if is_same:
        return "none"
    if not all_passed:
        return "shadow"
    return "direct" if is_small else "canary"


def _lines(evidence: ModelEvidence, options: Options) -> Iterator[Line | None]:
    bad = [t for t in evidence.tensors if t.new_nonfinite]
    yield Line("finite", not bad, f"NaN or Inf in {judge.listed([t.name for t in bad])}" if bad else "every value is finite")
    yield _interface(evidence)
    yield _tokenizer(evidence)
    yield _config(evidence)
    if options.max_size is not None:
        stored = sum(entry.stored_nbytes for entry in evidence.run.new.tensors)
        yield Line("size", stored <= options.max_size, f"{stored} bytes stored, {options.max_size} allowed")
    yield _speed(evidence)
    gates = evidence.findings.get("regression_test")
    if gates:
        failed = [f"{f.fields['gate']} {f.subject}" for f in gates if not f.fields["passed"]]
        yield Line("gates", not failed, judge.listed(failed) if failed else f"all {len(gates)} gates passed")
    critical = judge.anomalies(evidence, "critical")
    names = [f"{f.fields['kind']} in {f.subject}" for f in critical]
    yield Line("anomalies", not critical, judge.listed(names) if critical else "no critical anomaly")


def _speed(evidence: ModelEvidence) -> Line:
    """A token of new costs no more bytes and operations than SPEED_BUDGET times one of old."""
    run = evidence.run
    old, new = (load_of(c, context, run.model_type) for c, context in zip((run.old, run.new), run.configurations, strict=True))
    if not (old.nbytes and old.flops):
        return Line("speed", None, "old reads nothing for a token", blocks=False)
    worst = max(new.nbytes / old.nbytes, new.flops / old.flops)
    return Line("speed", worst <= SPEED_BUDGET, f"a token costs {worst:.3g} times that of old at most", blocks=False)


def _interface(evidence: ModelEvidence) -> Line:
    """Same inputs and outputs: no table or head of another shape, none added or removed."""
    found = [t for t in judge.structural(evidence.tensors) if t.role in INTERFACE]
    detail = judge.listed([f"{t.name} {t.status}" for t in found]) if found else "inputs and outputs have the same shapes"
    return Line("interface", not found, detail)


def _tokenizer(evidence: ModelEvidence) -> Line:
    old, new = (context.tokenizer for context in evidence.run.contexts)
    if old is None or new is None:
        return Line("tokenizer", None, "no tokenizer beside " + ("either checkpoint" if old is new else "one of them"))
    count = sum(a != b for a, b in zip(old.tokens, new.tokens, strict=False)) + abs(len(old.tokens) - len(new.tokens))
    return Line("tokenizer", count == 0, f"{count} tokens differ" if count else f"all {len(new.tokens)} tokens are the same")


def _config(evidence: ModelEvidence) -> Line:
    old, new = (context.config for context in evidence.run.contexts)
    if not old or not new:
        return Line("config", None, "no config.json beside " + ("either checkpoint" if not old and not new else "one of them"))
    found = [f"{key}: {old.get(key)!r} to {new.get(key)!r}" for key in CONFIG_KEYS if old.get(key) != new.get(key)]
    return Line("config", not found, "; ".join(found)[:300] if found else "the configurations agree", blocks=False)
