"""Weights of many kinds for the formats that hold arrays, and HDF5 files of every generation written with them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

LIBVERS = ["earliest", ("earliest", "v108"), "v110", "v112", "v114", "latest"]


def native(array: np.ndarray) -> np.ndarray:
    """The array in C order and this machine's byte order."""
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def plain_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of every element type that all array formats can hold."""
    random = np.random.default_rng(seed)
    normal = random.normal(size=(24, 36))
    return {
        **{f"real.{code}": normal.astype(code) for code in ("f2", "f4", "f8")},
        **{f"whole.{kind}{size}": (normal * 20).astype("i8").astype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)},
        "complex.c8": (normal + 1j * normal[::-1]).astype("c8"),
        "line": random.normal(size=5000).astype("f4"),
        "deep": random.normal(size=(3, 4, 5, 6)).astype("f4"),
        "flag": normal > 0,
    }


def write_hdf5(path: Path, libver: object, tracked: bool = False) -> dict[str, np.ndarray]:
    """A file with every layout, filter and chunk index that HDF5 has for numbers; what it holds, by name."""
    random, held = np.random.default_rng(1), plain_arrays()
    packed = random.integers(0, 9, size=(500, 77))
    with h5py.File(path, "w", libver=libver, track_order=tracked) as file:

        def put(name: str, array: np.ndarray, **how: object) -> None:
            file.create_dataset(name, data=array, **how)
            held[name.replace("/", ".")] = native(array)

        for name, array in list(held.items()):
            file[name] = array
        put("group/inner/big_endian", random.normal(size=(30, 40)).astype(">f4"))
        put("scalar", np.float64(3.5))
        put("empty", np.zeros((0, 4), "f4"))
        put("deflated", packed.astype("f4"), chunks=(64, 20), compression="gzip")
        put("summed", packed.astype(">f8"), chunks=(64, 77), compression="gzip", shuffle=True, fletcher32=True)
        put("by_library", packed.astype("i4"), chunks=(64, 20), compression="lzf", shuffle=True)
        put("rows", packed.astype("f4"), chunks=(64, 77))
        put("tiles", packed.astype("f4"), chunks=(64, 11))
        put("one_chunk", packed.astype("f4"), chunks=(500, 77))
        put("single_deflated", packed.astype("f4"), chunks=(500, 77), compression="gzip")
        put("growing", packed.astype("f4"), chunks=(64, 77), maxshape=(None, 77))
        put("growing_both", packed.astype("f4"), chunks=(64, 11), maxshape=(None, None), compression="gzip")
        put("growing_both_plain", packed.astype("f4"), chunks=(4, 3), maxshape=(None, None))
        put("room_left", packed.astype("f4"), chunks=(64, 11), maxshape=(900, 200), compression="gzip")
        put("many_axes", random.normal(size=(3, 4, 5, 6, 7)).astype("f4"), chunks=(1, 2, 5, 3, 7), compression="gzip")
        put("paged", random.integers(0, 9, (3000, 8)).astype("i2"), chunks=(1, 3), compression="gzip")
        for name, how in (("rows_missing", {}), ("packed_missing", {"compression": "gzip"})):
            dataset = file.create_dataset(name, (100, 60), "f4", chunks=(10, 60), fillvalue=2.5, **how)
            dataset[13] = 1
            held[name] = dataset[...]
        held["never"] = file.create_dataset("never", (100, 60), "f4", fillvalue=-1.5)[...]
        held["early"] = _low_level(file, "early", packed.astype("f4"), chunks=(100, 11), early=True)
        held["compact"] = _low_level(file, "compact", packed[:5, :7].astype("f4"), compact=True)
        for number in range(60):
            put(f"many/t{number}", random.normal(size=number + 1).astype("f4"))
    return held


def _low_level(
    file: h5py.File, name: str, array: np.ndarray, chunks: tuple[int, ...] = (), early: bool = False, compact: bool = False
) -> np.ndarray:
    """A dataset in a layout that h5py has no words for."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if compact:
        how.set_layout(h5py.h5d.COMPACT)
    if chunks:
        how.set_chunk(chunks)
    if early:
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple(array.shape)
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, how)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array
