"""Pairs of checkpoints on disk, and their records as those of addresses."""

import json

import numpy as np

from diffai_stream import compare
from tests.checkpoints import write_safetensors, write_sharded

COSTS = ("run_id", "plan", "elapsed_seconds", "peak_memory_nbytes")


def write_pair(folder):
    """Two files: a tensor of many chunks, many small ones, a renamed one."""
    random = np.random.default_rng(7)
    values = {"embed.weight": random.standard_normal((900, 700)).astype(np.float32)}
    values |= {f"layers.{n}.norm.weight": random.standard_normal(300).astype(np.float16) for n in range(40)}
    changed = {name: value + value.dtype.type(0.01) if "3" in name else value for name, value in values.items()}
    changed["embed.weight"] = values["embed.weight"] * 1.5
    renamed = random.standard_normal((64, 200)).astype(np.float32)
    paths = [folder / name for name in ("old.safetensors", "new.safetensors")]
    for path, tensors in zip(paths, (values | {"once": renamed}, changed | {"now": renamed}), strict=True):
        write_safetensors(path, tensors, {"format": "pt"})
    return paths


def write_folders(folder):
    """Two Hugging Face folders: shards under an index, tied weights, copies that are not read; the new one is one file."""
    random = np.random.default_rng(8)
    names = [f"model.layers.{n}.self_attn.{part}_proj.weight" for n in range(4) for part in "qkv"]
    values = {name: random.standard_normal((32, 32)).astype(np.float32) for name in names}
    values["model.embed_tokens.weight"] = random.standard_normal((50, 32)).astype(np.float32)
    shards = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    parts = {shard: {n: v for k, (n, v) in enumerate(values.items()) if k % 3 == i} for i, shard in enumerate(shards)}
    old, new = write_sharded(folder / "old", parts), folder / "new"
    write_safetensors(new / "model.safetensors", {name: value * 1.01 for name, value in values.items()}, {"format": "pt"})
    for path in (old, new):
        config = {"model_type": "llama", "tie_word_embeddings": True, "num_attention_heads": 4, "hidden_size": 32}
        (path / "config.json").write_text(json.dumps(config))
        (path / "vocab.json").write_text(json.dumps({f"word{n}": n for n in range(50)}))
    (old / "README.md").write_text("a model")
    return [old, new]


def records(*paths, **options):
    """All records, less what depends on the run alone."""
    found = compare(*map(str, paths), **{"workers": 2, "chunk_size": 1 << 16} | options)
    return json.loads(json.dumps([{name: value for name, value in record.items() if name not in COSTS} for record in found]))


def moved(found, paths, addresses):
    """Records of local files as those of addresses."""
    text = json.dumps(found)
    for path, address in zip(paths, addresses, strict=True):
        text = text.replace(str(path), address)
    return json.loads(text)
