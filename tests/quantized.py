"""Quantized checkpoints read through everything between a file and its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.plan.sources import Source
from tests.checkpoints import Declared, write_safetensors


def torch_declared(tensor) -> Declared:
    """dtype name, shape and bytes of a torch tensor."""
    import torch

    names = {
        **{torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.bool: "BOOL"},
        **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
        **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0"},
    }
    shape = tuple(tensor.shape)
    raw = tensor.detach().contiguous().reshape(-1)
    return names[tensor.dtype], shape, raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b""


def write(folder: Path, tensors: Mapping[str, object], quantization: object = None, metadata=None, key="quantization_config"):
    """A directory with one safetensors file of NumPy arrays, torch tensors or declared triples, and its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: value if isinstance(value, np.ndarray | tuple) else torch_declared(value) for name, value in tensors.items()
    }
    write_safetensors(folder / "model.safetensors", stored, metadata)
    if quantization is not None:
        (folder / "config.json").write_text(json.dumps({key: quantization}))
    return folder


def values(entry: TensorEntry, seed: int = 0) -> np.ndarray:
    """All values of an entry; what is read between random borders must be the same bits."""
    source = Source(entry, {}, "auto")
    whole = source.read(0, entry.numel).view(np.float32)
    rng = np.random.default_rng(seed)
    for _ in range(6):
        start, stop = sorted(rng.integers(0, entry.numel + 1, 2))
        piece = Source(entry, {}, "pread").read(int(start), int(stop))
        assert piece.tobytes() == whole[start:stop].tobytes(), (start, stop)
    return whole.reshape(entry.shape)


def opened(path: Path) -> tuple[dict[str, TensorEntry], Checkpoint]:
    """The entries of a checkpoint by name, and the checkpoint, which has no errors."""
    checkpoint = open_checkpoint(str(path))
    assert not checkpoint.errors
    return {entry.name: entry for entry in checkpoint.tensors}, checkpoint


def codes_of(checkpoint: Checkpoint) -> set[str]:
    """The codes of its oddities, but for alignment."""
    return {oddity.code for oddity in checkpoint.oddities} - {"unaligned"}
