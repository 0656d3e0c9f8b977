"""Seeded pairs that faults are tried on: the same tensors in one file, in shards, in formats that are decoded."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.checkpoints import write_safetensors, write_sharded

ROOT = Path(__file__).parents[2]
Tensors = dict[str, np.ndarray]


class Scale(NamedTuple):
    """How large: matrices of rows x columns, the chunk size in which they are many tasks, and the number of shards.

    With `shape` the pair is the one of that shape that bench/pair.py writes.
    """

    name: str
    matrices: int
    rows: int
    columns: int
    chunk: str
    shards: int
    shape: str = ""


SMALL = Scale("small", 96, 256, 256, "64KiB", 12)  # 19 MB a side
LARGE = Scale("large", 256, 512, 1024, "256KiB", 64)  # 400 MB a side


class Pair(NamedTuple):
    """Two checkpoints in a folder by their names there, and the tensors that lie in each file, by its path in the folder."""

    kind: str
    folder: Path
    old: str
    new: str
    scale: Scale
    holds: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def files(self) -> dict[str, frozenset[str]]:
        """Names of the tensors of each file with weights."""
        return {path: frozenset(names) for path, names in self.holds}


def tensors(scale: Scale, seed: int) -> tuple[Tensors, Tensors]:
    """Old and new: matrices of float32 and float16 that changed, vectors that did not, one added and one removed."""
    random = np.random.default_rng(seed)
    old: Tensors = {}
    for number in range(scale.matrices):
        values = random.standard_normal((scale.rows, scale.columns), dtype=np.float32) * np.float32(0.02)
        old[f"model.layers.{number}.proj.weight"] = values.astype(np.float16 if number % 2 else np.float32)
        old[f"model.layers.{number}.norm.weight"] = random.standard_normal(scale.columns, dtype=np.float32)
    new = {name: value if value.ndim == 1 else moved(value, random) for name, value in old.items()}
    old["removed.weight"] = random.standard_normal((64, 64), dtype=np.float32)
    new["added.weight"] = random.standard_normal((32, 64), dtype=np.float32)
    return old, new


def moved(value: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A matrix after a step of training."""
    step = random.standard_normal(value.shape, dtype=np.float32) * np.float32(0.001)
    return (value.astype(np.float32) + step).astype(value.dtype)


def _file(path: Path, model: Tensors, scale: Scale) -> tuple[str, Mapping[str, Tensors]]:
    write_safetensors(path.with_suffix(".safetensors"), model)
    return f"{path.name}.safetensors", {f"{path.name}.safetensors": model}


def _shards(path: Path, model: Tensors, scale: Scale) -> tuple[str, Mapping[str, Tensors]]:
    names = list(model)
    count = min(scale.shards, len(names))
    parts = {
        f"model-{i + 1:05}-of-{count:05}.safetensors": {
            n: model[n] for n in names[i * len(names) // count : (i + 1) * len(names) // count]
        }
        for i in range(count)
    }
    write_sharded(path, parts)
    return path.name, {f"{path.name}/{shard}": part for shard, part in parts.items()}


def _npz(path: Path, model: Tensors, scale: Scale) -> tuple[str, Mapping[str, Tensors]]:
    np.savez_compressed(path.with_suffix(".npz"), **model)
    return f"{path.name}.npz", {f"{path.name}.npz": model}


def _hdf5(path: Path, model: Tensors, scale: Scale) -> tuple[str, Mapping[str, Tensors]]:
    import h5py

    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, value in model.items():
            file.create_dataset(name, data=value, chunks=True, compression="gzip", compression_opts=1)
    return f"{path.name}.h5", {f"{path.name}.h5": model}


def _torch(path: Path, model: Tensors, scale: Scale) -> tuple[str, Mapping[str, Tensors]]:
    import torch

    torch.save({name: torch.from_numpy(value) for name, value in model.items()}, path.with_suffix(".pt"))
    return f"{path.name}.pt", {f"{path.name}.pt": model}


KINDS: dict[str, Callable[[Path, Tensors, Scale], tuple[str, Mapping[str, Tensors]]]] = {
    "file": _file,
    "shards": _shards,
    "npz": _npz,
    "hdf5": _hdf5,
    "torch": _torch,
}
NEEDS = {"hdf5": "h5py", "torch": "torch"}


def is_available(kind: str) -> bool:
    """Whether the library that writes a kind of pair is installed."""
    return kind not in NEEDS or find_spec(NEEDS[kind]) is not None


@cache
def written(folder: Path, kind: str, scale: Scale, seed: int = 0) -> Pair:
    """The pair of a kind, written into a folder once."""
    home = folder / f"{kind}-{scale.name}-{seed}"
    home.mkdir(parents=True)
    if scale.shape:
        return _of_benchmark(home, scale)
    old, new = tensors(scale, seed)
    (old_name, old_files), (new_name, new_files) = KINDS[kind](home / "old", old, scale), KINDS[kind](home / "new", new, scale)
    holds = tuple((path, tuple(part)) for path, part in {**old_files, **new_files}.items())
    return Pair(kind, home, old_name, new_name, scale, holds)


def _of_benchmark(home: Path, scale: Scale) -> Pair:
    """Which tensors lie where is not told: these files are too large to be harmed."""
    command = [sys.executable, str(ROOT / "bench" / "pair.py"), str(home), "--shape", scale.shape]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Pair("file", home, "old.safetensors", "new.safetensors", scale, ())


def free_nbytes() -> int:
    """Bytes that are free where pairs are written."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def many_shards(scale: Scale, count: int) -> Scale:
    """The scale of a pair with a shard for each of so many small tensors."""
    return scale._replace(name=f"{count}-shards", matrices=count // 2, rows=32, columns=32, shards=count)
