"""A small sound file of every kind a format can be, to be mutated. A new format adds a row here; a test asks for it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.library_files import WRITERS, Writer, weights
from tests.messages import (
    field,
    onnx_attribute,
    onnx_constant,
    onnx_model,
    onnx_node,
    onnx_tensor,
    packed,
    tf_const,
    tf_graph,
    tf_shape,
    tf_tensor,
    write_bundle,
    write_onnx,
)
from tests.quantized_files import LAYOUTS, Layout


class Seed(NamedTuple):
    """One kind of file: the format that must recognise it, how to write it, the library that this takes, what is said of it."""

    format: str
    write: Callable[[Path], Path]
    needs: str = ""
    outcome: str = "read"

    @property
    def is_available(self) -> bool:
        """Whether the library is installed."""
        return not self.needs or find_spec(self.needs) is not None


def _torch_odd(folder: Path) -> Path:
    """Quantized, lazily conjugated and whole modules, in an archive that was compressed again."""
    import torch

    matrix = torch.from_numpy(weights()["layers.0.q_proj.weight"]).float()
    scales, zeros = torch.full((matrix.shape[0],), 0.1, dtype=torch.float64), torch.zeros(matrix.shape[0], dtype=torch.int64)
    odd = {
        "tensor": torch.quantize_per_tensor(matrix, 0.1, 3, torch.qint8),
        "channels": torch.quantize_per_channel(matrix, scales, zeros, 0, torch.qint8),
        "conjugate": torch.complex(matrix, matrix).conj().t(),
        "module": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)),
    }
    torch.save(odd, folder / "plain.pt")
    with zipfile.ZipFile(folder / "plain.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(folder / "model.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    (folder / "plain.pt").unlink()
    return folder / "model.pt"


def _gguf(folder: Path) -> Path:
    import gguf

    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_head_count(2)
    writer.add_token_list(["a", "b", "c"])
    matrix = weights()["layers.0.q_proj.weight"]
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
        writer.add_tensor(f"blk.0.{kind.name}.weight", gguf.quantize(matrix, kind), raw_dtype=kind)
    writer.add_tensor("plain", matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def _onnx_places(folder: Path) -> Path:
    """Weights in all places but the usual one, in varints and in keyed lists."""
    value = weights()["layers.0.q_proj.weight"]
    inner = field(6, field(1, onnx_constant("inner", value)) + field(5, onnx_tensor("ids", weights()["ids"])))
    halves = field(1, 5) + field(2, 10) + field(8, "halves") + packed(5, [0, 1, 31744, 15360, 65535])
    ints = b"".join(field(8, number) for number in range(200))
    numbers = {"K": 32, "N": 4, "block_size": 16}
    integers = b"".join(onnx_attribute(name, field(3, value)) for name, value in numbers.items())
    quantized = {"q": np.arange(24, dtype=np.int8).reshape(4, 6), "s": np.ones(6, np.float32), "z": np.ones(6, np.int8)}
    quantized |= {"b": np.zeros((4, 2, 8), np.uint8), "bs": np.ones(8, np.float16)}
    nodes = [
        onnx_node("DequantizeLinear", "qsz", ["y"], more=onnx_attribute("axis", field(3, 1))),
        onnx_node("MatMulNBits", ["x", "b", "bs"], ["w"], more=integers),
        onnx_node("If", name="if", more=onnx_attribute("then_branch", inner)),
        onnx_node("TreeEnsemble", name="trees", more=onnx_attribute("ids", ints)),
    ]
    return write_onnx(folder / "model.onnx", onnx_model([halves, *(onnx_tensor(n, v) for n, v in quantized.items())], nodes))


def _tf_checkpoint(folder: Path) -> Path:
    scalars = {"optimizer/learning_rate/.ATTRIBUTES/VARIABLE_VALUE": np.float32(0.1)}
    return write_bundle(folder / "checkpoint" / "ckpt-1", weights() | scalars, 2).parent


def _tf_graph(folder: Path) -> Path:
    value = weights()["layers.0.q_proj.weight"]
    filled = field(1, 1) + field(2, tf_shape([9, 9])) + field(5, bytes(8))
    ids = field(1, 9) + field(2, tf_shape([99])) + packed(10, range(-50, 49))
    tensors = {"kernel": tf_tensor(value), "filled": filled, "ids": ids}
    raw = tf_graph(tf_const(name, tensor) for name, tensor in tensors.items())
    (folder / "model.pb").write_bytes(raw)
    return folder / "model.pb"


def _keras(folder: Path) -> Path:
    import h5py

    inner = io.BytesIO()
    with h5py.File(inner, "w") as file:
        file["layers/dense/vars/0"] = weights()["layers.0.q_proj.weight"]
        file["layers/dense/vars/1"] = weights()["layers.0.norm.weight"]
    with zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.5.0"}')
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", inner.getvalue())
    return folder / "model.keras"


def _by_library(writer: Writer) -> Seed:
    return Seed(writer.format, lambda folder: writer.write(folder).path, writer.by)


def _quantized(layout: Layout) -> Seed:
    return Seed("huggingface", lambda folder: layout.write(folder / "quantized"), outcome="read" if layout.decoded else "told")


CORPUS: dict[str, Seed] = {
    **{name: _by_library(writer) for name, writer in WRITERS.items() if not writer.cast},
    "torch-odd": Seed("pytorch", _torch_odd, "torch"),
    "gguf-quantized": Seed("gguf", _gguf, "gguf"),
    "onnx-places": Seed("onnx", _onnx_places),
    "keras-archive": Seed("keras", _keras, "h5py"),
    "tf-optimizer": Seed("tensorflow", _tf_checkpoint),
    "tf-graph": Seed("tensorflow", _tf_graph),
    **{name: _quantized(layout) for name, layout in LAYOUTS.items()},
}


def files_of(path: Path) -> Iterator[Path]:
    """The files of a checkpoint, which may be a directory or have companions beside it."""
    return (file for file in sorted(path.rglob("*") if path.is_dir() else path.parent.iterdir()) if file.is_file())
