"""Write a pair of mixture-of-experts checkpoints of 1.3 TB a side whose data are holes: real headers that take no disk.

    python bench/moe_pair.py FOLDER [--layers N] [--experts N]

Names and shapes follow from the public configuration of DeepSeek-V3, in bfloat16 and without the layer for predicting several
tokens, which inference leaves out: 671 billion parameters in 163 shards, as published.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]


class Config(NamedTuple):
    """https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json, by the names it has there."""

    hidden_size: int = 7168
    num_hidden_layers: int = 61
    first_k_dense_replace: int = 3
    intermediate_size: int = 18_432
    moe_intermediate_size: int = 2048
    n_routed_experts: int = 256
    n_shared_experts: int = 1
    num_attention_heads: int = 128
    q_lora_rank: int = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    vocab_size: int = 129_280


SHARDS = 163
BIAS = "e_score_correction_bias"  # the one tensor in float32


def shapes(config: Config) -> Shapes:
    """Names and shapes of all tensors, layer by layer."""
    found: Shapes = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    for layer in range(config.num_hidden_layers):
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer(config, layer)}
    return found | {"model.norm.weight": (config.hidden_size,), "lm_head.weight": (config.vocab_size, config.hidden_size)}


def _layer(config: Config, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _attention(config)
    if layer < config.first_k_dense_replace:
        yield from _gated("mlp", config.hidden_size, config.intermediate_size)
    else:
        yield "mlp.gate.weight", (config.n_routed_experts, config.hidden_size)
        yield f"mlp.gate.{BIAS}", (config.n_routed_experts,)
        for expert in range(config.n_routed_experts):
            yield from _gated(f"mlp.experts.{expert}", config.hidden_size, config.moe_intermediate_size)
        yield from _gated("mlp.shared_experts", config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)
    yield "input_layernorm.weight", (config.hidden_size,)
    yield "post_attention_layernorm.weight", (config.hidden_size,)


def _attention(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Multi-head latent attention: queries, keys and values through matrices of low rank."""
    heads, nope, rope = config.num_attention_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
    yield "self_attn.q_a_proj.weight", (config.q_lora_rank, config.hidden_size)
    yield "self_attn.q_a_layernorm.weight", (config.q_lora_rank,)
    yield "self_attn.q_b_proj.weight", (heads * (nope + rope), config.q_lora_rank)
    yield "self_attn.kv_a_proj_with_mqa.weight", (config.kv_lora_rank + rope, config.hidden_size)
    yield "self_attn.kv_a_layernorm.weight", (config.kv_lora_rank,)
    yield "self_attn.kv_b_proj.weight", (heads * (nope + config.v_head_dim), config.kv_lora_rank)
    yield "self_attn.o_proj.weight", (config.hidden_size, heads * config.v_head_dim)


def _gated(prefix: str, hidden: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.gate_proj.weight", (inner, hidden)
    yield f"{prefix}.up_proj.weight", (inner, hidden)
    yield f"{prefix}.down_proj.weight", (hidden, inner)


def write_side(folder: Path, tensors: Shapes, shards: int = SHARDS) -> Path:
    """A directory of shards of about the same size, and its index."""
    folder.mkdir(parents=True)
    total = sum(map(_nbytes, tensors.items()))
    parts: list[Shapes] = [{} for _ in range(shards)]
    place = 0
    for tensor in tensors.items():
        parts[place * shards // total][tensor[0]] = tensor[1]
        place += _nbytes(tensor)
    parts = [part for part in parts if part]
    weight_map = {}
    for number, part in enumerate(parts):
        name = f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        _write_shard(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _nbytes(tensor: tuple[str, tuple[int, ...]]) -> int:
    return prod(tensor[1]) * (4 if tensor[0].endswith(BIAS) else 2)


def _write_shard(path: Path, tensors: Shapes) -> None:
    table, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + _nbytes((name, shape))
        table[name] = {"dtype": "F32" if name.endswith(BIAS) else "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_pair(folder: Path, config: Config = Config()) -> tuple[Path, Path]:  # noqa: B008 - it is immutable
    """`old` and `new` in the folder."""
    tensors = shapes(config)
    return write_side(folder / "old", tensors), write_side(folder / "new", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=Config().num_hidden_layers)
    parser.add_argument("--experts", type=int, default=Config().n_routed_experts)
    arguments = parser.parse_args()
    config = Config(num_hidden_layers=arguments.layers, n_routed_experts=arguments.experts)
    for path in write_pair(arguments.folder, config):
        print(path)
