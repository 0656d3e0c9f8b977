"""Training checkpoints: the verdict is about the weights; the rest is compared apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.filterwarnings("ignore")


def model():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 8))


def training(path: Path, steps: int = 2, rate: float = 0.01, **more) -> Path:
    """A checkpoint after some steps from the same start; the weights are put back, so that only the state differs."""
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(steps):
        network(torch.full((4, 8), float(step)) + torch.arange(4.0)[:, None]).square().sum().backward()
        optimizer.step()
    torch.save({"model": start, "optimizer": optimizer.state_dict(), "epoch": steps, **more}, path)
    return path


def run(old: Path, new: Path, **options) -> tuple[list, dict]:
    records = list(compare(str(old), str(new), **options))
    assert [record for record in records if record["type"] == "error"] == []
    return records, records[-1]


def codes(records: list) -> list[str]:
    return [record["code"] for record in records if record["type"] == "warning"]


def exported(path: Path) -> Path:
    safetensors.save_file(model().state_dict(), path)
    return path


@pytest.mark.parametrize("swapped", [False, True])
def test_state_of_one_side_is_told_and_not_read(swapped, tmp_path):
    sides = [training(tmp_path / "a.pt"), exported(tmp_path / "b.safetensors")]
    records, summary = run(*(reversed(sides) if swapped else sides))
    assert (summary["status"], summary["exit_status"]) == ("equivalent", 0)
    assert summary["differs_in"] == ["container", "optimizer_state"]
    assert codes(records) == ["one_sided_state"]
    assert summary["counts"]["unchanged"] == len(model().state_dict())
    assert sum(summary["counts"].values()) == summary["counts"]["unchanged"]
    sizes = sum(tensor.numel() for tensor in model().state_dict().values())
    assert (summary["parameter_count"]["old"], summary["parameter_count"]["new"]) == (sizes, sizes)


def test_state_of_both_sides_is_compared_apart(tmp_path):
    old, new = training(tmp_path / "a.pt"), training(tmp_path / "b.pt", steps=5, rate=0.02)
    records, summary = run(old, new)
    assert (summary["status"], summary["differs_in"]) == ("equivalent", ["optimizer_state"])
    assert summary["counts"]["changed"] == 0
    assert codes(records) == ["settings_differ"]
    changed = {record["name"]: record["part"] for record in records if record["type"] == "tensor"}
    assert changed["optimizer.state.0.weight.exp_avg_sq"] == "optimizer"
    assert set(changed.values()) == {"optimizer"}
    layers = {record["subject"] for record in records if record["type"] == "layer_impact"}
    assert not [layer for layer in layers if layer.startswith("optimizer")]


def test_state_counts_on_request(tmp_path):
    old, new = training(tmp_path / "a.pt"), training(tmp_path / "b.pt", steps=5)
    _, summary = run(old, new, compare_gradients=True)
    assert (summary["status"], summary["exit_status"]) == ("different", 1)
    assert summary["counts"]["changed"] > 0


def test_settings_alone_count_on_request(tmp_path):
    old, new = training(tmp_path / "a.pt"), training(tmp_path / "b.pt", note="x")
    assert run(old, new)[1]["status"] == "equivalent"
    assert run(old, new, compare_gradients=True)[1]["status"] == "different"


def test_state_is_ignored_on_request(tmp_path):
    old, new = training(tmp_path / "a.pt"), training(tmp_path / "b.pt", steps=5)
    records, summary = run(old, new, ignore_optimizer_state=True)
    assert (summary["status"], summary["differs_in"]) == ("identical", [])
    assert codes(records) == []
    assert summary["read_nbytes"] < run(old, new)[1]["read_nbytes"]


def test_a_changed_average_leaves_the_verdict(tmp_path):
    ema = {name: tensor + 1 for name, tensor in model().state_dict().items() if tensor.is_floating_point()}
    old = training(tmp_path / "a.pt", ema=model().state_dict())
    new = training(tmp_path / "b.pt", ema={**model().state_dict(), **ema})
    records, summary = run(old, new)
    assert (summary["status"], summary["differs_in"]) == ("equivalent", ["optimizer_state"])
    assert {record["part"] for record in records if record["type"] == "tensor"} == {"ema"}


def test_averages_never_pair_with_weights(tmp_path):
    """Without its average the other side's weights would have equal bytes."""
    torch.save({"model": {"a": torch.ones(9, 9)}, "ema": {"a": torch.arange(81.0).reshape(9, 9)}}, tmp_path / "a.pt")
    torch.save({"model": {"b": torch.arange(81.0).reshape(9, 9)}, "ema": {"b": torch.ones(9, 9)}}, tmp_path / "b.pt")
    _, summary = run(tmp_path / "a.pt", tmp_path / "b.pt")
    assert summary["status"] == "different"
    assert (summary["counts"]["removed"], summary["counts"]["added"]) == (1, 1)


def test_not_a_number_in_the_state_is_an_anomaly(tmp_path):
    broken = training(tmp_path / "a.pt")
    found = torch.load(broken, weights_only=True)
    found["optimizer"]["state"][0]["exp_avg"][0, 0] = float("nan")
    torch.save(found, broken)
    records, _ = run(broken, training(tmp_path / "b.pt"))
    anomalies = [record for record in records if record["type"] == "anomaly"]
    assert [(a["kind"], a["subject"]) for a in anomalies if a["subject"].startswith("optimizer")] == [
        ("nonfinite", "optimizer.state.0.weight.exp_avg")
    ]


def test_a_pickle_that_names_a_command_is_told(tmp_path):
    import os

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/sentinel",)

    torch.save({"model": model().state_dict(), "callback": Runs()}, tmp_path / "a.pt")
    records, summary = run(tmp_path / "a.pt", training(tmp_path / "b.pt"))
    (found,) = [record for record in records if record.get("kind") == "unsafe_pickle"]
    assert (found["severity"], found["side"], found["count"]) == ("critical", "old", 1)
    assert "'posix.system'" in found["detail"]
    assert summary["status"] == "equivalent"
    assert not (tmp_path / "sentinel").exists()
    assert run(tmp_path / "a.pt", tmp_path / "b.pt", fail_on=("critical",))[1]["exit_status"] == 1


def test_the_parts_of_a_checkpoint(tmp_path):
    parts = [entry.part for entry in open_checkpoint(str(training(tmp_path / "a.pt", ema=model().state_dict()))).tensors]
    assert parts == sorted(parts, key=["weights", "ema", "gradient", "optimizer"].index)
    assert {parts.count(part) for part in ("weights", "ema")} == {len(model().state_dict())}
