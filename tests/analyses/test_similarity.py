"""Similarity of layers against NumPy: shifted, copied and nearly copied ones, planted."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors

NAME = "similarity_matrix"
SHAPE = (64, 128)


def name_of(layer):
    return f"model.layers.{layer}.mlp.up_proj.weight"


def stack(layers=5, seed=0, shape=SHAPE):
    random = np.random.default_rng(seed)
    return {name_of(n): random.normal(0.05 * n, 1, shape).astype(np.float32) for n in range(layers)}


def run(folder, old, new, *names, **options):
    for side, model in (("old", old), ("new", new)):
        write_safetensors(folder / f"{side}.safetensors", model)
    records = list(
        compare(str(folder / "old.safetensors"), str(folder / "new.safetensors"), analyses=names or (NAME,), **options)
    )
    return records, [r for r in records if r["type"] == NAME]


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@pytest.mark.parametrize("shape", [SHAPE, (8, 16)])
def test_against_numpy(tmp_path, shape):
    old = stack(shape=shape)
    new = {
        name: (v + 0.3 * w).astype(np.float32)
        for (name, v), w in zip(old.items(), stack(seed=1, shape=shape).values(), strict=True)
    }
    found = run(tmp_path, old, new, histograms=True)[1][0]
    error = found["standard_error"]
    assert (found["old_tensors"], found["shape"]) == ([name_of(n) for n in range(5)], list(shape))
    assert error == 0.0 if prod(shape) <= 4096 else 1 / 64 < error < 1.1 / 64
    for row in range(5):
        for column in range(5):
            expected = cosine(old[name_of(row)], new[name_of(column)])
            assert found["matrix"][row][column] == pytest.approx(expected, abs=1e-6 if row == column else 5 * error + 1e-6)
    assert found["mean_diagonal"] == pytest.approx(np.mean([cosine(old[n], new[n]) for n in old]), abs=1e-6)


def test_a_shifted_stack_is_seen_off_the_diagonal(tmp_path):
    old, fresh = stack(), stack(seed=9)
    new = {name_of(n): old[name_of(n - 1)] if n else fresh[name_of(0)] for n in range(5)}
    found = run(tmp_path, old, new)[1][0]
    assert {(row["old"], row["new"]) for row in found["alike"]} == {(name_of(n), name_of(n + 1)) for n in range(4)}
    assert found["max_off_diagonal"] > 0.95
    assert found["mean_diagonal"] < 0.2
    lines = found["map"].split()
    assert len(found["map"].splitlines()) == 5
    assert found["map"].count("@") + found["map"].count("%") == 4, lines


def test_a_layer_that_is_nearly_another_is_an_anomaly(tmp_path):
    old = stack()
    new = {name: v * np.float32(1.001) for name, v in old.items()}
    noise = np.random.default_rng(5).normal(0, 1e-3, SHAPE)
    new[name_of(3)] = (3 * (new[name_of(1)] + noise)).astype(np.float32)
    records, _ = run(tmp_path, old, new)
    doubled = [r for r in records if r["type"] == "anomaly" and r["kind"] == "duplicate_layer"]
    assert [(r["subject"], r["side"], r["threshold"]) for r in doubled] == [(name_of(1), "new", 1e-4)]
    assert name_of(3) in doubled[0]["detail"]
    assert doubled[0]["value"] == pytest.approx(1 - cosine(new[name_of(1)], new[name_of(3)]), rel=0.2)
    assert not [r for r in run(tmp_path, old, new, "anomaly")[0] if r["type"] == "anomaly" and r["kind"] == "duplicate_layer"]


def test_scaling_swapping_and_an_unchanged_tensor(tmp_path):
    old, new = stack(), stack(seed=1)
    here = run(tmp_path, old, new, histograms=True)[1][0]
    back = run(tmp_path, new, old, histograms=True)[1][0]
    more = {"norm.weight": np.ones(8, np.float32)}
    there = run(tmp_path, *({n: 4 * v for n, v in side.items()} | more for side in (old, new)), histograms=True)[1][0]
    np.testing.assert_allclose(np.array(back["matrix"]).T, here["matrix"], atol=1e-12)
    np.testing.assert_allclose(there["matrix"], here["matrix"], atol=1e-6)


def test_vectors_alone_are_skipped(tmp_path):
    records, found = run(tmp_path, {"a.bias": np.ones(3, np.float32)}, {"a.bias": np.zeros(3, np.float32)})
    assert not found
    assert [r["subject"] for r in records if r["type"] == "skipped" and r["analysis"] == NAME] == ["model"]
