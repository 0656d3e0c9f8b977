"""What trainers save beside the weights: which tensor is what, and by which name."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(6, 5)
        self.norm = torch.nn.BatchNorm1d(5)
        self.head = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.norm(self.encoder(x)))


def trained(groups=None, kind=torch.optim.AdamW):
    torch.manual_seed(0)
    net = Net()
    optimizer = kind(groups(net) if groups else net.parameters(), lr=0.01)
    net(torch.randn(8, 6)).sum().backward()
    optimizer.step()
    return net, optimizer


def opened(path: Path, value: object):
    torch.save(value, path)
    found = open_checkpoint(str(path))
    assert found.errors == ()
    return found


def by_part(found) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for entry in found.tensors:
        parts.setdefault(entry.part, []).append(entry.name)
    return parts


NAMES = list(Net().state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module", "net", "weights", "ema", "generator"])
def test_wrappers_are_taken_off(key, tmp_path):
    found = opened(tmp_path / "m.pt", {"epoch": 3, key: Net().state_dict(), "best": 0.5})
    assert by_part(found) == {"weights": NAMES}
    assert found.hyperparameters == {"epoch": 3, "best": 0.5}


def test_wrappers_within_wrappers(tmp_path):
    assert by_part(opened(tmp_path / "m.pt", {"model": {"module": {"state_dict": Net().state_dict()}}})) == {"weights": NAMES}
    nested = {"model": {"language_model": {"embedding": {"weight": torch.ones(2)}}, "vision": {"weight": torch.ones(3)}}}
    assert by_part(opened(tmp_path / "n.pt", nested)) == {"weights": ["language_model.embedding.weight", "vision.weight"]}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
def test_optimizer_state_goes_by_the_names_of_the_parameters(kind, tmp_path):
    net, optimizer = trained(kind=kind)
    found = opened(tmp_path / "m.pt", {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    parts = by_part(found)
    assert parts["weights"] == NAMES
    trained_names = [name for name, _ in net.named_parameters()]
    slots = {name.removeprefix("optimizer.state.").rpartition(".")[0] for name in parts["optimizer"]}
    assert slots == set(trained_names)
    shapes = {entry.name: entry.shape for entry in found.tensors}
    for name in parts["optimizer"]:
        owner = name.removeprefix("optimizer.state.").rpartition(".")[0]
        assert shapes[name] in ((), shapes[owner])
    assert found.hyperparameters["optimizer.param_groups.0.lr"] == 0.01
    assert not [name for name in found.hyperparameters if ".params" in name]


def decay_first(net):
    named = list(net.named_parameters())
    return [
        {"params": [p for _, p in named if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]


def test_groups_that_decay_apart(tmp_path):
    net, optimizer = trained(decay_first)
    found = opened(tmp_path / "m.pt", {"state_dict": net.state_dict(), "optimizer": optimizer.state_dict()})
    assert "optimizer.state.encoder.weight.exp_avg" in by_part(found)["optimizer"]
    assert found.hyperparameters["optimizer.param_groups.1.weight_decay"] == 0.0


def test_numbers_stay_where_no_order_fits(tmp_path):
    _, optimizer = trained()
    found = opened(tmp_path / "m.pt", {"model": {"other": torch.ones(2, 2)}, "optimizer": optimizer.state_dict()})
    assert "optimizer.state.0.exp_avg" in by_part(found)["optimizer"]


def test_lightning(tmp_path):
    net, optimizer = trained()
    value = {
        "state_dict": {f"model.{name}": tensor for name, tensor in net.state_dict().items()},
        "optimizer_states": [optimizer.state_dict(), trained()[1].state_dict()],
        "lr_schedulers": [{"last_epoch": 3, "_last_lr": [0.01]}],
        "hyper_parameters": {"lr": 0.01, "depth": {"blocks": 2}, "name": "x"},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.3)}},
        "epoch": 1,
        "pytorch-lightning_version": "2.4.0",
    }
    found = opened(tmp_path / "m.ckpt", value)
    parts = by_part(found)
    assert parts["weights"] == [f"model.{name}" for name in NAMES]
    assert "optimizer.1.state.model.encoder.weight.exp_avg" in parts["optimizer"]
    assert "callbacks.ModelCheckpoint.best_model_score" in parts["optimizer"]
    expected = {"hyper_parameters.lr": 0.01, "hyper_parameters.depth.blocks": 2, "lr_schedulers.0._last_lr.0": 0.01}
    assert expected.items() <= found.hyperparameters.items()


def test_averages_and_gradients(tmp_path):
    net, _ = trained()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    value = {"model": net.state_dict(), "ema": {"module": net.state_dict(), "decay": 0.999}, "grads": gradients}
    parts = by_part(opened(tmp_path / "m.pt", value))
    assert parts["weights"] == NAMES
    assert parts["ema"] == [f"ema.{name}" for name in NAMES]
    assert parts["gradient"] == [f"{name}.grad" for name in gradients]


def test_averages_within_a_state_dict(tmp_path):
    value = {"state_dict": {"model.a": torch.ones(2), "model_ema.a": torch.ones(2), "model_ema.decay": torch.tensor(0.9)}}
    assert by_part(opened(tmp_path / "m.ckpt", value)) == {"weights": ["model.a"], "ema": ["model_ema.a", "model_ema.decay"]}


def test_whole_models_under_a_key(tmp_path):
    """As trainers of detectors save: the model itself, half precision, settings as a namespace."""
    net, optimizer = trained()
    value = {"model": net.half(), "ema": None, "train_args": argparse.Namespace(lr=0.1, name="x"), "date": "today"}
    found = opened(tmp_path / "m.pt", {**value, "optimizer": optimizer.state_dict()})
    parts = by_part(found)
    assert parts["weights"] == NAMES
    assert found.hyperparameters["train_args.lr"] == 0.1
    assert [name for name in found.unsafe_globals if not name.endswith(".Net")] == []


def test_several_networks_keep_their_names(tmp_path):
    value = {"student": Net().state_dict(), "teacher": Net().state_dict(), "epoch": 1}
    names = [f"{key}.{name}" for key in ("student", "teacher") for name in NAMES]
    assert by_part(opened(tmp_path / "m.pt", value)) == {"weights": names}


def test_a_plain_state_dict_may_have_telling_names(tmp_path):
    value = {"model.weight": torch.ones(2), "optimizer": torch.ones(3), "weights": torch.ones(4), "ema": torch.ones(5)}
    assert by_part(opened(tmp_path / "m.pt", value)) == {"weights": list(value)}


def test_names_that_occur_twice_are_told(tmp_path):
    torch.save({"model": {"a": torch.ones(2, 2)}, "a": torch.zeros(3, 3)}, tmp_path / "m.pt")
    found = open_checkpoint(str(tmp_path / "m.pt"))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert [error.tensor for error in found.errors] == ["a"]


def test_settings_are_bounded(tmp_path):
    value = {"a": torch.ones(2), "many": {str(n): n for n in range(20_000)}, "tokens": list(range(5000)), "text": "x" * 5000}
    found = opened(tmp_path / "m.pt", value)
    assert len(found.hyperparameters) == 10_000
    assert [oddity.code for oddity in found.oddities] == ["cut_short"]


def deepspeed(directory: Path, stage: int = 2, ranks: int = 2) -> Path:
    step = directory / "global_step10"
    step.mkdir(parents=True)
    (directory / "latest").write_text("global_step10")
    (directory / "zero_to_fp32.py").write_text("raise SystemExit")
    states = {"module": Net().state_dict(), "optimizer": None, "param_shapes": [{"encoder.weight": torch.Size([5, 6])}]}
    if stage == 3:
        for rank in range(ranks):
            torch.save({**states, "module": {}}, step / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    else:
        torch.save({**states, "ds_version": "0.15", "global_steps": 10}, step / "mp_rank_00_model_states.pt")
    for rank in range(ranks):
        torch.save({"optimizer_state_dict": {}}, step / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return directory


def test_deepspeed_with_whole_weights(tmp_path):
    found = open_checkpoint(str(deepspeed(tmp_path / "ds")))
    assert (found.format, by_part(found), found.container) == ("deepspeed", {"weights": NAMES}, "directory")
    assert [oddity.code for oddity in found.oddities] == ["partitioned_optimizer"]
    assert found.hyperparameters == {"ds_version": "0.15", "global_steps": 10}
    torch.save(Net().state_dict(), tmp_path / "m.pt")
    assert list(compare(str(tmp_path / "ds" / "global_step10"), str(tmp_path / "m.pt")))[-1]["counts"]["error"] == 0


@pytest.mark.parametrize(
    ("stage", "extra", "message"), [(3, "", "stage 3.*zero_to_fp32"), (2, "mp_rank_01", "2 tensor-parallel")]
)
def test_deepspeed_in_partitions_is_refused(stage, extra, message, tmp_path):
    directory = deepspeed(tmp_path / "ds", stage)
    if extra:
        torch.save({"module": {}}, directory / "global_step10" / f"{extra}_model_states.pt")
    with pytest.raises(FormatError, match=message):
        open_checkpoint(str(directory))
