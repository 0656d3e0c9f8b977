"""Write a seeded pair of checkpoints: a base with the shape of a known model, and a fine-tune of it.

    python bench/pair.py FOLDER [--shape llama-1b|llama-10gb|1mb|many|...] [--tensors N] [--identical] [--same]

Tensors are written piece by piece, so that the memory needed does not depend on the size of the pair.
The weights are normal with standard deviation 0.02, the update normal with 0.001: nearly every bf16 weight changes,
which is the slowest case of a comparison (equal bytes take a shorter road).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

HEADS = {"num_attention_heads": 32, "num_key_value_heads": 8}
CONFIG = {"model_type": "llama", "hidden_size": 2048, **HEADS, "rope_theta": 500_000.0}
PIECE = 1 << 22  # elements made at a time


def llama(layers: int, hidden: int, ffn: int, kv: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama checkpoint with tied embeddings, in the order Hugging Face writes them (by name)."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(layers):
        p = f"model.layers.{i}."
        shapes |= {
            p + "input_layernorm.weight": (hidden,),
            p + "mlp.down_proj.weight": (hidden, ffn),
            p + "mlp.gate_proj.weight": (ffn, hidden),
            p + "mlp.up_proj.weight": (ffn, hidden),
            p + "post_attention_layernorm.weight": (hidden,),
            p + "self_attn.k_proj.weight": (kv, hidden),
            p + "self_attn.o_proj.weight": (hidden, hidden),
            p + "self_attn.q_proj.weight": (hidden, hidden),
            p + "self_attn.v_proj.weight": (kv, hidden),
        }
    return shapes | {"model.norm.weight": (hidden,)}


SHAPES: dict[str, Callable[[int], dict[str, tuple[int, ...]]]] = {
    "llama-1b": lambda _: llama(16, 2048, 8192, 512, 128_256),  # 1.236e9 parameters, 2.47 GB in bf16
    "llama-1gb": lambda _: llama(4, 2048, 8192, 512, 128_256),  # the same layers, 4 of them
    "llama-10gb": lambda _: llama(78, 2048, 8192, 512, 128_256),  # the same layers, 78 of them: 10.0 GB
    "llama-20gb": lambda _: llama(160, 2048, 8192, 512, 128_256),  # 160 of them: 20.0 GB
    "llama-256mb": lambda _: llama(5, 1024, 4096, 256, 50_000),  # 254 MB in bf16
    "tiny": lambda _: llama(2, 64, 256, 32, 512),  # about 0.35 MB
    "tiny-deep": lambda _: llama(8, 64, 256, 32, 512),  # the same layers, 8 of them
    "1mb": lambda _: llama(2, 128, 384, 64, 512),  # about 1 MB
    "experts": lambda n: {f"experts.{i}.up_proj.weight": (2048, 7168) for i in range(n)},  # 29 MB each
    "many": lambda n: {f"blocks.{i // 10}.t{i % 10}.weight": (32, 64) for i in range(n)},  # 4 KB each
}


def to_bf16(x: np.ndarray) -> np.ndarray:
    """float32 to bfloat16 bit patterns, round to nearest even (finite values only)."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def pieces(numel: int, rng: np.random.Generator, identical: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """bf16 patterns of old and new, a piece at a time."""
    for start in range(0, numel, PIECE):
        n = min(PIECE, numel - start)
        old = rng.standard_normal(n, dtype=np.float32) * np.float32(0.02)
        bits = to_bf16(old)
        if identical:
            yield bits, bits
            continue
        new = (bits.astype(np.uint32) << 16).view(np.float32) + rng.standard_normal(n, dtype=np.float32) * np.float32(0.001)
        yield bits, to_bf16(new)


def header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The safetensors header of bf16 tensors laid out in the order given."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_pair(folder: Path, shape: str, tensors: int = 50_000, identical: bool = False, seed: int = 7) -> tuple[Path, Path]:
    """Write `old.safetensors` and `new.safetensors` into the folder, unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    old_path, new_path = folder / "old.safetensors", folder / "new.safetensors"
    if new_path.exists():
        return old_path, new_path
    shapes = SHAPES[shape](tensors)
    rng = np.random.default_rng(seed)
    partial = new_path.with_suffix(".partial")
    with old_path.open("wb") as old_file, partial.open("wb") as new_file:
        for file in (old_file, new_file):
            file.write(header(shapes))
        for dims in shapes.values():
            for old, new in pieces(int(np.prod(dims)), rng, identical):
                old_file.write(old.data)
                new_file.write(new.data)
    if shape.startswith("llama"):
        (folder / "config.json").write_text(json.dumps(CONFIG))
    partial.rename(new_path)
    return old_path, new_path


def write_same(folder: Path) -> Path:
    """Copy `old.safetensors` to `same.safetensors`: another file with the same bytes."""
    same = folder / "same.safetensors"
    if not same.exists():
        partial = same.with_suffix(".partial")
        shutil.copyfile(folder / "old.safetensors", partial)
        partial.rename(same)
    return same


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b")
    parser.add_argument("--tensors", type=int, default=50_000)
    parser.add_argument("--identical", action="store_true", help="the fine-tune is the base")
    parser.add_argument("--same", action="store_true", help="write a copy of the base as well")
    arguments = parser.parse_args()
    for path in write_pair(arguments.folder, arguments.shape, arguments.tensors, arguments.identical):
        print(path)
    if arguments.same:
        print(write_same(arguments.folder))
