"""Write a bfloat16 safetensors checkpoint again in another uncompressed format, by the library of that format.

    python bench/format_pair.py SOURCE.safetensors TARGET --format safetensors-f16|pt|gguf-bf16|gguf-f16|onnx|npz|hdf5

npz, hdf5 and gguf-f16 hold float16, which is what these formats have, and are compared with safetensors-f16; the others hold
the bits of the source. Tensors of gguf have the names and the order of rows that llama.cpp's converter gives them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

PARTIAL = "partial-"
Tensors = dict[str, np.ndarray]  # bit patterns of bfloat16, mapped


def mapped(source: Path) -> Tensors:
    """The tensors of the source."""
    with source.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(size))
    table.pop("__metadata__", None)
    return {
        name: np.memmap(source, np.uint16, "r", 8 + size + row["data_offsets"][0], tuple(row["shape"]))
        for name, row in table.items()
    }


def half(bits: np.ndarray) -> np.ndarray:
    """float16 of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float16)


def halves(tensors: Tensors) -> Iterator[tuple[str, np.ndarray]]:
    for name, bits in tensors.items():
        yield name, half(bits)


def safetensors_f16(source: Path, target: Path) -> None:
    """A safetensors file of float16, a tensor at a time."""
    tensors, table, end = mapped(source), {}, 0
    for name, bits in tensors.items():
        table[name] = {"dtype": "F16", "shape": list(bits.shape), "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in halves(tensors):
            file.write(values.data)


def torch_zip(source: Path, target: Path) -> None:
    """What torch.save writes of a state dict."""
    import torch

    tensors = {name: torch.from_numpy(np.array(bits)).view(torch.bfloat16) for name, bits in mapped(source).items()}
    torch.save(tensors, target)


def gguf(kind: str) -> Callable[[Path, Path], None]:
    def write(source: Path, target: Path) -> None:
        import gguf_pair
        from gguf import GGMLQuantizationType

        gguf_pair.write(str(source), target, GGMLQuantizationType[kind])

    return write


def onnx_external(source: Path, target: Path) -> None:
    """A model of initializers alone, their data in `TARGET.data`."""
    data = target.name.removeprefix(PARTIAL) + ".data"
    import onnx
    from onnx.external_data_helper import set_external_data

    initializers, end = [], 0
    with target.with_name(data).open("wb") as file:
        for name, bits in mapped(source).items():
            tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.BFLOAT16, dims=bits.shape, raw_data=b"-")
            set_external_data(tensor, data, offset=end, length=bits.nbytes)
            tensor.ClearField("raw_data")
            initializers.append(tensor)
            file.write(bits.data)
            end += bits.nbytes
    graph = onnx.helper.make_graph([], "weights", [], [], initializer=initializers)
    target.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def npz(source: Path, target: Path) -> None:
    """A stored npz."""
    with target.open("wb") as file:
        np.savez(file, **dict(halves(mapped(source))))


def hdf5(source: Path, target: Path) -> None:
    """Contiguous datasets."""
    import h5py

    with h5py.File(target, "w") as file:
        for name, values in halves(mapped(source)):
            file.create_dataset(name, data=values)


FORMATS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "safetensors-f16": (".safetensors", safetensors_f16),
    "pt": (".pt", torch_zip),
    "gguf-bf16": (".gguf", gguf("BF16")),
    "gguf-f16": (".gguf", gguf("F16")),
    "onnx": (".onnx", onnx_external),
    "npz": (".npz", npz),
    "hdf5": (".h5", hdf5),
}
HALF = frozenset({"gguf-f16", "npz", "hdf5"})  # these are compared with safetensors-f16


def write(source: Path, target: Path, name: str) -> None:
    """Write the checkpoint, unless it is there already."""
    if not target.exists():
        partial = target.with_name(PARTIAL + target.name)
        FORMATS[name][1](source, partial)
        partial.rename(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--format", choices=FORMATS, required=True)
    arguments = parser.parse_args()
    write(arguments.source, arguments.target, arguments.format)
    print(arguments.target)
