"""Write a seeded layer in bfloat16 and the same layer quantized, rounded to nearest, in the layout of one method.

    python bench/quantized_pair.py FOLDER --method gptq|awq|nf4|fp8 [--shape llama-8b-layer|tiny]

`old.safetensors` is the original, `METHOD.safetensors` the quantized one, so that methods share an original. Weights are
normal with standard deviation 0.02; groups of 128 (nf4: blocks of 64, fp8: blocks of 128 by 128).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

GROUP = 128
PREFIX = "model.layers.0."
NF4 = (
    *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
)  # QLoRA, arXiv 2305.14314, appendix E
Parts = dict[str, tuple[str, np.ndarray]]


def layer(hidden: int, ffn: int, kv: int) -> dict[str, tuple[int, int]]:
    """The matrices of one Llama layer."""
    shapes = {"mlp.down_proj": (hidden, ffn), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden)}
    shapes |= {"self_attn.k_proj": (kv, hidden), "self_attn.o_proj": (hidden, hidden)}
    shapes |= {"self_attn.q_proj": (hidden, hidden), "self_attn.v_proj": (kv, hidden)}
    return {f"{PREFIX}{name}": shape for name, shape in shapes.items()}


SHAPES = {"llama-8b-layer": layer(4096, 14336, 1024), "tiny": layer(128, 256, 128)}  # 218,103,808 weights; 147,456


def to_bf16(x: np.ndarray) -> np.ndarray:
    """float32 to bfloat16 bit patterns, round to nearest even (finite values only)."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def grouped(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes [out, in] of 4 bits, scales [out, groups], zero points [out, groups]) of groups along `in`."""
    groups = weight.reshape(weight.shape[0], -1, GROUP)
    low, high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    scales = ((high - low) / 15).astype(np.float16)
    zeros = np.clip(np.rint(-low / scales), 0, 15)
    codes = np.clip(np.rint(groups / scales[..., None].astype(np.float32)) + zeros[..., None], 0, 15)
    return codes.reshape(weight.shape).astype(np.uint8), scales, zeros.astype(np.uint8)


def words(codes: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """int32 [n, columns / 8]: eight neighbours of a row in each, `order` by place from the lowest nibble up."""
    packed = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for place, column in enumerate(order):
        packed |= codes[:, column::8].astype(np.uint32) << np.uint32(4 * place)
    return packed.view(np.int32)


def gptq(weight: np.ndarray) -> Parts:
    """qweight, qzeros (v1), scales, g_idx."""
    codes, scales, zeros = grouped(weight)
    index = (np.arange(weight.shape[1]) // GROUP).astype(np.int32)
    return {
        "qweight": ("I32", words(codes).T),
        "qzeros": ("I32", words((zeros.T - 1) & 15)),
        "scales": ("F16", scales.T),
        "g_idx": ("I32", index),
    }


def awq(weight: np.ndarray) -> Parts:
    """qweight, qzeros, scales of the gemm layout."""
    codes, scales, zeros = grouped(weight)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {"qweight": ("I32", words(codes.T, order)), "qzeros": ("I32", words(zeros.T, order)), "scales": ("F16", scales.T)}


def nf4(weight: np.ndarray) -> Parts:
    """weight, absmax, quant_map, the state."""
    blocks = weight.reshape(-1, 64)
    absmax = np.abs(blocks).max(1)
    table = np.array(NF4, np.float32)
    codes = np.searchsorted((table[1:] + table[:-1]) / 2, (blocks / absmax[:, None]).reshape(-1)).astype(np.uint8)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
    return {
        "weight": ("U8", (codes[::2] << 4 | codes[1::2])[:, None]),
        "weight.absmax": ("F32", absmax),
        "weight.quant_map": ("F32", table),
        "weight.quant_state.bitsandbytes__nf4": ("U8", np.frombuffer(json.dumps(state).encode(), np.uint8)),
    }


def fp8(weight: np.ndarray) -> Parts:
    """weight, weight_scale_inv of 128 by 128 blocks."""
    blocks = weight.reshape(weight.shape[0] // GROUP, GROUP, -1, GROUP)
    scales = np.abs(blocks).max((1, 3)) / np.float32(448)
    codes = e4m3((blocks / scales[:, None, :, None]).reshape(weight.shape))
    return {"weight": ("F8_E4M3", codes), "weight_scale_inv": ("F32", scales)}


def e4m3(x: np.ndarray) -> np.ndarray:
    """Codes of E4M3, round to nearest even: the exponent is rebased in the bits of the float32, small values count 2^-9."""
    bits = np.abs(x).view(np.uint32)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20).astype(np.int32) - (120 << 3)
    small = np.rint(np.abs(x) * 512).astype(np.int32)
    magnitude = np.minimum(np.where(bits < (121 << 23), small, normal), 0x7E)
    return (magnitude | np.where(x < 0, 0x80, 0)).astype(np.uint8)


METHODS: dict[str, Callable[[np.ndarray], Parts]] = {"gptq": gptq, "awq": awq, "nf4": nf4, "fp8": fp8}


def write(path: Path, tensors: Parts) -> None:
    """A safetensors file, whole or not at all."""
    table, end = {}, 0
    for name, (dtype, array) in tensors.items():
        table[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            file.write(np.ascontiguousarray(array).data)
    partial.rename(path)


def weights(shape: str) -> dict[str, np.ndarray]:
    """float32 matrices whose values are bfloat16 numbers, the same in every run."""
    rng = np.random.default_rng(11)
    made = {name: rng.standard_normal(sizes, np.float32) * np.float32(0.02) for name, sizes in SHAPES[shape].items()}
    return {name: (to_bf16(x).astype(np.uint32) << 16).view(np.float32) for name, x in made.items()}


def write_pair(folder: Path, method: str, shape: str) -> tuple[Path, Path]:
    """Write what is not there yet: the original, and the layer in the layout of a method."""
    folder.mkdir(parents=True, exist_ok=True)
    old, new = folder / "old.safetensors", folder / f"{method}.safetensors"
    if not (old.exists() and new.exists()):
        made = weights(shape)
        write(old, {f"{name}.weight": ("BF16", to_bf16(x)) for name, x in made.items()})
        write(new, {f"{name}.{part}": value for name, x in made.items() for part, value in METHODS[method](x).items()})
    return old, new


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b-layer")
    arguments = parser.parse_args()
    for path in write_pair(arguments.folder, arguments.method, arguments.shape):
        print(path)
