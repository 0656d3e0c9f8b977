"""What a user would write with the gguf package to see what a quantization cost, one tensor after the other.

    python bench/peers/gguf_script.py OLD.safetensors NEW.gguf

One tab-separated line a tensor: its name, the relative l2 norm of the difference, its greatest element. The names are those
of llama.cpp, and the rows of q and k are put back in the order of Hugging Face. Needs gguf, numpy and safetensors.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from gguf import MODEL_ARCH, GGUFReader, dequantize, get_tensor_name_map

HEAD_DIM = 64  # of Llama-3.2-1B


def header(path: str) -> tuple[dict[str, dict], int]:
    """The table of a safetensors file and where its data begins: the library gives no bf16 to numpy."""
    with open(path, "rb") as file:
        nbytes = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(nbytes)), 8 + nbytes


def bf16(data: np.ndarray, entry: dict) -> np.ndarray:
    """float32 of a bf16 tensor."""
    begin, end = entry["data_offsets"]
    return (data[begin:end].view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def unpermuted(values: np.ndarray) -> np.ndarray:
    """Rows of each head from pairs back to halves."""
    return values.reshape(-1, min(HEAD_DIM, len(values)) // 2, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def main(old_path: str, new_path: str) -> None:
    table, start = header(old_path)
    data = np.memmap(old_path, np.uint8, "r", start)
    reader = GGUFReader(new_path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, int(reader.fields["llama.block_count"].contents()))
    for name, entry in table.items():
        tensor = tensors.get(names.get_name(name, try_suffixes=(".weight",)) or "")
        if tensor is None:
            continue
        old, new = bf16(data, entry), dequantize(tensor.data, tensor.tensor_type)
        if ".q_proj." in name or ".k_proj." in name:
            new = unpermuted(new)
        delta = new - old
        print(name, np.linalg.norm(delta.ravel()) / np.linalg.norm(old.ravel()), np.abs(delta).max(), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:3])
