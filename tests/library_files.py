"""The same weights as each library writes them, in each format it has: rows of a table, and sound files for the fuzzer.

A row gives the path and what lies there, by the names it has there. Formats that lack an element type hold the other weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tests.checkpoints import write_sharded
from tests.messages import write_bundle

Arrays = Mapping[str, np.ndarray]


class Written(NamedTuple):
    """A checkpoint and what it holds."""

    path: Path
    holds: Arrays


class Writer(NamedTuple):
    """`by` is the module that writes, "" when its format is written byte by byte here.

    `cast` says how the weights became what is stored: "" when they are stored in their own types.
    """

    format: str
    write: Callable[[Path], Written]
    by: str = ""
    cast: str = ""

    @property
    def is_available(self) -> bool:
        """Whether the library is installed."""
        return not self.by or find_spec(self.by) is not None


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "layers.0.q_proj.weight": random.normal(size=(8, 32)).astype(np.float32),
        "layers.0.norm.weight": np.ones(32, np.float16),
        "ids": np.arange(5, dtype=np.int64),
    }


def matrix() -> np.ndarray:
    return weights()["layers.0.q_proj.weight"]


def on_grid(dtype: Any) -> dict[str, np.ndarray]:
    """float32 weights that a narrower type holds exactly."""
    return {"layers.0.q_proj.weight": matrix().astype(dtype).astype(np.float32)}


def tensors(arrays: Arrays | None = None) -> dict[str, Any]:
    """The weights as torch tensors."""
    import torch

    return {name: torch.from_numpy(value) for name, value in (weights() if arrays is None else arrays).items()}


def _safetensors(folder: Path) -> Written:
    from safetensors.numpy import save_file

    save_file(weights(), folder / "model.safetensors", {"format": "np"})
    return Written(folder / "model.safetensors", weights())


def _sharded(folder: Path) -> Written:
    parts = list(weights().items())
    shards = {"model-00001-of-00002.safetensors": dict(parts[:1]), "model-00002-of-00002.safetensors": dict(parts[1:])}
    return Written(write_sharded(folder / "sharded", shards), weights())


def _npy(folder: Path) -> Written:
    np.save(folder / "a.npy", np.asfortranarray(matrix()))
    return Written(folder / "a.npy", {"a": matrix()})


def _npz(folder: Path, deflated: bool) -> Written:
    (np.savez_compressed if deflated else np.savez)(folder / "a.npz", **weights())
    return Written(folder / "a.npz", weights())


def _torch(folder: Path, legacy: bool) -> Written:
    import torch

    state = tensors()
    state["view"] = state["layers.0.q_proj.weight"].T[2:]
    saved = {"state_dict": state, "epoch": 3, "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()}
    torch.save(saved, folder / "model.pt", _use_new_zipfile_serialization=not legacy)
    return Written(folder / "model.pt", {**weights(), "view": matrix().T[2:]})


def _torchscript(folder: Path) -> Written:
    import torch

    layer = torch.nn.Linear(32, 8, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(matrix()))
    torch.jit.save(torch.jit.trace(layer, torch.ones(1, 32)), folder / "model.jit")
    return Written(folder / "model.jit", {"weight": matrix()})


def _torch_bin(folder: Path) -> Written:
    import torch

    (folder / "bin").mkdir()
    torch.save(tensors(), folder / "bin" / "pytorch_model.bin")
    return Written(folder / "bin", weights())


def _torch_dcp(folder: Path) -> Written:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": tensors(), "epoch": 3}, checkpoint_id=str(folder / "dcp"), no_dist=True)
    return Written(folder / "dcp", weights())


def _torch_dcp_huggingface(folder: Path) -> Written:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    storage = HuggingFaceStorageWriter(str(folder / "hf"), save_distributed=True)
    dcp.save(tensors(), storage_writer=storage, no_dist=True)
    return Written(folder / "hf", weights())


def _deepspeed(folder: Path) -> Written:
    """The directory of DeepSpeed, whose files torch writes."""
    import torch

    step = folder / "ds" / "global_step1"
    step.mkdir(parents=True)
    (folder / "ds" / "latest").write_text("global_step1")
    torch.save({"module": tensors(), "global_steps": 1}, step / "mp_rank_00_model_states.pt")
    return Written(folder / "ds", weights())


def _torch_cast(folder: Path, dtype: str, arrays: Arrays) -> Written:
    import torch

    torch.save({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors(arrays).items()}, folder / "model.pt")
    return Written(folder / "model.pt", arrays)


def _gguf(folder: Path, kind: str = "F32") -> Written:
    import gguf

    dtype = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[kind]
    held = {"blk.0.attn_q.weight": matrix().astype(dtype).astype(np.float32)}
    number = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    for name, value in held.items():
        writer.add_tensor(name, gguf.quantize(value, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Written(folder / "model.gguf", held)


def _onnx(folder: Path, external: bool) -> Written:
    import onnx
    from onnx import helper, numpy_helper

    initializers = [numpy_helper.from_array(value, name) for name, value in weights().items()]
    node = helper.make_node("Identity", ["ids"], ["out"])
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("out", 7, [5])], initializers)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=external, size_threshold=0, location="model.data")
    return Written(path, weights())


def _pickle(folder: Path) -> Written:
    (folder / "model.pkl").write_bytes(pickle.dumps({"params": weights(), "depth": 3}, protocol=4))
    return Written(folder / "model.pkl", {f"params.{name}": value for name, value in weights().items()})


def _joblib(folder: Path, compress: int) -> Written:
    import joblib

    joblib.dump(weights(), folder / "model.joblib", compress=compress)
    return Written(folder / "model.joblib", weights())


def _skops(folder: Path) -> Written:
    import skops.io
    from sklearn.linear_model import Ridge

    model = Ridge().fit(matrix(), matrix()[:, 0])
    skops.io.dump(model, folder / "model.skops")
    return Written(folder / "model.skops", {"coef_": model.coef_})


def _hdf5(folder: Path) -> Written:
    import h5py

    with h5py.File(folder / "model.h5", "w") as file:
        for name, value in weights().items():
            file[name.replace(".", "/")] = value
        file.create_dataset("packed", data=matrix(), chunks=(4, 8), compression="gzip", shuffle=True)
    return Written(folder / "model.h5", {**weights(), "packed": matrix()})


def _keras(folder: Path, suffix: str = "keras") -> Written:
    import os

    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(32, name="dense")])
    model.layers[0].set_weights([matrix(), np.arange(32, dtype=np.float32)])
    path = folder / f"model.{suffix}"
    (model.save if suffix == "keras" else model.save_weights)(path)
    return Written(path, {"layers.dense.kernel": matrix(), "layers.dense.bias": np.arange(32, dtype=np.float32)})


def _matlab(folder: Path, **how: Any) -> Written:
    from scipy.io import savemat

    lacking = (np.float16, np.int64) if how.get("format") == "4" else (np.float16,)
    values = {name.replace(".", "_"): value for name, value in weights().items() if value.dtype not in lacking}
    savemat(folder / "model.mat", values, **how)
    return Written(folder / "model.mat", {name: np.atleast_2d(value) for name, value in values.items()})


def _zarr(folder: Path, version: int) -> Written:
    import zarr

    group = zarr.open_group(folder / "model.zarr", mode="w", zarr_format=version)
    for name, value in weights().items():
        group.create_array(name, data=value, chunks=tuple(max(1, size // 2) for size in value.shape))
    return Written(folder / "model.zarr", weights())


def _orbax(folder: Path) -> Written:
    """The databases of TensorStore, through which Orbax writes."""
    from tests.formats.test_orbax import write_item

    return Written(write_item(folder / "item", weights()), weights())


def _tensorflow(folder: Path) -> Written:
    return Written(write_bundle(folder / "checkpoint" / "ckpt-1", weights(), 2).parent, weights())


BF16, F8 = ml_dtypes.bfloat16, ml_dtypes.float8_e5m2
WRITERS: dict[str, Writer] = {
    "safetensors": Writer("safetensors", _safetensors, "safetensors"),
    "sharded": Writer("huggingface", _sharded),
    "npy": Writer("numpy", _npy, "numpy"),
    "npz": Writer("numpy", partial(_npz, deflated=False), "numpy"),
    "npz-deflated": Writer("numpy", partial(_npz, deflated=True), "numpy"),
    "torch-zip": Writer("pytorch", partial(_torch, legacy=False), "torch"),
    "torch-legacy": Writer("pytorch", partial(_torch, legacy=True), "torch"),
    "torchscript": Writer("pytorch", _torchscript, "torch"),
    "torch-bin": Writer("huggingface", _torch_bin, "torch"),
    "torch-dcp": Writer("torch_dcp", _torch_dcp, "torch"),
    "torch-dcp-huggingface": Writer("huggingface", _torch_dcp_huggingface, "torch"),
    "deepspeed": Writer("deepspeed", _deepspeed, "torch"),
    "pickle": Writer("pickle", _pickle, "pickle"),
    "joblib": Writer("pickle", partial(_joblib, compress=0), "joblib"),
    "joblib-zlib": Writer("pickle", partial(_joblib, compress=3), "joblib"),
    "skops": Writer("skops", _skops, "skops"),
    "gguf": Writer("gguf", _gguf, "gguf"),
    "onnx": Writer("onnx", partial(_onnx, external=False), "onnx"),
    "onnx-external": Writer("onnx", partial(_onnx, external=True), "onnx"),
    "hdf5": Writer("hdf5", _hdf5, "h5py"),
    "keras": Writer("keras", _keras, "keras"),
    "keras-weights": Writer("hdf5", partial(_keras, suffix="weights.h5"), "keras"),
    "matlab": Writer("matlab", _matlab, "scipy"),
    "matlab-packed": Writer("matlab", partial(_matlab, do_compression=True), "scipy"),
    "matlab-4": Writer("matlab", partial(_matlab, format="4"), "scipy"),
    "zarr-2": Writer("zarr", partial(_zarr, version=2), "zarr"),
    "zarr-3": Writer("zarr", partial(_zarr, version=3), "zarr"),
    "orbax": Writer("orbax", _orbax, "tensorstore"),
    "tf-checkpoint": Writer("tensorflow", _tensorflow),
    "torch bfloat16": Writer("pytorch", partial(_torch_cast, dtype="bfloat16", arrays=on_grid(BF16)), "torch", "exact"),
    "torch float16": Writer("pytorch", partial(_torch_cast, dtype="float16", arrays=on_grid("f2")), "torch", "exact"),
    "torch float8": Writer("pytorch", partial(_torch_cast, dtype="float8_e5m2", arrays=on_grid(F8)), "torch", "exact"),
    "torch float64": Writer("pytorch", partial(_torch_cast, dtype="float64", arrays=on_grid("f4")), "torch", "exact"),
    "torch bfloat16 rounded": Writer("pytorch", partial(_torch_cast, dtype="bfloat16", arrays=on_grid("f4")), "torch", "rne"),
    "torch float16 rounded": Writer("pytorch", partial(_torch_cast, dtype="float16", arrays=on_grid("f4")), "torch", "rne"),
    "gguf BF16": Writer("gguf", partial(_gguf, kind="BF16"), "gguf", "exact"),
    "gguf F16": Writer("gguf", partial(_gguf, kind="F16"), "gguf", "exact"),
}
