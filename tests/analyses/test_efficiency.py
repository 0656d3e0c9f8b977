"""Zeros and their patterns, planted and counted by NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.pipeline import compare
from diffai_stream.statistics.zero_patterns import ZeroPatterns
from diffai_stream.testing.statistics import StatisticLaws
from tests.checkpoints import write_safetensors

NAME = "param_efficiency_analysis"


class TestZeroPatternsLaws(StatisticLaws):
    statistics = (ZeroPatterns(),)


def run(folder, old, new, **options):
    for side, model in (("old", old), ("new", new)):
        write_safetensors(folder / f"{side}.safetensors", model)
    records = compare(str(folder / "old.safetensors"), str(folder / "new.safetensors"), analyses=(NAME,), **options)
    return {r["subject"]: r for r in records if r["type"] == NAME or (r["type"] == "skipped" and r["analysis"] == NAME)}


def weights(rows=24, columns=100, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(dtype)


def two_of_four(values):
    """The two smallest of every four set to zero."""
    pruned = values.copy().reshape(-1, 4)
    np.put_along_axis(pruned, np.argsort(abs(pruned.astype(np.float64)), axis=1)[:, :2], 0, axis=1)
    return pruned.reshape(values.shape)


def test_two_of_four_pruning_is_told(tmp_path):
    old = {f"model.layers.{n}.mlp.up_proj.weight": weights(seed=n) for n in range(3)}
    new = {name: two_of_four(values) if "layers.1" in name else values * 2 for name, values in old.items()}
    found = run(tmp_path, old, new)
    pruned, whole = found["model.layers.1.mlp.up_proj.weight"], found["model.layers.0.mlp.up_proj.weight"]
    assert (pruned["old_two_of_four_ratio"], pruned["new_two_of_four_ratio"], pruned["efficiency_ratio"]) == (0.0, 1.0, 0.5)
    assert (pruned["new_nonzero_ratio"], whole["new_nonzero_ratio"], whole["new_two_of_four_ratio"]) == (0.5, 1.0, 0.0)
    model = found["model"]
    assert model["new_nonzero_ratio"] == pytest.approx(5 / 6)
    assert (model["two_of_four_tensor_count"], model["sparse_layer_count"], model["dense_layer_count"]) == (1, 0, 3)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64])
def test_against_numpy(tmp_path, dtype):
    random = np.random.default_rng(3)
    old, new = weights(70, 1001, dtype), weights(70, 1001, dtype, 1)
    new[random.random(new.shape) < 0.6] = 0
    new[5:40, :320] = 0
    found = run(tmp_path, {"a.weight": old}, {"a.weight": new})["a.weight"]
    for side, values in (("old", old.astype(np.float64)), ("new", new.astype(np.float64))):
        assert found[f"{side}_nonzero_ratio"] == (values != 0).mean()
        assert found[f"{side}_two_of_four_ratio"] == ((values[:, :1000].reshape(-1, 4) == 0).sum(1) >= 2).mean()
        assert found[f"{side}_zero_block_ratio"] == (values[:, :992].reshape(-1, 32) == 0).all(1).mean()
        limit = found[f"{side}_near_zero_below"]
        assert 0.6 < limit / (np.sqrt((values**2).mean()) / 1024) <= 1
        assert found[f"{side}_near_zero_ratio"] == (abs(values) < limit).mean()
        if dtype == ml_dtypes.bfloat16:
            share = np.unique((old if side == "old" else new).view(np.uint16), return_counts=True)[1] / values.size
            assert found[f"{side}_effective_bits"] == pytest.approx(-(share * np.log2(share)).sum())
        else:
            assert found[f"{side}_effective_bits"] is None
    assert found["is_sparse"]


def test_sparse_layers_of_old_and_new(tmp_path):
    old = {f"model.layers.{n}.mlp.up_proj.weight": weights(seed=n) for n in range(4)}
    new = {name: np.where(abs(v) < 1, 0, v).astype(np.float32) if "layers.3" not in name else v for name, v in old.items()}
    assert [run(tmp_path, old, new)["model"][key] for key in ("old_sparse_layer_count", "sparse_layer_count")] == [0, 3]
    assert [run(tmp_path, new, old)["model"][key] for key in ("old_sparse_layer_count", "sparse_layer_count")] == [3, 0]


def test_scale_order_and_vectors_change_nothing_and_swapping_inverts(tmp_path):
    old, new = {"a.weight": weights()}, {"a.weight": two_of_four(weights(seed=1))}
    here, back = run(tmp_path, old, new)["a.weight"], run(tmp_path, new, old)["a.weight"]
    scaled = [{"v.bias": np.ones(3, np.float32), "a.weight": 8 * model["a.weight"]} for model in (old, new)]
    there = run(tmp_path, *scaled)["a.weight"]
    ratios = [key for key in here if key.endswith("ratio")]
    assert [here[key] for key in ratios] == [there[key] for key in ratios]
    assert back["efficiency_ratio"] == 1 / here["efficiency_ratio"]


def test_without_histograms_and_without_a_side(tmp_path):
    found = run(tmp_path, {"a.weight": weights()}, {"b.weight": two_of_four(weights(6, 8))}, fast=True)
    assert found["a.weight"]["new_nonzero_ratio"] is None
    assert found["b.weight"]["old_nonzero_ratio"] is found["b.weight"]["efficiency_ratio"] is None
    assert (found["b.weight"]["new_two_of_four_ratio"], found["b.weight"]["new_near_zero_ratio"]) == (1.0, None)


def test_nothing_to_read_is_said(tmp_path):
    found = run(tmp_path, {"a.weight": weights(0, 4)}, {"a.weight": weights(0, 4)})
    assert found["model"]["type"] == "skipped"
