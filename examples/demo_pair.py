"""Make a pair to play with: a small Llama-shaped base and a fine-tune of it, with two faults planted.

    python examples/demo_pair.py FOLDER

Writes FOLDER/base and FOLDER/finetuned as Hugging Face does: three safetensors shards, their index and config.json, about
60 MB a side in bfloat16, the same bytes each time. Needs numpy only.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, VOCAB = 12, 384, 1024, 6, 2, 32_000
KV = KV_HEADS * HIDDEN // HEADS
SHARDS = 3
SEED = 11


class Role(NamedTuple):
    """Trained weights drift with depth, each role its own way, and an update reaches some more than others."""

    shape: tuple[int, int]
    first_std: float
    last_std: float
    moves: float  # change relative to the mean of the block


ROLES = {
    "mlp.down_proj": Role((HIDDEN, FFN), 0.017, 0.026, 1.1),
    "mlp.gate_proj": Role((FFN, HIDDEN), 0.031, 0.024, 0.9),
    "mlp.up_proj": Role((FFN, HIDDEN), 0.023, 0.028, 1.0),
    "self_attn.k_proj": Role((KV, HIDDEN), 0.078, 0.057, 0.6),
    "self_attn.o_proj": Role((HIDDEN, HIDDEN), 0.016, 0.029, 1.2),
    "self_attn.q_proj": Role((HIDDEN, HIDDEN), 0.055, 0.041, 0.7),
    "self_attn.v_proj": Role((KV, HIDDEN), 0.018, 0.034, 1.4),
}
NORM_MOVES = 0.1
NORMS = {"input_layernorm": (0.62, 1.18), "post_attention_layernorm": (0.71, 1.27)}
EMBEDDING = "model.embed_tokens.weight"
FIRST_CHANGE, LAST_CHANGE = 0.004, 0.03  # relative change of the first and of the last block

NAN_TENSOR, NAN_PLACE = "model.layers.7.mlp.up_proj.weight", (300, 41)
EXPLODED_LAYER, FACTOR = "model.layers.4", 64.0

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCAB,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}

Tensors = Iterator[tuple[str, np.ndarray]]


def random(name: str, purpose: str) -> np.random.Generator:
    """Numbers that depend on what they are for, not on what was drawn before."""
    return np.random.default_rng([SEED, zlib.crc32(f"{name}/{purpose}".encode())])


def scales(normal: np.ndarray) -> np.ndarray:
    """Log-normal factors; exp in float64, because in float32 its last bit depends on the CPU."""
    return np.exp(normal.astype(np.float64)).astype(np.float32)


def matrix(name: str, shape: tuple[int, int], std: float) -> np.ndarray:
    """Trained-looking weights: rows and columns have scales of their own, which makes heavier tails than a normal law."""
    rng = random(name, "base")
    rows = scales(0.25 * rng.standard_normal((shape[0], 1), dtype=np.float32))
    columns = scales(0.15 * rng.standard_normal((1, shape[1]), dtype=np.float32))
    weights: np.ndarray = rng.standard_normal(shape, dtype=np.float32) * rows * columns
    weights *= np.float32(std / weights.std(dtype=np.float64))
    return weights


def norm(name: str, mean: float) -> np.ndarray:
    return np.float32(mean) + np.float32(0.06) * random(name, "base").standard_normal(HIDDEN, dtype=np.float32)


def base() -> Tensors:
    """The base model, a tensor at a time, in the order of its file."""
    yield EMBEDDING, matrix(EMBEDDING, (VOCAB, HIDDEN), 0.014)
    for block in range(LAYERS):
        depth = block / (LAYERS - 1)
        prefix = f"model.layers.{block}."
        for name, (first, last) in NORMS.items():
            yield f"{prefix}{name}.weight", norm(prefix + name, first + depth * (last - first))
        for name, role in ROLES.items():
            std = role.first_std * (role.last_std / role.first_std) ** depth
            yield f"{prefix}{name}.weight", matrix(prefix + name, role.shape, std)
    yield "model.norm.weight", norm("model.norm", 1.9)


def finetuned(tensors: Tensors) -> Tensors:
    """The fine-tune: embeddings frozen, later blocks moved more, and the two faults."""
    for name, old in tensors:
        new = old if name == EMBEDDING else moved(name, old)
        if name.startswith(EXPLODED_LAYER + ".") and new.ndim == 2:
            new = new * np.float32(FACTOR)
        if name == NAN_TENSOR:
            new[NAN_PLACE] = np.nan
        yield name, new


def moved(name: str, old: np.ndarray) -> np.ndarray:
    """The weights after an update whose size grows with depth."""
    parts = name.split(".")
    depth = int(parts[2]) / (LAYERS - 1) if parts[1] == "layers" else 1.0
    role = ROLES.get(".".join(parts[3:5]))
    change = FIRST_CHANGE * (LAST_CHANGE / FIRST_CHANGE) ** depth * (role.moves if role else NORM_MOVES)
    rms = float(np.sqrt(np.mean(np.square(old), dtype=np.float64)))
    new: np.ndarray = old + np.float32(change * rms) * random(name, "update").standard_normal(old.shape, dtype=np.float32)
    return new


def to_bf16(values: np.ndarray) -> bytes:
    """bfloat16 bytes, rounded to nearest even; a NaN stays one."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()


def write_shard(path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> None:
    """A safetensors file: length of the header, header, bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, data) in tensors.items():
        start, end = end, end + len(data)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, data in tensors.values()))


def write_model(folder: Path, tensors: Tensors) -> None:
    """Shards of about equal size, their index, and the config."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: (values.shape, to_bf16(values)) for name, values in tensors}
    total = sum(len(data) for _, data in stored.values())
    weight_map, seen = {}, 0
    shards: list[dict[str, tuple[tuple[int, ...], bytes]]] = [{} for _ in range(SHARDS)]
    for name, (shape, data) in stored.items():
        number = min(SHARDS - 1, seen * SHARDS // total)
        shards[number][name] = shape, data
        weight_map[name] = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        seen += len(data)
    for number, shard in enumerate(shards, 1):
        write_shard(folder / f"model-{number:05}-of-{SHARDS:05}.safetensors", shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))


def make_demo(folder: Path) -> list[str]:
    """Write both models; returns what was planted, a line each."""
    write_model(folder / "base", base())
    write_model(folder / "finetuned", finetuned(base()))
    return [
        f"one NaN in {NAN_TENSOR} at {list(NAN_PLACE)}",
        f"every matrix of {EXPLODED_LAYER} multiplied by {FACTOR:g}",
        f"{EMBEDDING} frozen; the blocks changed by about {FIRST_CHANGE:.1%} (first) to {LAST_CHANGE:.0%} (last)",
    ]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/demo_pair.py FOLDER")
    folder = Path(sys.argv[1])
    planted = make_demo(folder)
    print(f"{folder / 'base'} and {folder / 'finetuned'} are written. Planted in the fine-tune:")
    for line in planted:
        print(f"  - {line}")


if __name__ == "__main__":
    main()
