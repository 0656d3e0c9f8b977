"""The rows of every format, and the one way to open a checkpoint.

Content decides, names come last: a file is shown to each format by its first 4 KiB, a directory by what lies in it. Modules
are imported when they are asked, so that importing this catalogue costs nothing. Formats of plug-ins are asked last.
"""

from __future__ import annotations

import os
import stat
from importlib import import_module
from typing import Literal, NamedTuple, cast

from diffai_stream.errors import DiffaiError, FormatError, MissingExtraError, UsageError
from diffai_stream.formats.base import Checkpoint, Format
from diffai_stream.formats.inert import file_error, listed, open_regular, path_status, read_exactly, stand_in
from diffai_stream.formats.quantized.fold import fold
from diffai_stream.formats.snapshots import is_cache_root, snapshot_of
from diffai_stream.plugins import Catalogue, told
from diffai_stream.storage.remote.addresses import is_remote

HEAD_NBYTES = 4096


class FormatRow(NamedTuple):
    """One format: `module` is imported on use, `extra` is the pip extra it needs, `mapped` bytes are read where they lie,
    `remote`: all it reads may be objects of a store."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    module: str
    extra: str = ""
    access: Literal["mapped", "streamed"] = "mapped"
    notes: str = ""
    remote: bool = False

    def load(self) -> Format:
        """The module of the format. Raises MissingExtraError when a library is not installed."""
        try:
            return cast(Format, import_module(self.module))
        except ImportError as error:
            raise self.missing(error) from error

    def missing(self, error: ImportError) -> MissingExtraError:
        """The error for a library that this format needs and that cannot be imported."""
        install = f"pip install 'diffai-stream[{self.extra}]'" if self.extra else "pip install --force-reinstall diffai-stream"
        return MissingExtraError(f"{self.title} needs {error.name or error}: {install}")


_ROWS = (
    FormatRow(
        "huggingface",
        "Hugging Face directory",
        (".safetensors.index.json",),
        "diffai_stream.formats.huggingface",
        notes="sharded or single safetensors or pytorch_model.bin, diffusers components, the index itself, a cache root",
        remote=True,
    ),
    FormatRow(
        "safetensors", "safetensors", (".safetensors",), "diffai_stream.formats.safetensors", notes="one file", remote=True
    ),
    FormatRow(
        "pytorch",
        "PyTorch checkpoint",
        (".pt", ".pth", ".bin", ".ckpt", ".jit"),
        "diffai_stream.formats.torch_files",
        notes="zip, TorchScript and the older layout; nothing in the pickle is ever imported or called",
    ),
    FormatRow(
        "gguf",
        "GGUF (llama.cpp)",
        (".gguf",),
        "diffai_stream.formats.gguf",
        notes="versions 2 and 3, little endian, split models by any part; lookup types need the gguf package",
        remote=True,
    ),
    FormatRow(
        "pickle",
        "pickle and joblib",
        (".pkl", ".pickle", ".joblib"),
        "diffai_stream.formats.pickle_files",
        notes="arrays of scikit-learn models and others; of compressed files zlib and gzip ones",
    ),
    FormatRow(
        "torch_dcp",
        "torch.distributed.checkpoint",
        (".metadata",),
        "diffai_stream.formats.torch_dcp",
        notes="directories of any world size, boxes of any sharding put together",
    ),
    FormatRow(
        "deepspeed",
        "DeepSpeed checkpoint",
        ("_model_states.pt",),
        "diffai_stream.formats.deepspeed",
        notes="directories whose weights are whole (ZeRO stages 1 and 2, one tensor-parallel rank); others are refused",
    ),
    FormatRow("skops", "skops", (".skops",), "diffai_stream.formats.skops_files", notes="scikit-learn models without a pickle"),
    FormatRow(
        "numpy",
        "NumPy .npy and .npz",
        (".npy", ".npz"),
        "diffai_stream.formats.numpy_files",
        notes="members of a compressed .npz are inflated as a stream",
    ),
    FormatRow(
        "hdf5",
        "HDF5",
        (".h5", ".hdf5", ".hdf"),
        "diffai_stream.formats.hdf5",
        notes="Keras weights, MATLAB 7.3; contiguous data is mapped, deflated chunks unpacked; other filters need h5py",
    ),
    FormatRow(
        "keras",
        "Keras archive and sharded weights",
        (".keras", ".weights.json"),
        "diffai_stream.formats.keras",
        notes="weights mapped inside of the archive; the model's configuration is never evaluated",
    ),
    FormatRow("onnx", "ONNX", (".onnx",), "diffai_stream.formats.onnx", notes="weights in the file or in files beside it"),
    FormatRow(
        "tensorflow",
        "TensorFlow checkpoint, SavedModel, frozen graph",
        (".index", ".pb"),
        "diffai_stream.formats.tensorflow",
        notes="partitioned variables are joined; strings are left out and said",
    ),
    FormatRow(
        "orbax",
        "Orbax (OCDBT)",
        (".ocdbt",),
        "diffai_stream.formats.orbax",
        extra="orbax",
        access="streamed",
        notes="steps, items, with an OCDBT database or a directory an array; unpacked chunk by chunk",
    ),
    FormatRow(
        "zarr",
        "zarr",
        (".zarr", "zarr.json", ".zarray", ".zgroup"),
        "diffai_stream.formats.zarr_files",
        extra="zarr",
        notes="versions 2 and 3; plain chunks of whole rows are mapped, others unpacked chunk by chunk, sharded or not",
    ),
    FormatRow(
        "matlab",
        "MATLAB",
        (".mat",),
        "diffai_stream.formats.matlab",
        notes="levels 4 and 5, structs and cells by name; compressed matrices are spilled; version 7.3 is HDF5",
    ),
)

FORMATS: Catalogue[FormatRow] = Catalogue("formats", FormatRow, _ROWS)


def open_checkpoint(path: str) -> Checkpoint:
    """Index the checkpoint at a path or address, whatever its format; reads headers only.

    Raises FormatError when it cannot be read or is of no known format, MissingExtraError when its library is not installed,
    UsageError for an address of a format that is not read remotely.
    """
    if is_remote(path):
        from diffai_stream.formats.remote import open_remote

        suffixes = [suffix for row in FORMATS.values() for suffix in row.suffixes if not suffix.endswith(".zarr")]
        return open_remote(path, lambda stand_in: _open(stand_in, is_remote=True), suffixes)
    return _open(path)


def _open(path: str, is_remote: bool = False) -> Checkpoint:
    given, path = path, _index_of_prefix(path)
    status = path_status(path)
    head = b"" if stat.S_ISDIR(status.st_mode) else _read_head(path)
    row = _by_content(path, head)
    if row is None and not head:
        raise _no_weights(path)
    row = row or _by_name(path, head)
    if is_remote and not row.remote:
        known = listed([row.title for row in FORMATS.values() if row.remote])
        raise UsageError(f"{row.title} is not read remotely ({known} are); download it first", path=path)
    checkpoint = _index(row, path)
    return fold(checkpoint._replace(path=given), _directory(path))


def _index(row: FormatRow, path: str) -> Checkpoint:
    try:
        return row.load().index(path)
    except DiffaiError:
        raise
    except ImportError as error:
        raise row.missing(error) from error
    except Exception as error:
        if row.name in FORMATS.origins:
            owner = FORMATS.origins[row.name].distribution
            raise FormatError(f"the plug-in for {row.title} of {owner} failed: {told(error)}", path=path) from error
        raise


def _index_of_prefix(path: str) -> str:
    """TensorFlow names a checkpoint by the common beginning of its files, which is no file itself: then its index."""
    index = f"{path}.index"
    return index if not os.path.lexists(path) and os.path.isfile(index) else path


def _directory(path: str) -> str:
    """Where the configuration of the checkpoint at a path lies."""
    if not os.path.isdir(path):
        return os.path.dirname(path)
    return snapshot_of(path) if is_cache_root(path) else path


def _read_head(path: str) -> bytes:
    with open_regular(path) as (file, stamp):
        if stamp.nbytes == 0:
            raise FormatError("the file is empty (0 bytes): was it written or downloaded completely?", path=path)
        return read_exactly(file, 0, min(HEAD_NBYTES, stamp.nbytes), path)


def _by_content(path: str, head: bytes) -> FormatRow | None:
    own = next((row for row in FORMATS.values() if row.name not in FORMATS.origins and row.load().probe(path, head)), None)
    return own or next((row for row in _plugins() if _claims(row, path, head)), None)


def _plugins() -> list[FormatRow]:
    return [FORMATS[name] for name in FORMATS.complete().origins]


def _claims(row: FormatRow, path: str, head: bytes) -> bool:
    """Whether a plug-in's format knows the path; one that fails is left out from now on."""
    try:
        return row.load().probe(path, head)
    except Exception as error:
        FORMATS.drop(row.name, told(error))
        return False


def _by_name(path: str, head: bytes) -> FormatRow:
    """The format that the suffix promises, so that its reader can say what is wrong. Raises FormatError when there is none."""
    if reason := stand_in(head):
        raise FormatError(reason, path=path)
    for row in FORMATS.values():
        if path.lower().endswith(row.suffixes):
            return row
    known = "; ".join(f"{row.title} ({', '.join(row.suffixes)})" for row in FORMATS.values())
    raise FormatError(f"of no known format: it begins {head[:16].hex(' ')}; known are {known}", path=path)


def _no_weights(path: str) -> FormatError:
    """The error for a directory that no format claims: what was looked for, what is there, where weights may be."""
    try:
        listing = sorted(os.scandir(path), key=lambda item: item.name)
    except OSError as error:
        return file_error(path, error)
    inside = [item.name for item in listing if holds_weights(item.path)]
    if inside:
        return FormatError(f"no weights at the top of this directory; name one inside it: {listed(inside)}", path=path)
    names = listed([item.name for item in listing], 5)
    looked = (
        "*.safetensors or pytorch_model*.bin with or without their index, a Hugging Face cache with snapshots/, "
        "saved_model.pb, a TensorFlow checkpoint"
    )
    return FormatError(f"no weights in this directory (looked for {looked}); it holds {names or 'nothing'}", path=path)


def holds_weights(path: str) -> bool:
    """Whether a format claims the directory at a path."""
    try:
        return os.path.isdir(path) and _by_content(path, b"") is not None
    except (OSError, FormatError):
        return False
