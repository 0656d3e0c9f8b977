"""Files of torch that others have published: what real writers of several years wrote."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare


def packaged(package: str, *parts: str) -> Path | None:
    """A folder of an installed package, without importing it."""
    found = find_spec(package)
    return Path(str(found.origin)).parent.joinpath(*parts) if found else None


LPIPS, SILERO = packaged("lpips", "weights"), packaged("silero_vad", "data")
NETWORKS = {"alex": 5, "vgg": 5, "squeeze": 7}


@pytest.mark.skipif(LPIPS is None, reason="lpips is not installed")
@pytest.mark.parametrize("network", NETWORKS)
def test_two_releases_of_lpips(network):
    """Files in the older layout, written by Python 2 and Python 3."""
    old, new = (LPIPS / release / f"{network}.pth" for release in ("v0.0", "v0.1"))
    for path in (old, new):
        found = open_checkpoint(str(path))
        assert (found.errors, found.oddities, found.unsafe_globals) == ((), (), ())
        assert len(found.tensors) == NETWORKS[network]
    records = list(compare(str(old), str(new)))
    changed = [record for record in records if record["type"] == "tensor"]
    assert records[-1]["status"] == "different"
    assert len(changed) == NETWORKS[network]
    assert all(record["old"]["shape"] == record["new"]["shape"] for record in changed)


@pytest.mark.skipif(LPIPS is None, reason="lpips is not installed")
@pytest.mark.parametrize("release", ["v0.0", "v0.1"])
@pytest.mark.parametrize("network", NETWORKS)
def test_values_are_those_that_torch_reads(release, network, tmp_path):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    path = LPIPS / release / f"{network}.pth"
    safetensors.save_file(torch.load(path, map_location="cpu", weights_only=True), tmp_path / "x.safetensors")
    summary = list(compare(str(path), str(tmp_path / "x.safetensors")))[-1]
    assert (summary["status"], summary["counts"]["unchanged"]) == ("equivalent", NETWORKS[network])


@pytest.mark.skipif(SILERO is None, reason="silero-vad is not installed")
@pytest.mark.filterwarnings("ignore")
def test_torchscript_of_silero(tmp_path):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    path = SILERO / "silero_vad.jit"
    found = open_checkpoint(str(path))
    assert (found.format, found.errors, found.unsafe_globals) == ("pytorch", (), ())
    state = torch.jit.load(path, map_location="cpu").state_dict()
    safetensors.save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "x.safetensors")
    records = list(compare(str(tmp_path / "x.safetensors"), str(path)))
    assert (records[-1]["counts"]["unchanged"], records[-1]["counts"]["changed"]) == (len(state), 0)
    assert [record for record in records if record["type"] in ("error", "warning")] == []


@pytest.mark.skipif(SILERO is None, reason="silero-vad is not installed")
def test_a_tensor_of_silero_is_found_under_another_name():
    records = list(compare(str(SILERO / "silero_vad_16k.safetensors"), str(SILERO / "silero_vad.jit")))
    pairs = {record["name"]: record["new"] for record in records if record["type"] == "tensor" and record["match"] == "renamed"}
    assert pairs["stft_conv.weight"]["name"] == "_model.stft.forward_basis_buffer"
