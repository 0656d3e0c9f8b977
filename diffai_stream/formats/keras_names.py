"""Names of Keras variables, from the paths that `keras/src/saving` gives them in HDF5 files.

Keras 3 numbers the variables of a layer: `layers/dense_1/vars/0`, where `dense_1` is the class of the layer and a count.
Before, a layer held its weights by name: `model_weights/dense_1/dense_1/kernel:0`. Both lose what only the container needs.
"""

from __future__ import annotations

import re

_VARIABLES = {
    "dense": ("kernel", "bias"),
    "einsum_dense": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "reversible_embedding": ("embeddings", "reverse_embeddings"),
    "layer_normalization": ("gamma", "beta"),
    "group_normalization": ("gamma", "beta"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "lstm_cell": ("kernel", "recurrent_kernel", "bias"),
    "gru_cell": ("kernel", "recurrent_kernel", "bias"),
    "simple_rnn_cell": ("kernel", "recurrent_kernel", "bias"),
}
_CONVOLUTION = re.compile(r"(?:depthwise_)?conv[123]d(?:_transpose)?")
_COUNTED = re.compile(r"(.+?)(?:_\d+)?")


def keras_name(path: str) -> str:
    """A path as a tensor name: dots for slashes, numbered variables by their names where the class of the layer tells them."""
    parts = path.split("/")
    if len(parts) >= 3 and parts[-2] == "vars" and parts[-1].isdigit():
        return ".".join((*parts[:-2], _variable(parts[-3], int(parts[-1]))))
    if parts[-1].endswith(":0"):
        return ".".join(_legacy(parts))
    return ".".join(parts)


def _variable(layer: str, number: int) -> str:
    found = _COUNTED.fullmatch(layer)
    kind = found[1] if found else layer
    names = ("kernel", "bias") if _CONVOLUTION.fullmatch(kind) else _VARIABLES.get(kind, ())
    return names[number] if number < len(names) else str(number)


def _legacy(parts: list[str]) -> list[str]:
    """Without the root, without the layer's name when the weight's path repeats it, without the output number."""
    kept = parts[1:] if parts[0] in ("model_weights", "optimizer_weights") else parts
    if len(kept) > 2 and kept[0] == kept[1]:
        kept = kept[1:]
    if parts[0] == "optimizer_weights":
        kept = ["optimizer", *kept]
    return [*kept[:-1], kept[-1].removesuffix(":0")]


def part_of(path: str) -> str:
    """Whether a path is one of the weights or of the optimizer's state."""
    first = path.partition("/")[0]
    return "optimizer" if first in ("optimizer", "optimizer_weights", "_optimizer") else "weights"
