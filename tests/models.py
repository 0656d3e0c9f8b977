"""Checkpoints for tests of the whole road: a healthy small Llama, and arrays of every encoding."""

from __future__ import annotations

from math import prod

import ml_dtypes
import numpy as np

from tests.checkpoints import Declared, declared

DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16},
    **{"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu},
    **{"F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz},
    **{f"{sign}{bits}": np.dtype(f"{'u' if sign == 'U' else ''}int{bits}").type for sign in "IU" for bits in (8, 16, 32, 64)},
    **{"BOOL": np.bool_, "C64": np.complex64},
}


def cast(values: np.ndarray, encoding: str) -> Declared:
    """The values in an encoding, rounded to nearest even, ready to be written."""
    with np.errstate(over="ignore", invalid="ignore"):
        return encoding, values.shape, np.ascontiguousarray(values.astype(DTYPES[encoding])).tobytes()


def array_of(tensor: np.ndarray | Declared) -> np.ndarray:
    """The stored numbers of a declared tensor."""
    encoding, shape, raw = declared(tensor)
    return np.frombuffer(raw, DTYPES[encoding]).reshape(shape)


def numbers(tensor: np.ndarray | Declared) -> np.ndarray:
    """float64 values, complex numbers with one more axis of 2."""
    stored = array_of(tensor)
    if stored.dtype == np.complex64:
        return stored.reshape(-1).view(np.float32).reshape(*stored.shape, 2).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return stored.astype(np.float64)


def random_bytes(random: np.random.Generator, encoding: str, shape: tuple[int, ...]) -> Declared:
    """Any codes at all, so NaN, infinities and subnormal numbers too; doubles below 2, whose squares are doubles."""
    itemsize = np.dtype(DTYPES[encoding]).itemsize
    raw = random.integers(0, 2 if encoding == "BOOL" else 256, prod(shape) * itemsize, np.uint8)
    if encoding == "F64":
        raw[7::8] &= 0xBF
    return encoding, shape, raw.tobytes()


def llama(layers: int = 6, width: int = 64, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """A healthy model in float32: deviations vary smoothly over depth and fit no initial law."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, depth: int = 0) -> np.ndarray:
        deviation = scale * 0.045 * (1 + 0.05 * depth)
        by_row = np.exp(random.normal(0, 0.15, (rows, 1)))
        return (random.normal(size=(rows, columns)) * by_row * deviation).astype(np.float32)

    model = {"model.embed_tokens.weight": matrix(4 * width, width)}
    for depth in range(layers):
        block = f"model.layers.{depth}."
        for part in "qkvo":
            model[f"{block}self_attn.{part}_proj.weight"] = matrix(width, width, depth)
        for part, shape in (("gate", (2 * width, width)), ("up", (2 * width, width)), ("down", (width, 2 * width))):
            model[f"{block}mlp.{part}_proj.weight"] = matrix(*shape, depth)
        for part in ("input_layernorm", "post_attention_layernorm"):
            model[f"{block}{part}.weight"] = (0.6 + 0.03 * depth + 0.05 * random.normal(size=width)).astype(np.float32)
    model["model.norm.weight"] = (1.5 + 0.1 * random.normal(size=width)).astype(np.float32)
    model["lm_head.weight"] = matrix(4 * width, width)
    return model


def tuned(model: dict[str, np.ndarray], size: float = 0.01, seed: int = 1) -> dict[str, np.ndarray]:
    """The model after a small random step of this relative size in every tensor."""
    random = np.random.default_rng(seed)
    return {name: (values * (1 + size * random.normal(size=values.shape))).astype(np.float32) for name, values in model.items()}
