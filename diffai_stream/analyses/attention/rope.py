"""Rotary position embedding: what turns the rows of a head, by how much, and inner products of rotated forms.

RoPE turns pairs of rows of a head by an angle that grows with the position, so that at distance r (the query r places after
the key) the form W_Qᵀ W_K becomes W_Qᵀ Rᵀ W_K with R the rotation by r·θ of each pair. As ⟨·,·⟩ of such forms only needs
products of rows, rotating those is enough. Facts: θ_i = base^(-2i/n) over the n rotated rows of a head (Su et al. 2021);
Hugging Face keeps the two halves of a head apart, GPT-J, Meta and GGUF files of Llama-like models keep pairs side by side;
Llama 3.1 slows long waves down (factor, low_freq_factor, high_freq_factor), linear scaling slows all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.context.base import NESTED, Context
from diffai_stream.formats.base import Checkpoint

DISTANCES = (1, 8, 64)
_INTERLEAVED = frozenset(
    ("gptj", "codegen", "cohere", "cohere2", "glm", "glm4", "chatglm", "ernie4_5", "llama4_text", "helium")
)
_ROTARY = frozenset(
    (
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "phi",
        "phi3",
        "gpt_neox",
        "gptj",
    )
)
_GGUF_INTERLEAVED = frozenset(
    (
        "llama",
        "llama4",
        "deci",
        "baichuan",
        "starcoder",
        "internlm2",
        "minicpm",
        "xverse",
        "command-r",
        "cohere2",
        "olmo",
        "arctic",
    )
) | {"deepseek", "chatglm", "granite", "granitemoe", "chameleon", "bailing", "smollm3", "mistral3"}
Angles = NDArray[np.float64]
Grams = NDArray[np.float64]


class Rope(NamedTuple):
    """`first` and `second` rows of the pairs of a head, and the angle of each pair per place; rows that stay have angle 0."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    angles: Angles
    base: float
    layout: str


def rope_of(checkpoint: Checkpoint, context: Context, size: int, names: str) -> Rope | str:
    """The rotation of one side's heads, or why there is none that holds for every layer; `names` is a name of a q_proj."""
    config = next(_levels(context), {})
    told = {key: value for level in reversed([*_levels(context)]) for key, value in level.items()}
    kind = str(told.get("model_type") or "")
    if checkpoint.format == "gguf":
        return _of_gguf(checkpoint, size)
    nested = told.get("rope_parameters") or told.get("rope_scaling") or {}
    scaling: Mapping[str, Any] = nested if isinstance(nested, Mapping) else {}
    base = _number(told, "rope_theta", "rotary_emb_base", "rope_base") or _number(scaling, "rope_theta")
    if any(told.get(key) for key in ("rope_local_base_freq", "no_rope_layers", "rope_local_theta")) or _is_by_layer(scaling):
        return "its rotary embedding differs from layer to layer"
    rotary = base or scaling or _number(told, "rotary_dim", "rotary_pct", "partial_rotary_factor")
    if not rotary and kind not in _ROTARY:
        return (
            "no rotary embedding is told in config.json" if config else "there is no config.json that tells a rotary embedding"
        )
    share = _number(told, "partial_rotary_factor", "rotary_pct") or _number(scaling, "partial_rotary_factor") or 1.0
    rotated = int(_number(told, "rotary_dim") or size * share)
    interleaved = kind in _INTERLEAVED or names.rpartition(".attention.")[2] in ("wq.weight", "wk.weight")
    return _rope(size, rotated, base or 10_000.0, interleaved, scaling)


def _levels(context: Context) -> Iterator[Mapping[str, Any]]:
    for config in (context.config, *(context.config.get(name) for name in NESTED)):
        if isinstance(config, Mapping) and config:
            yield config


def _number(values: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return float(value)
    return None


def _is_by_layer(scaling: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in scaling.values())


def _of_gguf(checkpoint: Checkpoint, size: int) -> Rope | str:
    metadata = checkpoint.metadata
    kind = metadata.get("general.architecture", "")

    def told(key: str) -> float | None:
        text = metadata.get(f"{kind}.rope.{key}", "")
        try:
            return float(text) if text else None
        except ValueError:
            return None

    base, rotated = told("freq_base"), told("dimension_count")
    if base is None and rotated is None:
        return "no rotary embedding is told in the metadata"
    scaling: dict[str, Any] = {}
    if (name := metadata.get(f"{kind}.rope.scaling.type", "none")) not in ("none", ""):
        scaling = {"rope_type": name, "factor": told("scaling.factor") or 1.0}
    if any(entry.name.startswith("rope_freqs") for entry in checkpoint.tensors):
        return "the factors of its rotary embedding are a tensor"
    return _rope(size, int(rotated or size), base or 10_000.0, kind in _GGUF_INTERLEAVED, scaling)


def _rope(size: int, rotated: int, base: float, interleaved: bool, scaling: Mapping[str, Any]) -> Rope | str:
    rotated = min(rotated, size)
    if rotated < 2 or rotated % 2 or size % 2:
        return f"{rotated} of the {size} rows of a head cannot be rotated in pairs"
    angles = base ** (-np.arange(0, rotated, 2) / rotated)
    scaled = _scaled(angles, scaling)
    if isinstance(scaled, str):
        return scaled
    rows = np.arange(rotated)
    first, second = (rows[::2], rows[1::2]) if interleaved else (rows[: rotated // 2], rows[rotated // 2 :])
    rest = np.arange(rotated, size)
    return Rope(
        np.concatenate([first, rest[::2]]),
        np.concatenate([second, rest[1::2]]),
        np.concatenate([scaled, np.zeros(rest.size // 2)]),
        base,
        "interleaved" if interleaved else "halves",
    )


def _scaled(angles: Angles, scaling: Mapping[str, Any]) -> Angles | str:
    """The angles after the scaling of a configuration, or that it is not one that is the same for every length."""
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    factor = _number(scaling, "factor") or 1.0
    if kind in ("default", "none"):
        return angles
    if kind == "linear":
        return angles / factor
    if kind != "llama3":
        return f"the scaling {kind!r} of its rotary embedding depends on the length of the text"
    low, high = _number(scaling, "low_freq_factor") or 1.0, _number(scaling, "high_freq_factor") or 4.0
    length = _number(scaling, "original_max_position_embeddings") or 8192.0
    turns = length * angles / (2 * pi)
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray((1 - share) * angles / factor + share * angles)


class Forms(NamedTuple):
    """What ⟨R X Rᵀ, Y⟩ follows from for every rotation R: products of the pairs of X and of Y as complex numbers."""

    apart: NDArray[np.complex128]
    together: NDArray[np.complex128]


def forms(queries: Grams, keys: Grams, left: Rope, right: Rope) -> Forms:
    """Of products of query rows and of key rows, [heads, d, d] each, whose rows turn as `left` and columns as `right`.

    With z = x₁ + i·x₂ of a pair, rotation multiplies z by e^{ia}; ⟨X, Y⟩ = ½ Re Σ (Z_X Z̄_Y + W_X W̄_Y) where Z holds z_a z̄_b
    and W holds z_a z_b.
    """
    x, y = _complex(queries, left, right), _complex(keys, left, right)
    return Forms(x[0] * y[0].conj(), x[1] * y[1].conj())


def _complex(grams: Grams, left: Rope, right: Rope) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    above, below = grams[:, left.first], grams[:, left.second]
    a, b, c, d = above[:, :, right.first], above[:, :, right.second], below[:, :, right.first], below[:, :, right.second]
    return (a + d) + 1j * (c - b), (a - d) + 1j * (c + b)


def inner(products: Forms, left: Rope, right: Rope, distance: float) -> Grams:
    """⟨R X Rᵀ, Y⟩ of each head, the query `distance` places after the key."""
    a, b = left.angles[:, None] * distance, right.angles[None, :] * distance
    apart, together = np.exp(1j * (a - b)), np.exp(1j * (a + b))
    return np.asarray(0.5 * np.real((products.apart * apart).sum((1, 2)) + (products.together * together).sum((1, 2))))
