"""Where the heads of a layer lie: how many there are, how large they are, and which rows or columns of which tensor they own.

Counts come from `config.json`, from the metadata of the file (GGUF), or from shapes where the norm of a head tells its size.
Facts: Linear weights are [out, in], Conv1D (GPT-2) and `kernel` (Keras, Flax) [in, out]; one projection for q, k and v holds
them as blocks (GPT-2, Phi-3, MPT, ViT), or by group of heads, q ... q k v (GPT-NeoX, Bloom, Falcon, InternLM2, Megatron).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diffai_stream.analyses.base import RunContext
from diffai_stream.context.base import Context
from diffai_stream.formats.base import Checkpoint
from diffai_stream.plan.pairs import TensorPair

SCOPES = {"attention": "self", "cross_attention": "cross", "context_attention": "context"}
LETTERS = "qkvo"
_BY_GROUP = re.compile(r"query_key_value|linear_qkv|(?<![^.])wqkv")
_BLOCKS_ALL_THE_SAME = ("chatglm",)
_IN_OUT = re.compile(r"(?:^|[./])(?:c_attn[./]weight|kernel)(?::0)?$")


class HeadsError(ValueError):
    """What is told about heads contradicts the shapes."""


class Told(NamedTuple):
    """What one side says of its heads, None where it says nothing, and where it says so."""

    heads: int | None
    kv_heads: int | None
    size: int | None
    source: str
    model_type: str


class Place(NamedTuple):
    """Which heads (numbers of runs of `size` rows, `axis` 0, or columns, 1) of a tensor belong to a projection."""

    tensor: str
    axis: int
    numbers: tuple[int, ...]


class LayerHeads(NamedTuple):
    """The heads of one attention of a layer; `places` by letter (q, k, v, o), those that are compared."""

    kind: str
    heads: int
    kv_heads: int
    size: int
    source: str
    places: Mapping[str, Place]


def told_by(checkpoint: Checkpoint, context: Context) -> Told:
    """What the configuration, or else the metadata, says of the heads."""
    heads = context.number("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads")
    kv_heads = context.number("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", "n_kv_heads")
    size = context.number("head_dim", "d_kv", "kv_channels", "attention_head_dim")
    if heads is not None and kv_heads is None and context.config.get("multi_query"):
        kv_heads = None if context.config.get("new_decoder_architecture") else 1
    kind = str(context.config.get("model_type") or _metadata(checkpoint, "general.architecture") or "")
    if heads or size:
        return Told(heads, kv_heads, size, "config.json", kind)
    heads, kv_heads, size = (
        _whole(_metadata(checkpoint, key))
        for key in (".attention.head_count", ".attention.head_count_kv", ".attention.key_length")
    )
    return Told(heads, kv_heads, size, "metadata" if heads or size else "", kind)


def _metadata(checkpoint: Checkpoint, ending: str) -> str:
    return next((value for key, value in checkpoint.metadata.items() if key.endswith(ending)), "")


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) > 0 else None


def layer_heads(pairs: Sequence[TensorPair], told: Sequence[Told]) -> list[LayerHeads | str]:
    """The heads of each attention of a layer, or why they are not known; empty for a layer without attention.

    Raises HeadsError where what is told contradicts the shapes.
    """
    found: list[LayerHeads | str] = []
    for scope, kind in SCOPES.items():
        by_role = {pair.role.removeprefix(f"{scope}."): pair for pair in pairs if pair.role.startswith(f"{scope}.")}
        if any(name in by_role for name in ("kv_b_proj", "kv_a_proj_with_mqa", "q_a_proj")):
            found.append("keys and values are compressed into a latent vector; they have no matrix of their own")
        elif by_role.keys() & {"q_proj", "k_proj", "v_proj", "qkv_proj"}:
            compared = {
                role: pair
                for role, pair in by_role.items()
                if role in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj") and _is_compared(pair)
            }
            norms = [pair for pair in pairs if pair.role in ("norm.q", "norm.k") and pair.old is not None]
            found.append(_of(kind, compared, norms, told))
    return found


def _is_compared(pair: TensorPair) -> bool:
    return pair.status == "paired" and pair.old is not None and len(pair.old.shape) == 2


def _of(kind: str, pairs: Mapping[str, TensorPair], norms: Sequence[TensorPair], told: Sequence[Told]) -> LayerHeads | str:
    """The heads of one attention, from its compared projections by role."""
    lengths = {role[0]: _length(pair, role) for role, pair in pairs.items() if role != "qkv_proj"}
    fused = pairs.get("qkv_proj")
    if not lengths.keys() & {"q", "k", "v"} and fused is None:
        return "no projection of queries, keys or values is a matrix on both sides"
    counts = _counts(lengths, fused, norms, told)
    if isinstance(counts, str):
        return counts
    heads, kv_heads, size, source = counts
    places: dict[str, Place] = {}
    for role, pair in pairs.items():
        if role == "qkv_proj":
            by_group = _groups(pair, told[0].model_type)
            axis = _fused_axis(pair, (heads + 2 * kv_heads) * size)
            for letter, numbers in zip("qkv", _cut(heads, kv_heads, by_group), strict=True):
                places[letter] = Place(pair.name, axis, numbers)
        else:
            count = kv_heads if role[0] in "kv" else heads
            places[role[0]] = Place(pair.name, _axis(pair, role, fused), tuple(range(count)))
    return LayerHeads(kind, heads, kv_heads, size, source, places)


def _axis(pair: TensorPair, role: str, fused: TensorPair | None = None) -> int:
    """0 when the heads are rows: outputs of q, k and v, inputs of o."""
    is_in_out = bool(_IN_OUT.search(pair.name)) or (fused is not None and bool(_IN_OUT.search(fused.name)))
    return int(is_in_out) if role != "o_proj" else int(not is_in_out)


def _length(pair: TensorPair, role: str) -> int:
    assert pair.old is not None
    return pair.old.shape[_axis(pair, role)]


def _fused_axis(pair: TensorPair, length: int) -> int:
    assert pair.old is not None
    axis = _axis(pair, "qkv_proj")
    if pair.old.shape[axis] == length:
        return axis
    if pair.old.shape[1 - axis] == length:
        return 1 - axis
    raise HeadsError(f"{pair.name} has the shape {list(pair.old.shape)}, and q, k and v of these heads need {length:,}")


def _groups(pair: TensorPair, model_type: str) -> bool:
    return bool(_BY_GROUP.search(pair.name)) and model_type not in _BLOCKS_ALL_THE_SAME


def _cut(heads: int, kv_heads: int, by_group: bool) -> tuple[tuple[int, ...], ...]:
    """The numbers of the heads of q, k and v in one projection."""
    if not by_group:
        ends = (0, heads, heads + kv_heads, heads + 2 * kv_heads)
        return tuple(tuple(range(ends[i], ends[i + 1])) for i in range(3))
    shared = heads // kv_heads
    group = range(0, kv_heads * (shared + 2), shared + 2)
    queries = tuple(start + i for start in group for i in range(shared))
    return queries, tuple(start + shared for start in group), tuple(start + shared + 1 for start in group)


def _counts(
    lengths: Mapping[str, int], fused: TensorPair | None, norms: Sequence[TensorPair], told: Sequence[Told]
) -> tuple[int, int, int, str] | str:
    """(heads, kv heads, size, source), or why they are not known."""
    sides = [side for side in told if side.heads or side.size]
    if len({(side.heads, side.kv_heads or side.heads) for side in sides if side.heads}) > 1:
        raise HeadsError("old and new say different numbers of attention heads while their weights have one shape")
    side = sides[0] if sides else None
    heads, kv_heads = (side.heads, side.kv_heads) if side else (None, None)
    size, source = (side.size if side else None), (side.source if side else "shapes")
    queries, keys = lengths.get("q", lengths.get("o")), lengths.get("k", lengths.get("v"))
    if fused is not None:
        return _fused_counts(fused, heads, kv_heads, size, source)
    if size is None and norms and norms[0].old is not None and queries and norms[0].old.shape[-1] < queries:
        size = norms[0].old.shape[-1]
    if size is None and heads is None:
        return "the number of attention heads is in no config.json, no metadata and no shape"
    if queries is None and keys is None:
        return "no projection of queries or keys is a matrix on both sides"
    size = size or _divided(queries, heads, "q_proj") or _divided(keys, kv_heads or heads, "k_proj")
    assert size is not None
    found = [_divided(length, size, letter) if length else None for letter, length in (("queries", queries), ("keys", keys))]
    _check(heads, found[0], "attention heads", size)
    _check(kv_heads, found[1], "key and value heads", size)
    of_queries = found[0] or heads
    of_keys = found[1] or kv_heads or of_queries
    if not of_queries or not of_keys or of_queries % of_keys:
        raise HeadsError(f"{of_queries} attention heads cannot share {of_keys} key and value heads")
    return of_queries, of_keys, size, source


def _fused_counts(
    fused: TensorPair, heads: int | None, kv_heads: int | None, size: int | None, source: str
) -> tuple[int, int, int, str] | str:
    assert fused.old is not None
    if not heads:
        return "the number of attention heads is in no config.json, no metadata and no shape"
    kv_heads = kv_heads or heads
    axis = _axis(fused, "qkv_proj")
    length = fused.old.shape[axis]
    found = size or _divided(length, heads + 2 * kv_heads, fused.name)
    if found is None or heads % kv_heads:
        raise HeadsError(f"{heads} attention heads cannot share {kv_heads} key and value heads")
    _fused_axis(fused, (heads + 2 * kv_heads) * found)
    return heads, kv_heads, found, source


def _divided(length: int | None, count: int | None, what: str) -> int | None:
    if not length or not count:
        return None
    if length % count:
        raise HeadsError(f"{length:,} rows of {what} do not divide into {count:,}")
    return length // count


def _check(told: int | None, found: int | None, what: str, size: int) -> None:
    if told and found and told != found:
        raise HeadsError(f"{told} {what} are told, and the shapes have {found} of {size}")


class Attentions(NamedTuple):
    """Every attention of a model by layer; what is not known and why; what contradicts itself, by layer."""

    known: Mapping[str, tuple[LayerHeads, ...]]
    unknown: Mapping[str, str]
    contradictions: Mapping[str, str]


def attentions(run: RunContext) -> Attentions:
    """The heads of all layers."""
    if "attentions" not in run.memo:
        run.memo["attentions"] = _attentions(run)
    return run.memo["attentions"]  # type: ignore[no-any-return]


def _attentions(run: RunContext) -> Attentions:
    told = [told_by(checkpoint, context) for checkpoint, context in zip((run.old, run.new), run.configurations, strict=True)]
    known: dict[str, tuple[LayerHeads, ...]] = {}
    unknown: dict[str, str] = {}
    contradictions: dict[str, str] = {}
    for layer, pairs in run.layers.items():
        try:
            found = layer_heads([pair for pair in pairs if pair.part == "weights"], told)
        except HeadsError as error:
            contradictions[layer] = str(error)
            continue
        if reasons := [heads for heads in found if isinstance(heads, str)]:
            unknown[layer] = reasons[0]
        if heads := tuple(heads for heads in found if isinstance(heads, LayerHeads)):
            known[layer] = heads
    return Attentions(known, unknown, contradictions)
