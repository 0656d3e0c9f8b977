"""What a user would write in torch to see what quantization did to a layer: dequantize, subtract, print.

    python bench/peers/dequantize_script.py METHOD OLD.safetensors NEW.safetensors

METHOD is gptq, awq, nf4 or fp8. One tab-separated line a weight: its name; relative l2, SQNR in dB, cosine, mean, std and
largest magnitude of the difference; mean, std, min and max of both sides. Needs torch and safetensors.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable

import torch
from safetensors import safe_open

Get = Callable[[str], torch.Tensor]
AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]


def nibbles(words: torch.Tensor, shifts: torch.Tensor, axis: int) -> torch.Tensor:
    """The 4-bit codes of int32 words, unfolded along an axis."""
    shape = [1, 1, 1]
    shape[axis + 1] = 8
    codes = (words.unsqueeze(axis + 1) >> shifts.view(shape)) & 15
    return codes.flatten(axis, axis + 1)


def gptq(get: Get, name: str) -> torch.Tensor:
    """[out, in] of GPTQ v1."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    codes = nibbles(get(f"{name}.qweight"), shifts, 0)
    zeros = nibbles(get(f"{name}.qzeros"), shifts, 1) + 1
    index = get(f"{name}.g_idx").long()
    return (get(f"{name}.scales").float()[index] * (codes - zeros[index])).T


def awq(get: Get, name: str) -> torch.Tensor:
    """[out, in] of AWQ gemm."""
    shifts = torch.tensor(AWQ_ORDER, dtype=torch.int32) * 4
    codes = nibbles(get(f"{name}.qweight"), shifts, 1)
    zeros, scales = nibbles(get(f"{name}.qzeros"), shifts, 1), get(f"{name}.scales").float()
    size = codes.shape[0] // scales.shape[0]
    return ((codes - zeros.repeat_interleave(size, 0)) * scales.repeat_interleave(size, 0)).T


def nf4(get: Get, name: str) -> torch.Tensor:
    """[out, in] of bitsandbytes nf4."""
    packed, absmax = get(f"{name}.weight").flatten(), get(f"{name}.weight.absmax")
    state = json.loads(bytes(get(f"{name}.weight.quant_state.bitsandbytes__nf4").tolist()))
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    values = get(f"{name}.weight.quant_map")[codes.long()].view(-1, state["blocksize"])
    return (values * absmax[:, None]).view(state["shape"])


def fp8(get: Get, name: str) -> torch.Tensor:
    """[out, in] of fp8 in blocks of 128 by 128."""
    codes, scales = get(f"{name}.weight").float(), get(f"{name}.weight_scale_inv")
    rows, columns = codes.shape
    return codes * scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]


METHODS = {"gptq": gptq, "awq": awq, "nf4": nf4, "fp8": fp8}


def describe(values: torch.Tensor) -> list[float]:
    """mean, std, min, max."""
    return [values.mean().item(), values.std(correction=0).item(), values.min().item(), values.max().item()]


def compare(old: torch.Tensor, new: torch.Tensor) -> list[float]:
    """The figures of the difference and of both sides."""
    delta = new - old
    relative = (torch.linalg.vector_norm(delta) / torch.linalg.vector_norm(old)).item()
    cosine = torch.nn.functional.cosine_similarity(old.flatten(), new.flatten(), dim=0).item()
    of_delta = [delta.mean().item(), delta.std(correction=0).item(), delta.abs().max().item()]
    return [relative, -20 * math.log10(relative), cosine, *of_delta, *describe(old), *describe(new)]


def main(method: str, old_path: str, new_path: str) -> None:
    with safe_open(old_path, "pt") as old, safe_open(new_path, "pt") as new:
        for name in old.keys():  # noqa: SIM118 - a safetensors file is no mapping
            weight = METHODS[method](new.get_tensor, name.removesuffix(".weight"))
            figures = compare(old.get_tensor(name).float(), weight)
            print(name, *(f"{figure:.6g}" for figure in figures), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:4])
