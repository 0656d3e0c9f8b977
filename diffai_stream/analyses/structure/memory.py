"""memory_analysis: what the weights take where they are stored, by layer, encoding and role, and what follows from that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from diffai_stream.analyses.base import Finding, LayerEvidence, ModelEvidence, RunContext
from diffai_stream.analyses.structure.facts import Facts, facts_of, needs_agreement, placed
from diffai_stream.options import Options

CACHE_ITEM_NBYTES = 2  # keys and values are kept in 16 bits
ADAM_NBYTES = 8


def needs_in(run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """No statistics; a configuration against the shapes ends here."""
    return needs_agreement("memory_analysis", run, options)


def layer(evidence: LayerEvidence, options: Options) -> Iterator[Finding]:
    """The bytes of one layer."""
    names = {tensor.name for tensor in evidence.tensors}
    pairs = [pair for pair in evidence.run.layers[evidence.name] if pair.name in names]
    sizes = [sum(getattr(pair, side).stored_nbytes for pair in pairs if getattr(pair, side)) for side in ("old", "new")]
    yield Finding("layer", evidence.name, "measured", _sizes(*sizes))


def _sizes(old: int, new: int) -> dict[str, Any]:
    return {"old_nbytes": old, "new_nbytes": new, "ratio": new / old if old else None}


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding]:
    """The bytes of the model, by encoding and by role; the KV cache where the heads are known."""
    checkpoints = evidence.run.old, evidence.run.new
    rows = [placed(checkpoint, evidence.run.model_type) for checkpoint in checkpoints]
    facts = [facts_of(c, context, r) for c, context, r in zip(checkpoints, evidence.run.contexts, rows, strict=True)]
    encodings, roles = (
        [Counter[str](), Counter[str]()],
        [Counter[str](), Counter[str]()],
    )
    for side, tensors in enumerate(rows):
        for _, role, entry in tensors:
            encodings[side][entry.encoding] += entry.stored_nbytes
            roles[side][role] += entry.stored_nbytes
    sizes = [sum(counts.values()) for counts in encodings]
    numels = [sum(entry.numel for _, _, entry in tensors) for tensors in rows]
    fields = {
        **_sizes(sizes[0], sizes[1]),
        "encodings": [{"encoding": name, **_both(encodings, name)} for name in sorted({*encodings[0], *encodings[1]})],
        "roles": [{"role": name, **_both(roles, name)} for name in sorted({*roles[0], *roles[1]})],
        "old_kv_cache_nbytes_per_token": kv_cache_nbytes(facts[0]),
        "new_kv_cache_nbytes_per_token": kv_cache_nbytes(facts[1]),
        "old_adam_nbytes": ADAM_NBYTES * numels[0],
        "new_adam_nbytes": ADAM_NBYTES * numels[1],
    }
    yield Finding("model", "model", "derived", fields)


def _both(counts: list[Counter[str]], name: str) -> dict[str, int]:
    return {"old_nbytes": counts[0][name], "new_nbytes": counts[1][name]}


def kv_cache_nbytes(facts: Facts) -> int | None:
    """Bytes of keys and values of one token over all layers; None where heads are unknown."""
    if not (facts.kv_heads and facts.head_dim and facts.depth):
        return None
    return 2 * facts.depth * facts.kv_heads * facts.head_dim * CACHE_ITEM_NBYTES
