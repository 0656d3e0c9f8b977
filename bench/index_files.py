"""Write a checkpoint with the shapes of Llama-3.1-8B (291 tensors, 16 GB in bf16) whose data are holes, and one of a tensor.

    python bench/index_files.py FOLDER --format safetensors|pt|gguf|gguf-vocabulary|onnx|npz|hdf5

To list what a checkpoint holds no tensor is read, so that headers alone tell the time it takes: the files are sparse and take
almost no disk. `gguf-vocabulary` has a tokenizer of 128,256 tokens and 280,147 merges too.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
from pair import llama

Shapes = dict[str, tuple[int, ...]]
TOKENS, MERGES = 128_256, 280_147  # of Llama 3
BIG: Shapes = llama(32, 4096, 14336, 1024, TOKENS) | {"lm_head.weight": (TOKENS, 4096)}
SMALL: Shapes = {"model.norm.weight": (4096,)}


class Holes(io.FileIO):
    """A file in which zeros are not written but left out."""

    def write(self, data: object) -> int:
        """Write bytes, or move on where all of them are zero."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if len(view) < 4096 or any(view[:64]) or np.frombuffer(view, np.uint8).any():
            return super().write(view)
        self.seek(len(view), io.SEEK_CUR)
        return len(view)


def safetensors(target: Path, shapes: Shapes) -> None:
    table, end = {}, 0
    for name, shape in shapes.items():
        table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + 2 * prod(shape)]}
        end += 2 * prod(shape)
    text = json.dumps(table, separators=(",", ":")).encode()
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def torch_zip(target: Path, shapes: Shapes) -> None:
    """torch.save leaves room for the data and writes none."""
    import torch
    from torch.serialization import skip_data

    with skip_data():
        torch.save({name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}, target)


def gguf(target: Path, shapes: Shapes, has_vocabulary: bool = False) -> None:
    from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map

    writer, names = GGUFWriter(target, "llama"), get_tensor_name_map(MODEL_ARCH.LLAMA, 32)
    writer.add_block_count(32)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    if has_vocabulary:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"token{i}" for i in range(TOKENS)])
        writer.add_token_types([1] * TOKENS)
        writer.add_token_merges([f"left{i} right{i}" for i in range(MERGES)])
    total = 0
    for name, shape in shapes.items():
        kind = GGMLQuantizationType.BF16 if len(shape) > 1 else GGMLQuantizationType.F32
        size = prod(shape) * (2 if len(shape) > 1 else 4)
        writer.add_tensor_info(
            names.get_name(name, try_suffixes=(".weight",)), shape, np.dtype(np.float32), size, raw_dtype=kind
        )
        total += size + -size % 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout
    writer.write_padding(file, file.tell())
    file.truncate(file.tell() + total)
    writer.close()


def gguf_vocabulary(target: Path, shapes: Shapes) -> None:
    gguf(target, shapes, has_vocabulary=len(shapes) > 1)


def onnx_external(target: Path, shapes: Shapes) -> None:
    import onnx
    from onnx.external_data_helper import set_external_data

    initializers, end = [], 0
    for name, shape in shapes.items():
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.BFLOAT16, dims=shape, raw_data=b"-")
        set_external_data(tensor, target.name + ".data", offset=end, length=2 * prod(shape))
        tensor.ClearField("raw_data")
        initializers.append(tensor)
        end += 2 * prod(shape)
    graph = onnx.helper.make_graph([], "weights", [], [], initializer=initializers)
    target.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with target.with_name(target.name + ".data").open("wb") as data:
        data.truncate(end)


def npz(target: Path, shapes: Shapes) -> None:
    zeros = bytes(1 << 24)
    with Holes(target, "w") as file, zipfile.ZipFile(file, "w") as archive:
        for name, shape in shapes.items():
            head = {"descr": "<f2", "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, head)
                left = 2 * prod(shape)
                while left:
                    left -= member.write(zeros[:left])


def hdf5(target: Path, shapes: Shapes) -> None:
    """Contiguous datasets that have their place in the file and were never filled."""
    import h5py

    with h5py.File(target, "w") as file:
        for name, shape in shapes.items():
            wanted = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            wanted.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            wanted.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F16LE, space, wanted)


FORMATS: dict[str, tuple[str, Callable[[Path, Shapes], None]]] = {
    "safetensors": (".safetensors", safetensors),
    "pt": (".pt", torch_zip),
    "gguf": (".gguf", gguf),
    "gguf-vocabulary": (".gguf", gguf_vocabulary),
    "onnx": (".onnx", onnx_external),
    "npz": (".npz", npz),
    "hdf5": (".h5", hdf5),
}


def write(folder: Path, name: str) -> tuple[Path, Path]:
    """The checkpoint of 8B and the one of a tensor, written unless they are there already."""
    suffix, make = FORMATS[name]
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name}-8b{suffix}", folder / f"{name}-one{suffix}"
    for path, shapes in zip(made, (BIG, SMALL), strict=True):
        if not path.exists():
            make(path, shapes)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=FORMATS, required=True)
    arguments = parser.parse_args()
    for path in write(arguments.folder, arguments.format):
        print(path)
