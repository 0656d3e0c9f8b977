"""Training analyses with planted runs: known trajectories, schedules, gradients and settings, against NumPy."""

from __future__ import annotations

import itertools
import json
from math import sqrt

import numpy as np
import pytest

from diffai_stream.analyses.training.schedule import fitted
from diffai_stream.analyses.training.settings import rule_of
from diffai_stream.errors import UsageError
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.validation import printed

SHAPES = {f"model.layers.{i}.mlp.up_proj.weight": (96, 128) for i in range(3)} | {"model.norm.weight": (128,)}


def start(seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def moved(tensors, direction, size):
    return {name: (value + size * direction[name]).astype(np.float32) for name, value in tensors.items()}


def saved(folder, states, steps=None, log=None, beside=None):
    """checkpoint-<step> of each state; `log` the lines of the trainer's history up to a step, `beside` files by name."""
    for place, tensors in enumerate(states):
        step = steps[place] if steps else (place + 1) * 100
        write_safetensors(folder / f"checkpoint-{step}" / "model.safetensors", tensors)
        if log:
            state = {"global_step": step, "log_history": [line for line in log if line["step"] <= step]}
            (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
        for name, content in (beside[place] if beside else {}).items():
            (folder / f"checkpoint-{step}" / name).write_text(json.dumps(content))
    return folder


def found(folder, name, pair=-1, **options):
    """The findings of an analysis about one pair, or why there are none."""
    records = printed(compare(str(folder), analyses=(name,), **options))
    told = [r for r in records if r["type"] == name or (r["type"] == "skipped" and r["analysis"] == name)]
    last = max((r.get("pair", 0) for r in told), default=0)
    return [r for r in told if r.get("pair", 0) == (last if pair < 0 else pair)]


def flat(tensors):
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in SHAPES])


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# --- trajectories ---------------------------------------------------------------------------------------------------


def trajectory(kind):
    """Four checkpoints whose updates shrink, swing, grow, or keep their size and direction."""
    states, direction = [start()], start(1)
    for number in range(3):
        size = {"converging": 0.1 * 0.5**number, "oscillating": 0.1 * (-1) ** number}.get(kind, 0.1 * 2.0**number)
        noise = start(10 + number)
        step = moved(states[-1], direction, 0.1 if kind == "steady" else size)
        states.append(moved(step, noise, 0.01 * abs(size)))
    return states


@pytest.mark.parametrize("kind", ["converging", "oscillating", "diverging"])
def test_planted_trajectories(kind, tmp_path):
    (record,) = found(saved(tmp_path / "run", trajectory(kind)), "convergence_analysis")
    assert record["status"] == kind
    assert record["action"]


def test_a_steady_trajectory_is_not_decided(tmp_path):
    (record,) = found(saved(tmp_path / "run", trajectory("steady")), "convergence_analysis")
    assert record["status"] == "undetermined"
    assert record["update_ratio"] == pytest.approx(1.0, abs=0.1)


def test_convergence_against_numpy(tmp_path):
    states = trajectory("oscillating")
    folder = saved(tmp_path / "run", states)
    deltas = [flat(b) - flat(a) for a, b in itertools.pairwise(states)]
    norms = [float(np.linalg.norm(d)) for d in deltas]
    (record,) = found(folder, "convergence_analysis")
    assert record["update_norms"] == pytest.approx(norms, rel=1e-6)
    assert record["stability"] == pytest.approx(np.std(norms) / np.mean(norms), abs=1e-6)
    assert abs(record["direction_cosine"] - cosine(deltas[1], deltas[2])) < 4 * record["standard_error"]
    assert 0 < record["standard_error"] < sqrt(2 / 4096)
    relative = [n / np.linalg.norm(flat(s)) for n, s in zip(norms, states, strict=False)]
    assert record["update_ratio"] == pytest.approx(relative[2] / relative[1], rel=1e-6)


def test_small_tensors_give_the_exact_direction(tmp_path):
    states = [{"w": value["model.norm.weight"]} for value in trajectory("converging")]
    (record,) = found(saved(tmp_path / "run", states), "convergence_analysis")
    deltas = [states[n + 1]["w"].astype(np.float64) - states[n]["w"] for n in (1, 2)]
    assert record["standard_error"] == 0.0
    assert record["direction_cosine"] == pytest.approx(cosine(*deltas), rel=1e-6)


def test_steps_count_for_the_ratio(tmp_path):
    """Three times the update in three times the steps is the same speed."""
    direction, first = start(1), start()
    states = [first, moved(first, direction, 0.01), moved(first, direction, 0.04)]
    (record,) = found(saved(tmp_path / "run", states, steps=[100, 200, 500]), "convergence_analysis")
    assert record["update_ratio"] == pytest.approx(1.0, rel=0.02)
    assert record["direction_cosine"] == pytest.approx(1.0, abs=0.03)


def test_the_size_of_chunks_changes_no_bit(tmp_path):
    folder = saved(tmp_path / "run", [{"w": np.random.default_rng(n).normal(size=(700, 300)).astype("f4")} for n in range(3)])
    records = [
        found(folder, "convergence_analysis", chunk_size=size, workers=workers)[0]["direction_cosine"]
        for size, workers in ((1 << 16, 1), (1 << 17, 2), (1 << 24, 1))
    ]
    assert records[0] == records[1] == records[2]


def test_scaling_all_and_a_frozen_tensor_change_no_angle(tmp_path):
    states = trajectory("converging")
    frozen = np.ones((50, 50), np.float32)
    variants = [states, [{n: 4 * v for n, v in s.items()} for s in states], [{**s, "frozen.weight": frozen} for s in states]]
    records = [found(saved(tmp_path / str(n), variant), "convergence_analysis")[0] for n, variant in enumerate(variants)]
    for record in records[1:]:
        assert record["direction_cosine"] == pytest.approx(records[0]["direction_cosine"], rel=1e-9)
        assert record["status"] == "converging"
    assert records[1]["update_ratio"] == pytest.approx(records[0]["update_ratio"], rel=1e-9)


def test_the_loss_decides_for_two_checkpoints(tmp_path):
    states = trajectory("converging")[:2]
    for kind, loss in (("converging", lambda s: 3 - s / 500), ("converged", lambda s: 2.0), ("diverging", lambda s: s / 100)):
        log = [{"step": step, "loss": loss(step)} for step in range(10, 201, 10)]
        (record,) = found(saved(tmp_path / kind, states, log=log), "convergence_analysis")
        assert record["status"] == kind
    assert found(saved(tmp_path / "bare", states), "convergence_analysis")[0]["status"] == "undetermined"


@pytest.mark.parametrize("name", ["learning_progress", "convergence_analysis"])
def test_nothing_in_common_is_skipped(name, tmp_path):
    (record,) = found(saved(tmp_path / "run", [{"a": np.ones(3, "f4")}, {"b": np.zeros((2, 5), "f4")}]), name)
    assert record["type"] == "skipped"
    assert "both" in record["reason"]


# --- progress -------------------------------------------------------------------------------------------------------


def test_progress_against_numpy(tmp_path):
    old = start()
    new = moved(old, start(1), 0.01)
    new["model.layers.1.mlp.up_proj.weight"] = old["model.layers.1.mlp.up_proj.weight"]
    new["model.layers.2.mlp.up_proj.weight"] = old["model.layers.2.mlp.up_proj.weight"] * np.float32(1.5)
    (record,) = found(saved(tmp_path / "run", [old, new], steps=[100, 300]), "learning_progress")
    magnitude = np.linalg.norm(flat(new) - flat(old)) / np.linalg.norm(flat(old))
    assert record["magnitude"] == pytest.approx(magnitude, rel=1e-6)
    assert (record["steps"], record["speed"]) == (200, pytest.approx(magnitude / 200, rel=1e-6))
    assert record["fastest_layers"][0] == {"layer": "model.layers.2", "relative_l2": pytest.approx(0.5, rel=1e-6)}
    assert "model.layers.1" not in [row["layer"] for row in record["fastest_layers"]]
    assert record["frozen_ratio"] == pytest.approx(96 * 128 / flat(old).size)
    assert record["trend"] is None
    assert "no third checkpoint" in record["trend_reason"]


@pytest.mark.parametrize(("slope", "trend"), [(-0.01, "improving"), (0.01, "worsening"), (0.0, "flat")])
def test_the_trend_of_the_loss(slope, trend, tmp_path):
    log = [{"step": step, "loss": 5 + slope * step + 0.01 * (-1) ** (step // 10)} for step in range(10, 201, 10)]
    (record,) = found(saved(tmp_path / "run", trajectory("steady")[:2], log=log), "learning_progress")
    assert record["trend"] == trend
    assert (record["trend_source"], record["trend_points"]) == ("loss of trainer_state.json since old", 10)
    if slope:
        assert record["trend_slope"] == pytest.approx(slope, rel=0.1)


@pytest.mark.parametrize(("kind", "trend"), [("converging", "slowing"), ("diverging", "accelerating"), ("steady", "steady")])
def test_the_trend_of_updates(kind, trend, tmp_path):
    assert found(saved(tmp_path / "run", trajectory(kind)), "learning_progress")[0]["trend"] == trend


# --- learning rates -------------------------------------------------------------------------------------------------

STEPS = range(100, 10_001, 100)
SCHEDULES = {
    "constant": lambda s: 3e-4,
    "linear": lambda s: 3e-4 * (1 - s / 12_000),
    "cosine": lambda s: 3e-5 + 1.35e-4 * (1 + np.cos(np.pi * s / 15_000)),
    "exponential": lambda s: 3e-4 * 0.999**s,
    "step": lambda s: 3e-4 * 0.1 ** (s // 4000),
    "warmup": lambda s: 3e-8 * s,
}


@pytest.mark.parametrize("pattern", SCHEDULES)
def test_planted_schedules(pattern):
    fit = fitted([(step, SCHEDULES[pattern](step)) for step in STEPS])
    assert fit.pattern == pattern
    assert fit.residual < 1e-6
    assert fit.warmup_steps == (9900 if pattern == "warmup" else 0)


def test_a_cosine_after_a_warm_up_between_two_lines_of_the_log():
    rate = lambda s: 1e-3 * s / 500 if s < 500 else 5e-4 * (1 + np.cos(np.pi * (s - 500) / 9500))  # noqa: E731
    fit = fitted([(step, rate(step)) for step in STEPS])
    assert (fit.pattern, fit.warmup_steps) == ("cosine", 500)


def test_noise_follows_no_schedule():
    random = np.random.default_rng(0)
    assert fitted([(step, float(random.uniform(0, 1))) for step in STEPS]).pattern is None
    assert fitted([(1, 1.0), (2, 1.0)]).pattern is None


def test_rates_beside_the_update(tmp_path):
    log = [{"step": step, "learning_rate": 1e-3 * (1 + np.cos(np.pi * step / 300))} for step in range(10, 201, 10)]
    states = trajectory("steady")[:2]
    (record,) = found(saved(tmp_path / "run", states, log=log), "learning_rate_analysis")
    assert record["pattern"] == "cosine"
    rates = [line["learning_rate"] for line in log if line["step"] > 100]
    norm = np.linalg.norm(flat(states[1]) - flat(states[0]))
    assert record["mean_learning_rate"] == pytest.approx(np.mean(rates))
    assert record["update_per_lr"] == pytest.approx(norm / np.mean(rates) / 100, rel=1e-6)
    assert record["groups"] == [
        {"group": "all", "old": log[9]["learning_rate"], "new": rates[-1], "ratio": rates[-1] / log[9]["learning_rate"]}
    ]


def test_without_a_rate_it_is_skipped(tmp_path):
    (record,) = found(saved(tmp_path / "run", trajectory("steady")[:2]), "learning_rate_analysis")
    assert (record["type"], record["subject"]) == ("skipped", "model")
    assert "no learning rate" in record["reason"]


# --- settings -------------------------------------------------------------------------------------------------------


def configured(tmp_path, old, new):
    beside = [{"config.json": old}, {"config.json": new}]
    return found(saved(tmp_path, trajectory("steady")[:2], beside=beside), "hyperparameter_impact")[0]


def test_settings_that_changed(tmp_path):
    old = {"learning_rate": 1e-3, "dropout": 0.1, "seed": 1, "global_step": 5, "output_dir": "a", "same": 3}
    new = {
        "learning_rate": 2e-3,
        "dropout": 0.1,
        "seed": 2,
        "global_step": 9,
        "output_dir": "b",
        "same": 3,
        "weight_decay": 0.1,
    }
    record = configured(tmp_path / "a", old, new)
    assert [(c["name"], c["old"], c["new"], c["class"]) for c in record["changes"]] == [
        ("learning_rate", "0.001", "0.002", "high"),
        ("seed", "1", "2", "medium"),
        ("weight_decay", None, "0.1", "medium"),
        ("output_dir", "a", "b", "low"),
    ]
    assert (record["changed_count"], record["confounded_count"], record["basis"]) == (4, 3, "derived")
    assert "associated" in record["statement"]
    back = configured(tmp_path / "b", new, old)
    assert {(c["name"], c["new"], c["old"]) for c in back["changes"]} == {
        (c["name"], c["old"], c["new"]) for c in record["changes"]
    }


def test_one_change_is_not_confounded(tmp_path):
    record = configured(tmp_path, {"learning_rate": 1e-3, "seed": 1}, {"learning_rate": 2e-3, "seed": 1})
    assert (record["confounded_count"], record["high_count"]) == (0, 1)
    assert "caused" not in record["statement"]


def test_without_settings_it_is_skipped(tmp_path):
    (record,) = found(saved(tmp_path / "run", trajectory("steady")[:2]), "hyperparameter_impact")
    assert record["type"] == "skipped"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("optimizer.param_groups.0.lr", "high"),
        ("optimizer.param_groups.0.betas.1", "medium"),
        ("per_device_train_batch_size", "high"),
        ("text_config.num_hidden_layers", "high"),
        ("logging_steps", "low"),
        ("something_odd", "medium"),
    ],
)
def test_classes(name, kind):
    assert rule_of(name).kind == kind


# --- gradients ------------------------------------------------------------------------------------------------------


def trained(folder, steps=(3, 8), grads=False, rate=0.01, exploding=None):
    """A chain of linear layers after some steps of Adam; the state of the optimizer and, on request, the gradients."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    network = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(4))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    folder.mkdir()
    kept = {}
    for step in range(1, max(steps) + 1):
        optimizer.zero_grad()
        x = torch.randn(5, 6)
        for layer in network:
            x = layer(x)
        x.square().mean().backward()
        if exploding is not None:
            network[exploding].weight.grad *= 1000
        optimizer.step()
        if step in steps:
            whole = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            if grads:
                whole["grads"] = {name: p.grad for name, p in network.named_parameters()}
            torch.save(whole, folder / f"checkpoint-{step}.pt")
            moments = {n: optimizer.state[p] for n, p in network.named_parameters()}
            kept[step] = {
                "m": {n: s["exp_avg"].double().numpy().copy() for n, s in moments.items()},
                "v": {n: s["exp_avg_sq"].double().numpy().copy() for n, s in moments.items()},
                "g": {n: p.grad.double().numpy().copy() for n, p in network.named_parameters()},
            }
    return [kept[step] for step in steps]


def of_layer(side, kind, layer):
    return np.concatenate([value.ravel() for name, value in side[kind].items() if name.startswith(f"{layer}.")])


@pytest.mark.parametrize("grads", [False, True])
def test_gradients_against_numpy(grads, tmp_path):
    old, new = trained(tmp_path / "run", grads=grads)
    records = found(tmp_path / "run", "gradient_analysis")
    assert [r["subject"] for r in records] == ["0", "1", "2", "3"]
    for record in records:
        kind = "g" if grads else "m"
        before, now = (of_layer(side, kind, record["subject"]) for side in (old, new))
        assert record["source"] == ("gradient" if grads else "adam")
        assert record["old_rms"] == pytest.approx(np.sqrt(np.mean(before**2)), rel=1e-6)
        assert record["new_rms"] == pytest.approx(np.sqrt(np.mean(now**2)), rel=1e-6)
        assert record["cosine_similarity"] == pytest.approx(cosine(before, now), abs=1e-6)
        assert record["element_count"] == 42
        if not grads:
            v = of_layer(new, "v", record["subject"])
            assert record["new_signal_to_noise"] == pytest.approx(np.sqrt((now**2).sum() / v.sum()), rel=1e-6)
        else:
            assert record["new_signal_to_noise"] is None


def test_an_exploding_layer(tmp_path):
    trained(tmp_path / "run", exploding=2, grads=True)
    records = found(tmp_path / "run", "gradient_analysis")
    assert [r["kind"] for r in records] == [None, None, "exploding", None]
    assert records[2]["severity"] == "warning"
    assert records[2]["ratio_to_median"] > records[2]["threshold"]


def test_ignored_state_gives_no_gradients(tmp_path):
    trained(tmp_path / "run")
    (record,) = found(tmp_path / "run", "gradient_analysis", ignore_optimizer_state=True)
    assert record["type"] == "skipped"
    assert "--ignore-optimizer-state" in record["reason"]


def test_state_of_one_side_is_told(tmp_path):
    import torch

    trained(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-3.pt"
    torch.save({"model": torch.load(path)["model"]}, path)
    (record,) = found(tmp_path / "run", "gradient_analysis")
    assert "only the new checkpoint" in record["reason"]


def test_without_gradients_it_is_skipped_or_estimated(tmp_path):
    states = trajectory("steady")[:2]
    folder = saved(tmp_path / "run", states)
    (record,) = found(folder, "gradient_analysis")
    assert "no gradients" in record["reason"]
    records = found(folder, "gradient_analysis", learning_rate=1e-3)
    assert {r["basis"] for r in records} == {"estimated"}
    name = "model.layers.1.mlp.up_proj.weight"
    delta = states[1][name].astype(np.float64) - states[0][name]
    found_rms = next(r["new_rms"] for r in records if r["subject"] == "model.layers.1")
    assert found_rms == pytest.approx(np.sqrt(np.mean(delta**2)) / 1e-3 / 100, rel=1e-6)
    with pytest.raises(UsageError, match="learning-rate"):
        compare(str(folder), analyses=("gradient_analysis",), learning_rate=0.0)
