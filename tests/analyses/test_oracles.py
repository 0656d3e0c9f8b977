"""Figures of anomalies, clusters, gates and verdicts against float64 computations that share nothing with them."""

from __future__ import annotations

from math import comb, log10

import numpy as np
import pytest

from tests.checkpoints import write_safetensors
from tests.models import llama, tuned
from tests.validation import of_type, run

UP = "model.layers.3.mlp.up_proj.weight"


def norm(values):
    return float(np.linalg.norm(np.asarray(values, np.float64)))


def layer_of(name):
    return ".".join(name.split(".")[:3]) if ".layers." in name else name.removesuffix(".weight")


@pytest.fixture
def compared(tmp_path):
    def compare(old, new, *names, **options):
        a, b = (write_safetensors(tmp_path / f"{name}.safetensors", side) for name, side in (("old", old), ("new", new)))
        return run(a, b, analyses=names, **options)

    return compare


def relative_of_layers(old, new):
    """‖delta‖ / ‖old‖ by layer."""
    layers = {}
    for name, values in old.items():
        sums = layers.setdefault(layer_of(name), [0.0, 0.0])
        sums[0] += norm(new[name].astype(np.float64) - values) ** 2
        sums[1] += norm(values) ** 2
    return {name: (delta / whole) ** 0.5 for name, (delta, whole) in layers.items()}


def test_exploding_and_spikes_are_ratios_to_the_median(compared):
    old = llama(6)
    new = tuned(old, 0.01)
    new[UP] = new[UP] * np.float32(7)
    found = {r["kind"]: r for r in of_type(compared(old, new, "anomaly"), "anomaly")}
    rms = [norm(v) / v.size**0.5 for n, v in new.items() if n.endswith("mlp.up_proj.weight")]
    assert found["exploding"]["value"] == pytest.approx(rms[3] / np.median(rms), rel=1e-6)
    changes = [value for name, value in relative_of_layers(old, new).items() if ".layers." in name]
    assert found["update_spike"]["value"] == pytest.approx(changes[3] / np.median(changes), rel=1e-6)


def test_heavy_tails_are_excess_kurtosis(compared):
    old = llama(2)
    new = tuned(old, 0.01)
    name = "model.layers.1.mlp.up_proj.weight"
    new[name].reshape(-1)[::1500] = 2
    (found,) = [r for r in of_type(compared(old, new, "anomaly"), "anomaly") if r["kind"] == "heavy_tail"]
    x = new[name].astype(np.float64) - new[name].astype(np.float64).mean()
    assert found["value"] == pytest.approx((x**4).mean() / (x**2).mean() ** 2 - 3, rel=1e-6)


def rand_index(first, second):
    """Adjusted, from the table of pairs (Hubert & Arabie 1985)."""
    table = np.zeros((max(first) + 1, max(second) + 1), int)
    np.add.at(table, (first, second), 1)
    pairs = sum(comb(int(n), 2) for n in table.ravel())
    rows, columns = (sum(comb(int(n), 2) for n in table.sum(axis)) for axis in (1, 0))
    expected = rows * columns / comb(len(first), 2)
    return (pairs - expected) / ((rows + columns) / 2 - expected)


def assigned(rows, centres):
    return np.argmin(((rows[:, None].astype(np.float64) - centres[None]) ** 2).sum(2), axis=1)


def test_clusters_and_rand_index_by_scikit_learn_and_by_hand(compared):
    cluster, metrics = pytest.importorskip("sklearn.cluster"), pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(3)
    centres = 4 * random.normal(size=(16, 12))
    old = (centres[random.integers(0, 16, 400)] + 0.3 * random.normal(size=(400, 12))).astype(np.float32)
    new = (old + 0.1 * random.normal(size=old.shape)).astype(np.float32)
    new[:120] = old[random.permutation(400)[:120]]
    name = "model.embed_tokens.weight"
    (found,) = of_type(compared({name: old}, {name: new}, "clustering_change"), "clustering_change")
    before = cluster.KMeans(16, random_state=0, n_init=10, tol=0.0).fit(old)
    first, here = before.labels_, before.cluster_centers_.astype(np.float64)
    for _ in range(300):  # Lloyd's steps from the old centroids, written out
        second = assigned(new, here)
        here = np.array([new[second == n].mean(0, np.float64) if (second == n).any() else here[n] for n in range(16)])
    assert found["adjusted_rand_index"] == pytest.approx(rand_index(first, second), abs=1e-9)
    assert found["adjusted_rand_index"] == pytest.approx(metrics.adjusted_rand_score(first, second), abs=1e-9)
    assert found["migrated_rows"] == int((first != second).sum())
    assert sorted(found["new_cluster_sizes"]) == sorted(np.bincount(second, minlength=16))
    (same,) = of_type(compared({name: old}, {name: old, "x": old}, "clustering_change"), "clustering_change") or [None]
    assert same is None or same["adjusted_rand_index"] == 1.0


def test_gates_and_alerts_hold_measured_changes(compared):
    old = llama(4)
    new = tuned(old, 0.02)
    records = compared(old, new, "regression_test", "alert", min_sqnr=30.0, tolerance=0.0, max_size=1)
    expected = relative_of_layers(old, new)
    gates = {r["subject"]: r for r in of_type(records, "regression_test") if r["gate"] == "layer_change"}
    alerts = {r["subject"]: r for r in of_type(records, "alert")}
    assert gates.keys() == alerts.keys() == expected.keys()
    for name, value in expected.items():
        assert gates[name]["value"] == pytest.approx(value, rel=1e-6)
        assert alerts[name]["value"] == pytest.approx(value, rel=1e-6)
    told = {r["gate"]: r["value"] for r in of_type(records, "regression_test") if r["gate"] in ("sqnr", "size")}
    worst = min(20 * log10(norm(v) / norm(new[n].astype(np.float64) - v)) for n, v in old.items())
    assert told == {"sqnr": pytest.approx(worst, abs=1e-5), "size": float(sum(v.nbytes for v in new.values()))}


def test_the_summary_of_a_change_counts_what_changed(compared):
    old = llama(4)
    new = tuned(old, 0.02) | {"model.norm.weight": old["model.norm.weight"], "more": np.ones(4, np.float32)}
    del new["model.layers.3.input_layernorm.weight"]
    (found,) = of_type(compared(old, new, "change_summary", top=3), "change_summary")
    both = [n for n in old if n in new]
    whole = np.sqrt(sum(norm(new[n].astype(np.float64) - old[n]) ** 2 for n in both) / sum(norm(old[n]) ** 2 for n in both))
    assert found["relative_l2"] == pytest.approx(whole, rel=1e-6)
    assert (found["added_count"], found["removed_count"], found["changed_count"]) == (1, 1, len(both) - 1)
    ranked = sorted(relative_of_layers({n: old[n] for n in both}, new).items(), key=lambda item: -item[1])[:3]
    assert [(row["layer"], row["relative_l2"]) for row in found["top_layers"]] == [(n, pytest.approx(v)) for n, v in ranked]


@pytest.mark.parametrize(("size", "level"), [(0.001, "low"), (0.2, "medium"), (3.0, "high")])
def test_risk_and_readiness_follow_from_the_measured_change(compared, size, level):
    old = llama(4)
    new = tuned(old, size)
    records = compared(old, new, "risk_assessment", "deployment_readiness", tolerance=0.01)
    (risk,), (ready,) = of_type(records, "risk_assessment"), of_type(records, "deployment_readiness")
    changes = relative_of_layers(old, new)
    fired = {row["rule"] for row in risk["rules"]}
    assert ("large_layer_change" in fired) == (max(changes.values()) > 0.1)
    assert risk["level"] == level
    told = [row["passed"] for row in ready["checks"] if row["passed"] is not None]
    assert (ready["passed_count"], ready["total_count"]) == (sum(told), len(told))
    assert ready["readiness"] == sum(told) / len(told)
    whole = np.sqrt(
        sum(norm(new[n].astype(np.float64) - v) ** 2 for n, v in old.items()) / sum(norm(v) ** 2 for v in old.values())
    )
    assert ready["strategy"] == ("direct" if whole <= 0.01 else "canary")
