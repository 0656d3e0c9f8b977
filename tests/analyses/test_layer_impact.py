"""Layers: figures merged over their tensors, quantiles from merged histograms, the ranking."""

import numpy as np
import pytest

from diffai_stream.statistics.finishing import QUANTILES
from tests.checkpoints import write_safetensors
from tests.models import cast, llama, tuned
from tests.validation import of_type, run, tensors


@pytest.fixture
def compared(tmp_path):
    def compare(old, new, **options):
        a, b = (write_safetensors(tmp_path / f"{name}.safetensors", side) for name, side in (("old", old), ("new", new)))
        return run(a, b, **options)

    return compare


def layers_of(records):
    return {record["subject"]: record for record in of_type(records, "layer_impact") if record["scope"] == "layer"}


def test_figures_are_those_of_all_elements_of_the_layer(compared):
    old = llama(3)
    new = tuned(old)
    records = compared(old, new, stats=True)
    for layer, found in layers_of(records).items():
        names = [name for name in old if name.startswith(f"{layer}.") or (layer == name.rpartition(".")[0])]
        a, b = (np.concatenate([side[name].reshape(-1) for name in names]).astype(np.float64) for side in (old, new))
        for side, values in (("old", a), ("new", b), ("delta", b - a)):
            stats = found["stats"][side]
            assert stats["mean"] == pytest.approx(values.mean(), rel=1e-5, abs=1e-8)
            assert stats["std"] == pytest.approx(values.std(), rel=1e-6)
            assert (stats["zero_count"], stats["nan_count"]) == ((values == 0).sum(), 0)
            if side != "delta":
                assert (stats["min"], stats["max"]) == (values.min(), values.max())
            for key, level in QUANTILES.items():
                expected = np.quantile(values, level, method="inverted_cdf")
                assert stats["quantiles"][key] == pytest.approx(expected, rel=0.5, abs=1e-7)
        assert found["relative_l2"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)
        assert found["changed_ratio"] == pytest.approx((a != b).mean())
        assert found["element_count"] == a.size


@pytest.mark.parametrize("encoding", ["F32", "BF16", "F16", "F64"])
def test_quantiles_of_a_delta_that_is_mostly_zero_are_zero(compared, encoding):
    values = np.random.default_rng(0).normal(size=(100, 100))
    new = values.copy()
    new[:4] += 0.5
    (found,) = layers_of(compared({"x.weight": cast(values, encoding)}, {"x.weight": cast(new, encoding)})).values()
    quantiles = found["stats"]["delta"]["quantiles"]
    assert {key: quantiles[key] for key in ("p001", "p25", "p50", "p75", "p95")} == dict.fromkeys(
        ("p001", "p25", "p50", "p75", "p95"), 0.0
    )
    assert 0.4 < quantiles["p99"] < 0.6


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30])
def test_quantiles_lie_in_order_within_the_range(compared, scale):
    values = (np.random.default_rng(0).normal(size=(64, 64)) * scale).astype(np.float32)
    stats = next(iter(layers_of(compared({"x.weight": values}, {"x.weight": values * 2})).values()))["stats"]["old"]
    quantiles = list(stats["quantiles"].values())
    assert quantiles == sorted(quantiles)
    assert stats["min"] <= quantiles[0] <= quantiles[-1] <= stats["max"]


def test_roles_and_ranking(compared):
    old = llama(5)
    depths = {name: int(name.split(".")[2]) if ".layers." in name else 0 for name in old}
    new = {name: values * np.float32(1 + 0.1 * depths[name]) for name, values in old.items()}
    records = compared(old, new, top=3)
    found = layers_of(records)["model.layers.2"]
    assert {row["role"]: row["relative_l2"] for row in found["roles"]}["mlp.up_proj"] == pytest.approx(0.2, rel=1e-4)
    assert [row["role"] for row in found["roles"]] == sorted(row["role"] for row in found["roles"])
    (model,) = [record for record in of_type(records, "layer_impact") if record["scope"] == "model"]
    assert [row["layer"] for row in model["ranking"]] == [f"model.layers.{depth}" for depth in (4, 3, 2)]
    (whole,) = [record for record in of_type(compared(old, new, top=0), "layer_impact") if record["scope"] == "model"]
    assert len(whole["ranking"]) == 8
    assert sum(row["energy_ratio"] for row in whole["ranking"]) == pytest.approx(1)


def test_a_layer_is_told_when_its_last_tensor_is_out(compared):
    old = llama(2)
    records = compared(old, tuned(old))
    for layer, found in layers_of(records).items():
        places = [records.index(record) for record in tensors(records).values() if record["layer"] == layer]
        assert records.index(found) > max(places)
        assert all(records[place]["type"] != "tensor" for place in range(max(places) + 1, records.index(found)))


def test_complex_and_lone_tensors(compared):
    values = np.random.default_rng(0).normal(size=(4, 4)) * (1 + 1j)
    old = {"a.0.w": cast(values, "C64"), "b.0.w": cast(values.real, "F32")}
    new = {"a.0.w": cast(values + (1 + 1j), "C64"), "c.0.w": cast(values.real[:3], "F32")}
    found = layers_of(compared(old, new))
    assert (found["a.0"]["changed_ratio"], found["a.0"]["element_count"]) == (1.0, 16)
    assert (found["b.0"]["relative_l2"], found["b.0"]["changed_ratio"]) == (None, None)
    assert found["b.0"]["stats"]["new"] is None
    assert found["c.0"]["stats"]["old"] is None
    assert found["c.0"]["stats"]["new"]["mean"] == pytest.approx(values.real[:3].mean())


def test_doubles_beyond_the_range_of_their_squares(compared):
    values = np.array([[1e200, -3e250]])
    records = compared({"x.weight": values}, {"x.weight": values * 2})
    assert tensors(records)["x.weight"]["stats"]["old"]["l2_norm"] is None
    assert tensors(records)["x.weight"]["change"]["changed_count"] == 2
    assert records[-1]["status"] == "different"
