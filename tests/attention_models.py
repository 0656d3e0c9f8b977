"""Attention layers with heads that are known, in the layouts that models store them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors

HEADS, KV_HEADS, SIZE, WIDTH = 6, 2, 8, 40
CONFIG = {"model_type": "llama", "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": SIZE}
Model = dict[str, np.ndarray]


def attention(seed: int = 0, layers: int = 2, heads: int = HEADS, kv_heads: int = KV_HEADS) -> Model:
    """q, k, v and o of some layers, q and o with `heads` heads, k and v with `kv_heads`."""
    random = np.random.default_rng(seed)
    model = {}
    for layer in range(layers):
        for part, shape in (
            ("q", (heads * SIZE, WIDTH)),
            ("k", (kv_heads * SIZE, WIDTH)),
            ("v", (kv_heads * SIZE, WIDTH)),
            ("o", (WIDTH, heads * SIZE)),
        ):
            values = random.normal(size=shape) * np.exp(0.5 * random.normal(size=(shape[0], 1)))
            model[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = values.astype(np.float32)
    return model


def moved(model: Model, size: float = 0.2, seed: int = 1) -> Model:
    """The model after a random step."""
    random = np.random.default_rng(seed)
    return {name: (values + size * random.normal(size=values.shape)).astype(np.float32) for name, values in model.items()}


def head(model: Model, part: str, number: int, layer: int = 0, size: int = SIZE) -> np.ndarray:
    """float64[size, width]: the rows of a head, of o its columns."""
    values = model[f"model.layers.{layer}.self_attn.{part}_proj.weight"].astype(np.float64)
    return (values.T if part == "o" else values)[number * size : (number + 1) * size]


def run(folder: Path, old: Model, new: Model, *names: str, config: Any = CONFIG, **options: Any) -> list[dict[str, Any]]:
    """The records of the analyses named, skipped ones too."""
    for side, model in (("old", old), ("new", new)):
        write_safetensors(folder / side / "model.safetensors", model)
        told = config[side] if isinstance(config, dict) and side in config else config
        if told is not None:
            (folder / side / "config.json").write_text(json.dumps(told))
    records = list(compare(str(folder / "old"), str(folder / "new"), analyses=names, **options))
    return [r for r in records if r["type"] in names or (r["type"] == "skipped" and r["analysis"] in names)]
