"""What a user would write in torch to compare two checkpoints, one tensor after the other.

    python bench/peers/torch_script.py OLD.safetensors NEW.safetensors

One tab-separated line a tensor: its name; mean, std, min, max, norm and the fullest histogram bin of old, new and
delta; the cosine of old and new. Needs torch and safetensors.
"""

from __future__ import annotations

import sys

import torch
from safetensors import safe_open

BINS = 128


def describe(values: torch.Tensor) -> list[float]:
    """mean, std, min, max, norm, and the count of the fullest of 128 bins."""
    histogram = torch.histc(values, bins=BINS)
    return [
        values.mean().item(),
        values.std(correction=0).item(),
        values.min().item(),
        values.max().item(),
        torch.linalg.vector_norm(values).item(),
        histogram.max().item(),
    ]


def compare(old: torch.Tensor, new: torch.Tensor) -> list[float]:
    """The figures of old, new and delta, and the cosine."""
    cosine = torch.nn.functional.cosine_similarity(old.flatten(), new.flatten(), dim=0).item()
    return [*describe(old), *describe(new), *describe(new - old), cosine]


def main(old_path: str, new_path: str) -> None:
    with safe_open(old_path, "pt") as old, safe_open(new_path, "pt") as new:
        shared = set(new.keys())
        for name in old.keys():  # noqa: SIM118 - a safetensors file is no mapping
            if name in shared:
                figures = compare(old.get_tensor(name).float(), new.get_tensor(name).float())
                print(name, *(f"{figure:.6g}" for figure in figures), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:3])
