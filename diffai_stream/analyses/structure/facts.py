"""The facts of one checkpoint that its cost and its heads follow from, each from the best source there is.

Order of sources: `config.json`, the metadata of the file (GGUF), then shapes and names. A fact that none of them tells is None.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from diffai_stream.analyses.base import RunContext
from diffai_stream.context.base import Context
from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.options import Options
from diffai_stream.plan.naming import place, place_in
from diffai_stream.plan.parts import WEIGHTS

Placed = tuple[str, str, TensorEntry]  # layer, role, entry
_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")


class Facts(NamedTuple):
    """`heads` and what follows are those of attention; `active_experts` of `experts` are used for a token."""

    family: str
    evidence: tuple[str, ...]
    depth: int
    width: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    vocabulary: int | None
    experts: int | None
    active_experts: int | None


def placed(checkpoint: Checkpoint, model_type: str = "") -> list[Placed]:
    """The weights of a checkpoint with their places, in the names of a family where that is told."""
    weights = [entry for entry in checkpoint.tensors if entry.part == WEIGHTS]
    return [(*(place_in(entry.name, model_type) if model_type else place(entry.name)), entry) for entry in weights]


def facts_of(checkpoint: Checkpoint, context: Context, rows: Iterable[Placed] | None = None) -> Facts:
    """The facts of a checkpoint; `rows` are its placed weights where they are at hand."""
    tensors = list(rows) if rows is not None else placed(checkpoint)
    roles = Counter(role for _, role, _ in tensors)
    family, evidence = family_of(roles)
    embedding = next((e for _, role, e in tensors if role == "embedding" and len(e.shape) == 2), None)
    query = next((e for _, role, e in tensors if role == "attention.q_proj" and len(e.shape) == 2), None)
    width = context.number("hidden_size", "n_embd", "d_model", "dim") or _told(checkpoint, ".embedding_length")
    heads = context.number("num_attention_heads", "n_head", "num_heads") or _told(checkpoint, ".attention.head_count")
    kv_heads = context.number("num_key_value_heads", "n_head_kv") or _told(checkpoint, ".attention.head_count_kv")
    return Facts(
        family,
        evidence,
        depth_of(tensors),
        width or (embedding.shape[1] if embedding is not None else None),
        heads,
        kv_heads or heads,
        _head_dim(checkpoint, context, tensors, query, heads),
        embedding.shape[0] if embedding is not None else context.number("vocab_size"),
        context.number("num_local_experts", "num_experts", "n_routed_experts") or _told(checkpoint, ".expert_count"),
        context.number("num_experts_per_tok", "num_experts_per_token") or _told(checkpoint, ".expert_used_count"),
    )


def needs_agreement(name: str, run: RunContext, options: Options) -> Callable[[Any], tuple[Any, ...]]:
    """No statistics. Raises UsageError where the analysis was asked for by name and a configuration contradicts the shapes."""
    if name in options.analyses and not options.all_analyses:
        for checkpoint, context in zip((run.old, run.new), run.configurations, strict=True):
            told = contradiction(context, placed(checkpoint, run.model_type))
            if told:
                raise UsageError(
                    f"--{name.replace('_', '-')}: {checkpoint.path}: {told}; put the right config.json there, or none"
                )
    return lambda pair: ()


def contradiction(context: Context, rows: Sequence[Placed]) -> str | None:
    """What config.json says that the shapes deny; a single shard may hold fewer layers, never more."""
    embedding = next((e for _, role, e in rows if role == "embedding" and len(e.shape) == 2), None)
    width, depth = context.number("hidden_size", "n_embd", "d_model"), context.number("num_hidden_layers", "n_layer")
    is_factorised = context.number("embedding_size", "word_embed_proj_dim", "d_embed") is not None
    if embedding is not None and width and not is_factorised and width not in embedding.shape:
        return f"config.json says a width of {width:,}, and {embedding.name} has the shape {list(embedding.shape)}"
    decoder = family_of(Counter(role for _, role, _ in rows))[0] == "transformer_decoder"
    found = depth_of(rows)
    if decoder and depth and found > depth:
        return f"config.json says {depth:,} layers, and there are {found:,}"
    return None


def _told(checkpoint: Checkpoint, ending: str) -> int | None:
    """A whole number of the file's metadata, by the end of its key."""
    found = next((value for key, value in checkpoint.metadata.items() if key.endswith(ending)), "")
    return int(found) if found.isdecimal() else None


def _head_dim(
    checkpoint: Checkpoint, context: Context, tensors: list[Placed], query: TensorEntry | None, heads: int | None
) -> int | None:
    told = context.number("head_dim") or _told(checkpoint, ".attention.key_length")
    if told:
        return told
    norm = next((e for _, role, e in tensors if role == "norm.q" and len(e.shape) == 1), None)
    if norm is not None and query is not None and norm.shape[0] < query.shape[0]:
        return norm.shape[0]
    return query.shape[0] // heads if query is not None and heads and query.shape[0] % heads == 0 else None


def depth_of(tensors: Iterable[Placed]) -> int:
    """Layers of the longest stack: blocks that differ in their number alone."""
    stacks: dict[str, set[str]] = {}
    for layer, _, _ in tensors:
        if _INDEX.search(layer):
            stacks.setdefault(_INDEX.sub("*", layer), set()).add(layer)
    return max((len(layers) for layers in stacks.values()), default=0)


def family_of(roles: Mapping[str, int]) -> tuple[str, tuple[str, ...]]:
    """The family of a model by the roles of its tensors, and the roles that say so."""
    kinds = Counter[str]()
    for role, count in roles.items():
        kinds[role.split(".")[0]] += count
    attention, convolution = kinds["attention"], kinds["conv"] + kinds["downsample"]
    most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:4]
    seen = tuple(f"{count} tensors of role {kind}" for kind, count in most)
    if kinds["experts"]:
        return "mixture_of_experts", (f"{kinds['experts']} tensors of experts", *seen)
    if kinds["time_embedding"] and convolution:
        return "diffusion_unet", seen
    if kinds["time_embedding"] or kinds["modulation"]:
        return "diffusion_transformer", seen
    if kinds["cross_attention"]:
        return "transformer_encoder_decoder", (f"{kinds['cross_attention']} tensors of cross attention", *seen)
    if attention and (kinds["token_type_embedding"] or kinds["pooler"] or kinds["class_embedding"] or kinds["patch_embedding"]):
        return "transformer_encoder", seen
    if attention:
        return "transformer_decoder", seen
    if kinds["ssm"]:
        return "state_space", seen
    if any(kind in role for role in roles for kind in ("lstm", "gru", "rnn", "weight_hh")):
        return "rnn", seen
    return ("cnn" if convolution else "mlp" if kinds else "unknown"), seen
