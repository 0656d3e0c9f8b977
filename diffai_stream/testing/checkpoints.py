"""Small checkpoints that the contracts run on, and how to let a row take part that is not installed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffai_stream.plugins import Catalogue, Row

Arrays = Mapping[str, NDArray[Any]]
R = TypeVar("R", bound=Row)
HOSTILE_NAMES = (
    "\x1b[31mred",
    "a\nb\r\tc",
    "<script>alert(1)</script>",
    "[bold]x[/bold]",
    "\u202eevil",
    "名前.重み",
    "\x07|\x00'\"&",
    "",
)


@contextmanager
def taking_part(catalogue: Catalogue[R], row: R) -> Iterator[None]:
    """Let a row be found by its name, whether its package is installed or only being worked on."""
    if row.name in catalogue.complete():
        yield
        return
    catalogue[row.name] = row
    try:
        yield
    finally:
        del catalogue[row.name]


def write_arrays(path: Path, arrays: Arrays) -> Path:
    """A safetensors file."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def transformer(width: int, layers: int = 2, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A healthy Llama in float32 with four heads."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        by_row = np.exp(random.normal(0, 0.15, (rows, 1)))
        return (0.045 * by_row * random.normal(size=(rows, columns))).astype(np.float32)

    model = {"model.embed_tokens.weight": matrix(4 * width, width)}
    for layer in range(layers):
        block = f"model.layers.{layer}."
        model |= {f"{block}self_attn.{part}_proj.weight": matrix(width, width) for part in "qkvo"}
        model |= {f"{block}mlp.{part}_proj.weight": matrix(2 * width, width) for part in ("gate", "up")}
        model[f"{block}mlp.down_proj.weight"] = matrix(width, 2 * width)
        norms = ("input_layernorm", "post_attention_layernorm")
        model |= {f"{block}{norm}.weight": 1 + random.normal(0, 0.05, width).astype(np.float32) for norm in norms}
    model["model.norm.weight"] = 1 + random.normal(0, 0.05, width).astype(np.float32)
    return {name: array.astype(np.float32) for name, array in model.items()}


def write_model(folder: Path, model: Arrays, heads: int = 4) -> Path:
    """A Hugging Face directory: weights and config.json."""
    write_arrays(folder / "model.safetensors", model)
    config = {"model_type": "llama", "num_attention_heads": heads, "num_key_value_heads": heads, "learning_rate": 1e-4}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tuned(model: Arrays, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The model after some steps of training: every matrix has moved a little."""
    random = np.random.default_rng(100 + seed)
    moved = {name: (array + 0.002 * random.normal(size=array.shape)).astype(np.float32) for name, array in model.items()}
    return {name: moved[name] if array.ndim == 2 else np.asarray(array, np.float32) for name, array in model.items()}


def write_pair(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """A base and a fine-tune of it; another seed gives another width and other weights."""
    base = transformer(32 * (1 + seed), seed=seed)
    return write_model(folder / "old", base), write_model(folder / "new", tuned(base, seed))


def write_hostile_pair(folder: Path) -> tuple[Path, Path]:
    """A pair whose names are meant to break outputs, with numbers that JSON does not have, lone tensors, an empty one."""
    random = np.random.default_rng(0)
    old: dict[str, NDArray[np.float32]] = {name: random.normal(size=(3, 4)).astype(np.float32) for name in HOSTILE_NAMES}
    new = {name: array + np.float32(0.5) for name, array in old.items()}
    new["<script>alert(1)</script>"][0, :3] = (np.nan, np.inf, -np.inf)
    old |= {"only old": np.ones(3, np.float32), "empty": np.zeros((0, 4), np.float32), "reshaped": np.ones((2, 3), np.float32)}
    new |= {"only new": np.ones(3, np.float32), "empty": np.zeros((0, 4), np.float32), "reshaped": np.ones(7, np.float32)}
    return write_arrays(folder / "old.safetensors", old), write_arrays(folder / "new.safetensors", new)
