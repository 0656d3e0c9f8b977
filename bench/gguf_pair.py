"""Write the GGUF file that a converter would make of a Llama checkpoint in bf16: names of llama.cpp, matrices quantized.

    python bench/gguf_pair.py OLD.safetensors NEW.gguf --type Q4_K|Q8_0|BF16|F16

Rows of q and k are permuted and norms are float32, as llama.cpp's converter does; codes are rounded to nearest
(`diffai_stream/testing/ggml.py`; Q8_0 by the gguf package). Pieces of 4 Mi elements, so memory does not depend on the size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.quants import quantize

from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.safetensors import index
from diffai_stream.testing.ggml import ROUND

PIECE = 1 << 22  # elements rounded at a time
HEAD_DIM = 64  # of Llama-3.2-1B


def bit_patterns(path: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """The bit patterns of a bf16 tensor, mapped."""
    return np.memmap(path, np.uint16, "r", offset, shape)


def as_float32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def row_order(name: str, rows: int) -> np.ndarray:
    """Where the rows of a tensor come from: those of q and k are taken from the two halves of each head in turn."""
    order = np.arange(rows)
    is_rotary = ".q_proj." in name or ".k_proj." in name
    return order.reshape(-1, 2, min(HEAD_DIM, rows) // 2).swapaxes(1, 2).reshape(-1) if is_rotary else order


def rounded(bits: np.ndarray, order: np.ndarray, kind: GGMLQuantizationType) -> Iterator[np.ndarray]:
    """The bytes of a matrix, a piece at a time."""
    block, _ = GGML_QUANT_SIZES[kind]
    plain = {"BF16": lambda piece: piece, "F16": lambda piece: as_float32(piece).astype(np.float16)}.get(kind.name)
    encode: Callable[[np.ndarray], np.ndarray] = ROUND.get(kind.name) or (lambda values: quantize(values, kind))
    step = max(1, PIECE // bits.shape[1])
    for start in range(0, len(order), step):
        piece = bits[order[start : start + step]]
        yield plain(piece) if plain else encode(as_float32(piece).reshape(-1, block))


def kind_of(entry: TensorEntry, kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """The type a tensor gets: vectors stay float32, rows of no whole blocks get Q8_0."""
    if len(entry.shape) < 2:
        return GGMLQuantizationType.F32
    return kind if entry.shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.Q8_0


def declare(writer: GGUFWriter, entries: Sequence[TensorEntry], kind: GGMLQuantizationType) -> None:
    """Write all that comes before the data."""
    shapes = {entry.name: entry.shape for entry in entries}
    layers = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("model.layers."))
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    writer.add_block_count(layers)
    for name, add in (("q_proj", writer.add_head_count), ("k_proj", writer.add_head_count_kv)):
        add(max(1, shapes[f"model.layers.0.self_attn.{name}.weight"][0] // HEAD_DIM))
    for entry in entries:
        chosen = kind_of(entry, kind)
        block, nbytes = GGML_QUANT_SIZES[chosen]
        name, size = names.get_name(entry.name, try_suffixes=(".weight",)), entry.numel // block * nbytes
        if len(entry.shape) > 1:
            shape = (*entry.shape[:-1], entry.shape[-1] // block * nbytes)
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), size, raw_dtype=chosen)
        else:
            writer.add_tensor_info(name, entry.shape, np.dtype(np.float32), size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def write(source: str, target: Path, kind: GGMLQuantizationType) -> None:
    """Write the file, unless it is there already."""
    if target.exists():
        return
    entries = index(source).tensors
    partial = target.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    declare(writer, entries, kind)
    (output,) = writer.fout
    for entry in entries:
        writer.write_padding(output, output.tell())
        (extent,) = entry.components["data"].extents
        bits, chosen = bit_patterns(extent.path, extent.offset, entry.shape), kind_of(entry, kind)
        pieces = rounded(bits, row_order(entry.name, entry.shape[0]), chosen) if bits.ndim > 1 else [as_float32(bits)]
        for piece in pieces:
            output.write(np.ascontiguousarray(piece).data)
    writer.write_padding(output, output.tell())
    writer.close()
    partial.rename(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target", type=Path)
    parser.add_argument("--type", choices=["Q4_K", "Q8_0", "BF16", "F16"], default="Q4_K")
    arguments = parser.parse_args()
    write(arguments.source, arguments.target, GGMLQuantizationType[arguments.type])
    print(arguments.target)
