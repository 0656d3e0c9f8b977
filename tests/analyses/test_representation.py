"""Embeddings with planted changes, against NumPy and scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffai_stream.analyses.representation import clustering
from diffai_stream.pipeline import compare
from diffai_stream.statistics.row_samples import RowSamples
from diffai_stream.testing.statistics import StatisticLaws
from tests.checkpoints import write_safetensors

ROW_COUNT, WIDTH = 300, 24
NAME = "model.embed_tokens.weight"


class TestRowSamplesLaws(StatisticLaws):
    statistics = (RowSamples(),)


def embedding(seed=0):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, WIDTH)) * 3
    return (centres[random.integers(0, 6, ROW_COUNT)] + random.normal(size=(ROW_COUNT, WIDTH))).astype(np.float32)


def run(tmp_path, old, new, *names, tokens=None, **options):
    for side, values in (("old", old), ("new", new)):
        write_safetensors(tmp_path / side / "model.safetensors", values if isinstance(values, dict) else {NAME: values})
        if tokens:
            (tmp_path / side / "vocab.json").write_text(json.dumps({text: n for n, text in enumerate(tokens)}))
    records = list(compare(str(tmp_path / "old"), str(tmp_path / "new"), analyses=names, **options))
    return [r for r in records if r["type"] in names or (r["type"] == "skipped" and r["analysis"] in names)]


def test_rows_against_numpy(tmp_path):
    old = embedding()
    new = (old + np.random.default_rng(1).normal(0, 0.05, old.shape)).astype(np.float32)
    new[7] = -old[7]
    new[11] = old[11]
    new[13] = 0
    found = run(tmp_path, old, new, "embedding_analysis", tokens=[f"t{n}" for n in range(ROW_COUNT)])[0]
    a, b = old.astype(np.float64), new.astype(np.float64)
    alive = np.linalg.norm(b, axis=1) > 0
    cosine = 1 - (a * b).sum(1)[alive] / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))[alive]
    assert found["semantic_drift"] == pytest.approx(cosine.mean(), rel=1e-9)
    assert found["affected_rows"] == int((cosine > found["threshold"]).sum())
    assert found["relative_l2"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)
    assert (found["identical_rows"], found["zero_rows"], found["row_count"]) == (1, 1, ROW_COUNT)
    assert found["top_rows"][0] == {"row": 7, "token": "t7", "cosine_distance": 2.0, "relative_l2": pytest.approx(2.0)}


def test_tiny_moves_keep_their_digits(tmp_path):
    """A cosine computed as a quotient would say 0 here."""
    old = embedding().astype(np.float64)
    new = old * 1.0
    new[:, 0] += 1e-9
    found = run(tmp_path, old, new, "embedding_analysis")[0]
    assert 0 < found["semantic_drift"] < 1e-17


def test_a_resized_vocabulary_is_compared_over_the_common_rows(tmp_path):
    old = embedding()
    new = np.concatenate([old, embedding(1)[:20]])
    found = run(tmp_path, old, new, "embedding_analysis")[0]
    assert (found["row_count"], found["added_rows"], found["removed_rows"]) == (ROW_COUNT, 20, 0)
    assert found["semantic_drift"] == 0.0
    assert found["top_rows"] == []


@pytest.mark.parametrize("name", ["embedding_analysis", "clustering_change"])
def test_without_an_embedding_it_says_so(tmp_path, name):
    values = {"conv.weight": np.ones((4, 4), np.float32)}
    found = run(tmp_path, values, values, name)
    assert [r["type"] for r in found] == ["skipped"]
    assert "embedding" in found[0]["reason"]


def test_scaling_both_sides_and_permuting_rows(tmp_path):
    old, random = embedding(), np.random.default_rng(2)
    new = (old + random.normal(0, 0.1, old.shape)).astype(np.float32)
    order = random.permutation(ROW_COUNT)
    pairs = ((old, new), (8 * old, 8 * new), (old[order], new[order]))
    found = [run(tmp_path / str(number), *pair, "embedding_analysis")[0] for number, pair in enumerate(pairs)]
    for other in found[1:]:
        assert other["semantic_drift"] == pytest.approx(found[0]["semantic_drift"], rel=1e-9)
        assert other["affected_rows"] == found[0]["affected_rows"]


def test_clusters_against_scikit_learn(tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    old = embedding()
    new = old.copy()
    new[:100] = old[100:200]  # a third of the rows take the place of others
    found = run(tmp_path, old, new, "clustering_change")[0]
    assert found["k"] == len(found["old_cluster_sizes"])
    assert sum(found["old_cluster_sizes"]) == sum(found["new_cluster_sizes"]) == found["sample_count"] == ROW_COUNT
    assert 0 < found["migrated_rows"] < 200
    assert -1 <= found["adjusted_rand_index"] < 1
    random = np.random.default_rng(0)
    for first, second in [random.integers(0, 4, (2, 50)) for _ in range(20)] + [(np.array([0, 0, 1]), np.array([1, 1, 0]))]:
        expected = metrics.adjusted_rand_score(first, second)
        assert clustering.adjusted_rand_index(first, second) == pytest.approx(expected, abs=1e-12)


def test_an_unscaled_move_of_everything_changes_no_cluster(tmp_path):
    pytest.importorskip("scipy")
    old = embedding()
    found = run(tmp_path, old, (old + 1e-4).astype(np.float32), "clustering_change")[0]
    assert found["adjusted_rand_index"] > 0.99


def test_unrelated_embeddings_agree_by_chance_only(tmp_path):
    pytest.importorskip("scipy")
    found = run(tmp_path, embedding(), embedding(9)[::-1].copy(), "clustering_change")[0]
    assert found["adjusted_rand_index"] < 0.3


def test_without_the_library_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(clustering, "_installed", lambda: False)
    found = run(tmp_path, embedding(), embedding(1), "clustering_change")
    assert [r["type"] for r in found] == ["skipped"]
    assert "pip install" in found[0]["reason"]
