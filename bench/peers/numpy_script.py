"""What a user would write in numpy to compare two checkpoints, one tensor after the other.

    python bench/peers/numpy_script.py OLD.safetensors NEW.safetensors

One tab-separated line a tensor: its name; mean, std, min, max, norm and the fullest histogram bin of old, new and
delta; the cosine of old and new. Needs numpy, ml_dtypes (for bfloat16) and safetensors.
"""

from __future__ import annotations

import sys

import ml_dtypes  # noqa: F401 - gives numpy its bfloat16
import numpy as np
from safetensors import safe_open

BINS = 128


def describe(values: np.ndarray) -> list[float]:
    """mean, std, min, max, norm, and the count of the fullest of 128 bins."""
    histogram, _ = np.histogram(values, bins=BINS)
    norm = np.linalg.norm(values.ravel())
    return [float(x) for x in (values.mean(), values.std(), values.min(), values.max(), norm, histogram.max())]


def compare(old: np.ndarray, new: np.ndarray) -> list[float]:
    """The figures of old, new and delta, and the cosine."""
    of_old, of_new, of_delta = describe(old), describe(new), describe(new - old)
    cosine = float(np.dot(old.ravel(), new.ravel())) / (of_old[4] * of_new[4])
    return [*of_old, *of_new, *of_delta, cosine]


def main(old_path: str, new_path: str) -> None:
    with safe_open(old_path, "numpy") as old, safe_open(new_path, "numpy") as new:
        shared = set(new.keys())
        for name in old.keys():  # noqa: SIM118 - a safetensors file is no mapping
            if name in shared:
                figures = compare(old.get_tensor(name).astype(np.float32), new.get_tensor(name).astype(np.float32))
                print(name, *(f"{figure:.6g}" for figure in figures), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:3])
