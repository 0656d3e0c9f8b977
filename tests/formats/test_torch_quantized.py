"""Quantized tensors of torch, against what torch dequantizes them to."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.filterwarnings("ignore")


def values(*shape: int):
    torch.manual_seed(2)
    return torch.randn(*shape)


def per_channel(tensor, axis: int, dtype):
    scales = torch.linspace(0.01, 0.05, tensor.shape[axis], dtype=torch.float64)
    zeros = torch.arange(tensor.shape[axis]) % 3
    return torch.quantize_per_channel(tensor, scales, zeros, axis, dtype)


TENSORS = {
    "per_tensor": lambda: torch.quantize_per_tensor(values(30, 20), 0.013, 3, torch.qint8),
    "unsigned": lambda: torch.quantize_per_tensor(values(30, 20), 0.02, 128, torch.quint8),
    "wide": lambda: torch.quantize_per_tensor(values(30, 20), 1e-4, 0, torch.qint32),
    "scalar": lambda: torch.quantize_per_tensor(torch.tensor(1.25), 0.01, 0, torch.qint8),
    "rows": lambda: per_channel(values(30, 20), 0, torch.qint8),
    "columns": lambda: per_channel(values(30, 20), 1, torch.quint8),
    "convolution": lambda: per_channel(values(8, 3, 5, 5), 0, torch.qint8),
    "inner_axis": lambda: per_channel(values(8, 3, 5, 5), 1, torch.qint8),
    "channels_last": lambda: torch.quantize_per_tensor(
        values(8, 3, 5, 5).to(memory_format=torch.channels_last), 0.02, 1, torch.qint8
    ),
    "transposed": lambda: torch.quantize_per_tensor(values(30, 20), 0.013, 3, torch.qint8).t(),
}


def export(path: Path, tensor) -> Path:
    safetensors.save_file({"w": tensor.dequantize().contiguous()}, path)
    return path


@pytest.mark.parametrize("writer", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", TENSORS)
def test_codes_decode_to_what_torch_says(kind, writer, tmp_path):
    tensor = TENSORS[kind]()
    torch.save({"w": tensor}, tmp_path / "q.pt", **writer)
    records = list(compare(str(export(tmp_path / "x.safetensors", tensor)), str(tmp_path / "q.pt")))
    assert [record for record in records if record["type"] == "error"] == []
    (record,) = [record for record in records if record["type"] == "tensor"]
    assert (record["status"], record["old"]["shape"]) == ("retyped", list(tensor.shape))
    assert (records[-1]["status"], "encoding" in records[-1]["differs_in"]) == ("equivalent", True)


def test_chunks_of_a_large_strided_tensor(tmp_path):
    tensor = torch.quantize_per_tensor(values(64, 48, 40), 0.02, 1, torch.qint8).permute(0, 2, 1)
    torch.save({"w": tensor}, tmp_path / "q.pt")
    path = export(tmp_path / "x.safetensors", tensor)
    assert list(compare(str(path), str(tmp_path / "q.pt"), chunk_size=1 << 16))[-1]["status"] == "equivalent"


def test_a_quantized_linear_layer(tmp_path):
    model = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(20, 10)), dtype=torch.qint8)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    found = open_checkpoint(str(tmp_path / "m.pt"))
    assert found.errors == ()
    assert {entry.encoding for entry in found.tensors} >= {"QINT8"}


def test_bits_per_weight_count_the_scales(tmp_path):
    torch.save({"w": TENSORS["rows"]()}, tmp_path / "m.pt")
    (entry,) = open_checkpoint(str(tmp_path / "m.pt")).tensors
    assert entry.stored_nbytes == 30 * 20 + 30 * 8 + 30 * 8
