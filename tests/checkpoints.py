"""Small checkpoints for tests: written byte by byte, so that what no library would write can be written too."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Declared = tuple[str, tuple[int, ...], bytes]
NUMPY_NAMES = {
    **{"float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL", "complex64": "C64", "bfloat16": "BF16"},
    **{f"{'u' if kind == 'U' else ''}int{bits}": f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)},
}


def declared(value: np.ndarray | Declared) -> Declared:
    """dtype name, shape and bytes of an array; a triple of them as it is."""
    if isinstance(value, tuple):
        return value
    return NUMPY_NAMES[value.dtype.name], value.shape, np.ascontiguousarray(value).tobytes()


def write_raw_safetensors(
    path: Path, header: bytes | str | Mapping[str, object], data: bytes = b"", length: int | None = None
) -> Path:
    """A file with this header, whatever it says; `length` lies about its size."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray | Declared], metadata: Mapping[str, str] | None = None, aligned: bool = True
) -> Path:
    """A sound file with the tensors in the order given, of any dtype string; the header is padded to 8 bytes when `aligned`."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    blobs, place = [], 0
    for name, value in tensors.items():
        dtype, shape, raw = declared(value)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + len(raw)]}
        blobs.append(raw)
        place += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    padding = b" " * (-len(text) % 8) if aligned else b""
    return write_raw_safetensors(path, text + padding, b"".join(blobs))


def write_sharded(
    directory: Path,
    shards: Mapping[str, Mapping[str, np.ndarray | Declared]],
    weight_map: Mapping[str, object] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """A directory of shards and their index, which is right unless `weight_map` or `metadata` say otherwise."""
    for shard, tensors in shards.items():
        write_safetensors(directory / shard, tensors, {"format": "pt"})
    right = {name: shard for shard, tensors in shards.items() for name in tensors}
    total = sum(len(declared(value)[2]) for tensors in shards.values() for value in tensors.values())
    index = {"metadata": {"total_size": total} if metadata is None else dict(metadata), "weight_map": dict(weight_map or right)}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def write_cache(root: Path, files: Mapping[str, bytes], commit: str = "c" * 40, blobs: Mapping[str, str] | None = None) -> Path:
    """A Hugging Face cache root with one snapshot of links into blobs, as `huggingface_hub` lays it out."""
    snapshot = root / "snapshots" / commit
    for folder in (snapshot, root / "blobs", root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (name, content) in enumerate(files.items()):
        blob = (blobs or {}).get(name, f"{number:064x}")
        (root / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / blob)
    (root / "refs" / "main").write_text(commit)
    return root


def read_extents(entry: object) -> bytes:
    """The stored bytes of a tensor entry's data, inflated where they are deflated."""
    import zlib

    parts = []
    for extent in entry.components["data"].extents:  # type: ignore[attr-defined]
        raw = Path(extent.path).read_bytes()
        if extent.codec:
            *_, skip, compressed = extent.codec.split(":")
            inflated = zlib.decompress(raw[extent.offset : extent.offset + int(compressed)], -15)
            parts.append(inflated[int(skip) : int(skip) + extent.nbytes])
        else:
            parts.append(raw[extent.offset : extent.offset + extent.nbytes])
    return b"".join(parts)
