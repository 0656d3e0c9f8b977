"""Distributed checkpoints of torch: of one rank as torch writes them, of several put down with its own classes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest

from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.pickled.allowed import Names
from diffai_stream.pipeline import compare

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
pytestmark = pytest.mark.filterwarnings("ignore")

Box = tuple[tuple[int, ...], tuple[int, ...]]


def weights() -> dict:
    torch.manual_seed(5)
    return {
        "layers.0.weight": torch.randn(10, 6),
        "layers.0.bias": torch.randn(7),
        "conv.weight": torch.randn(5, 3, 4),
        "big": torch.randn(64, 48).to(torch.bfloat16),
        "scale": torch.tensor(2.5),
    }


def exported(path: Path, tensors: dict) -> Path:
    safetensors.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def cut(tensor, ranks: int, axis: int) -> list[Box]:
    """Boxes as ranks would have them, cut along one axis."""
    if not tensor.shape:
        return [((), ())]
    axis %= tensor.dim()
    boxes, start = [], 0
    for piece in tensor.chunk(ranks, axis):
        origin = [0] * tensor.dim()
        origin[axis] = start
        boxes.append((tuple(origin), tuple(piece.shape)))
        start += piece.shape[axis]
    return boxes


def saved(directory: Path, tensors: dict, ranks: int, axis: int, prefix: Sequence[str] = ("model",)) -> Path:
    """A checkpoint of several ranks, one file each, with the metadata that torch writes."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    directory.mkdir()
    described, placed, paths = {}, {}, {}
    files = [(directory / f"__{rank}_0.distcp").open("wb") for rank in range(ranks)]
    for name, tensor in tensors.items():
        fqn = ".".join((*prefix, name))
        paths[fqn] = (*prefix, name)
        chunks = []
        for rank, (origin, sizes) in enumerate(cut(tensor, ranks, axis)):
            piece = tensor[tuple(slice(o, o + s) for o, s in zip(origin, sizes, strict=True))].clone()
            start = files[rank].tell()
            torch.save(piece, files[rank])
            chunks.append(ChunkStorageMetadata(torch.Size(origin), torch.Size(sizes)))
            info = _StorageInfo(f"__{rank}_0.distcp", start, files[rank].tell() - start)
            placed[MetadataIndex(fqn, torch.Size(origin))] = info
        described[fqn] = TensorStorageMetadata(TensorProperties(dtype=tensor.dtype), tensor.shape, chunks)
    for file in files:
        file.close()
    metadata = Metadata(described, planner_data=paths, storage_data=placed)
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    return directory


def errors_of(records: list) -> list:
    return [record for record in records if record["type"] == "error"]


def test_one_rank_as_torch_writes_it(tmp_path):
    state = {
        "model": weights(),
        "optimizer": {"state": {"big": {"exp_avg": torch.ones(64, 48)}}, "param_groups": [{"lr": 0.1, "params": ["big"]}]},
        "epoch": 3,
    }
    dcp.save(state, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    found = open_checkpoint(str(tmp_path / "dcp"))
    assert (found.format, found.errors, found.unsafe_globals, found.container) == ("torch_dcp", (), (), "directory")
    assert found.hyperparameters == {"epoch": 3, "optimizer.param_groups.0.lr": 0.1}
    assert {entry.name: entry.part for entry in found.tensors} == {
        **dict.fromkeys(weights(), "weights"),
        "optimizer.state.big.exp_avg": "optimizer",
    }
    summary = list(compare(str(exported(tmp_path / "x.safetensors", weights())), str(tmp_path / "dcp")))[-1]
    assert (summary["status"], summary["counts"]["unchanged"]) == ("equivalent", len(weights()))


def test_members_of_enumerations_as_early_patches_of_python_3_11_pickle_them(tmp_path, monkeypatch):
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", lambda self, _: (getattr, (type(self), self.name)))
    dcp.save(weights(), checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    assert b"getattr" in (tmp_path / "dcp" / ".metadata").read_bytes()
    found = open_checkpoint(str(tmp_path / "dcp"))
    assert (found.unsafe_globals, {entry.name for entry in found.tensors}) == ((), set(weights()))


@pytest.mark.parametrize(
    "other", [("os", "SYSTEM"), ("torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING", "__class__")]
)
def test_any_other_use_of_getattr_is_reported(other):
    names = Names()
    find = names.find("builtins", "getattr").call
    find(names.find("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"), "TORCH_CONTIGUOUS_FORMAT")
    assert names.told() == ()
    find(names.find(*other[0].rpartition(".")[::2]), other[1])
    assert "builtins.getattr" in names.told()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_sharding_is_the_same_tensor(ranks, axis, tmp_path):
    directory = saved(tmp_path / "dcp", weights(), ranks, axis)
    template = {"model": {name: torch.zeros_like(tensor) for name, tensor in weights().items()}}
    dcp.load(template, checkpoint_id=str(directory), no_dist=True)
    assert all(torch.equal(template["model"][name], tensor) for name, tensor in weights().items())
    records = list(compare(str(exported(tmp_path / "x.safetensors", weights())), str(directory)))
    assert errors_of(records) == []
    assert (records[-1]["status"], records[-1]["counts"]["unchanged"]) == ("equivalent", len(weights()))


def test_world_sizes_and_axes_against_each_other(tmp_path):
    changed = weights()
    changed["conv.weight"][3, 2, 1] += 1
    old, new = saved(tmp_path / "a", weights(), 3, 0), saved(tmp_path / "b", changed, 2, 1)
    records = list(compare(str(old), str(new)))
    (record,) = [record for record in records if record["type"] == "tensor"]
    assert (record["name"], record["change"]["max_abs_index"]) == ("conv.weight", [3, 2, 1])
    assert errors_of(records) == []


def test_small_chunks_of_a_large_box(tmp_path):
    tensors = {"w": torch.randn(300, 700)}
    directory = saved(tmp_path / "dcp", tensors, 3, 1)
    records = list(compare(str(exported(tmp_path / "x.safetensors", tensors)), str(directory), chunk_size=1 << 16))
    assert (records[-1]["status"], errors_of(records)) == ("equivalent", [])


def test_missing_and_damaged_ranks_cost_their_tensors(tmp_path):
    directory = saved(tmp_path / "dcp", weights(), 2, 0)
    (directory / "__1_0.distcp").unlink()
    found = open_checkpoint(str(directory))
    assert [entry.name for entry in found.tensors] == ["scale"]
    assert {error.tensor for error in found.errors} == set(weights()) - {"scale"}
    assert all("no such file" in error.message for error in found.errors)
    raw = bytearray((directory / "__0_0.distcp").read_bytes())
    (directory / "__0_0.distcp").write_bytes(raw[: len(raw) // 2])
    assert "scale" in {error.tensor for error in open_checkpoint(str(directory)).errors}


def test_chunks_that_do_not_make_up_the_tensor(tmp_path):
    directory = saved(tmp_path / "dcp", weights(), 2, 0)
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    metadata.state_dict_metadata["model.big"].chunks.pop()
    del metadata.storage_data[next(index for index in metadata.storage_data if index.fqn == "model.conv.weight")]
    for info in metadata.storage_data.values():
        info.relative_path = info.relative_path.replace("__1", "../__1")
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    messages = {error.tensor: error.message for error in open_checkpoint(str(directory)).errors}
    assert "do not make up" in messages["big"]
    assert "do not say where" in messages["conv.weight"]
    assert "no file of the directory" in messages["layers.0.bias"]


def test_metadata_of_another_kind(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    (tmp_path / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match="does not hold the metadata"):
        open_checkpoint(str(tmp_path))


def test_chunks_that_claim_one_place_are_refused(tmp_path):
    """Otherwise a small file could be read a million times."""
    tensors = {f"w{number}": torch.ones(4) for number in range(20)}
    directory = saved(tmp_path / "dcp", tensors, 1, 0)
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    first = next(iter(metadata.storage_data.values()))
    for info in metadata.storage_data.values():
        info.offset, info.length = first.offset, (directory / "__0_0.distcp").stat().st_size // 2
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    assert all("overlap" in error.message or "zip" in error.message for error in open_checkpoint(str(directory)).errors)
    assert any("overlap" in error.message for error in open_checkpoint(str(directory)).errors)


def test_a_billion_laughs_as_metadata(tmp_path):
    from tests.formats.pickle_bytes import TUPLE1, TUPLE2, pickle_of, text

    laughs = (
        text("lol") + TUPLE1 + b"q\x00" + b"".join(bytes([104, n, 104, n]) + TUPLE2 + bytes([113, n + 1]) for n in range(200))
    )
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    (tmp_path / ".metadata").write_bytes(pickle_of(laughs))
    with pytest.raises(FormatError, match="does not hold the metadata"):
        open_checkpoint(str(tmp_path))
