"""Directions of a change and task vectors, against float64 NumPy and planted updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from diffai_stream.errors import UsageError
from diffai_stream.statistics.delta_spectrum import WIDTH, DeltaSpectrum
from diffai_stream.statistics.task_vectors import TaskVectors
from diffai_stream.testing.statistics import StatisticLaws
from tests.checkpoints import write_safetensors
from tests.models import cast
from tests.validation import run as compared

SHAPE = (200, 160)
NAME = "model.layers.0.mlp.up_proj.weight"


@dataclass(frozen=True)
class OfNumbers:
    """A base that is some function of the place."""

    def values(self, start, stop):
        return np.sin(np.arange(start, stop)).astype(np.float32)


class TestLaws(StatisticLaws):
    statistics = (DeltaSpectrum(), TaskVectors(base=OfNumbers()))
    encodings = (("F32", "F32"), ("BF16", "BF16"), ("F64", "F16"))


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape)


def low_rank(rank, seed=5, shape=SHAPE):
    return noise(seed, (shape[0], rank)) @ noise(seed + 1, (rank, shape[1])) / np.sqrt(rank)


def run(tmp_path, old, new, name, base=None, **options):
    sides = {"old": old, "new": new} | ({"base": base} if base is not None else {})
    paths = [
        write_safetensors(tmp_path / f"{side}.safetensors", model if isinstance(model, dict) else {NAME: model})
        for side, model in sides.items()
    ]
    merge = {"merge_base": str(paths[2])} if base is not None else {}
    records = compared(*paths[:2], analyses=(name,), **merge, **options)
    return [r for r in records if r["type"] == name or (r["type"] == "skipped" and r["analysis"] == name)]


# --- spectrum -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 8, 40])
@pytest.mark.parametrize("shape", [SHAPE, (30, 3000), (3000, 50)])
def test_a_merged_adapter_is_told_exactly(tmp_path, rank, shape):
    old, update = noise(0, shape), 0.01 * low_rank(min(rank, 20), shape=shape)
    found = run(tmp_path, old, old + update, "spectrum")[0]
    values = np.linalg.svd((old + update) - old, compute_uv=False)
    squares, count = values**2, min(rank, 20)
    assert found["delta_l2_norm"] == pytest.approx(np.sqrt(squares.sum()), rel=1e-6)
    assert found["captured_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert found["stable_rank"] == pytest.approx(squares.sum() / squares[0], rel=1e-4)
    assert found["effective_rank"] == pytest.approx(squares.sum() ** 2 / (squares**2).sum(), rel=1e-3)
    assert found["energy_rank"] == int(np.searchsorted(np.cumsum(squares) / squares.sum(), 0.9)) + 1
    assert found["singular_values"] == pytest.approx(values[: min(8, count)], rel=1e-4)
    for row in found["rank_energies"]:
        assert row["energy_ratio"] == pytest.approx(squares[: row["rank"]].sum() / squares.sum(), abs=1e-4)
    assert found["lora_rank"] == next(r for r in (1, 4, 8, 16, 32) if squares[:r].sum() >= 0.9 * squares.sum())
    assert found["lora_parameter_ratio"] == pytest.approx(found["lora_rank"] * sum(shape) / np.prod(shape))


def test_of_a_full_update_the_figures_are_bounds(tmp_path):
    shape = (700, 600)
    old, update = noise(0, shape), 0.01 * noise(1, shape)
    found, model = run(tmp_path, old, old + update, "spectrum")
    squares = np.linalg.svd(update, compute_uv=False) ** 2
    assert found["singular_values"][0] <= np.sqrt(squares[0]) * (1 + 1e-6)
    assert found["stable_rank"] == pytest.approx(squares.sum() / squares[0], rel=0.6)
    assert found["stable_rank"] >= squares.sum() / squares[0] * (1 - 1e-6)
    assert found["effective_rank"] == pytest.approx(squares.sum() ** 2 / (squares**2).sum(), rel=0.05)
    assert (found["energy_rank"], found["lora_rank"], found["rank_limit"]) == (None, None, WIDTH)
    assert found["captured_ratio"] < squares[:WIDTH].sum() / squares.sum()
    assert (model["matrix_count"], model["lora_matrix_count"]) == (1, 0)
    assert model["operation_count"] == 4 * WIDTH * 420_000


def test_a_model_of_two_kinds_of_update(tmp_path):
    old = {"model.layers.0.a.weight": noise(0), "model.layers.1.a.weight": noise(1), "v.bias": np.ones(9)}
    updates = {"model.layers.0.a.weight": low_rank(8), "model.layers.1.a.weight": noise(3), "v.bias": np.ones(9)}
    records = run(tmp_path, old, {n: v + 0.01 * updates[n] for n, v in old.items()}, "spectrum")
    by_name, model = {r["subject"]: r for r in records}, records[-1]
    assert (model["matrix_count"], model["lora_matrix_count"], len(by_name)) == (2, 1, 3)
    energy = {n: (0.01 * u) ** 2 for n, u in updates.items() if "layers" in n}
    whole = sum(e.sum() for e in energy.values())
    held = sum(by_name[n]["captured_ratio"] * e.sum() for n, e in energy.items())
    assert model["captured_ratio"] == pytest.approx(held / whole, rel=1e-6)


def test_scale_swap_and_company_change_no_rank(tmp_path):
    old, new = noise(0), noise(0) + 0.01 * low_rank(6)
    sides = ((old, new), (8 * old, 8 * new), (new, old))
    found = [run(tmp_path, *pair, "spectrum")[0] for pair in sides]
    more = {NAME: old, "same.weight": noise(9)}, {NAME: new, "same.weight": noise(9)}
    found.append(run(tmp_path, *more, "spectrum")[0])
    for other in found[1:]:
        for key in ("stable_rank", "effective_rank", "captured_ratio", "energy_rank", "lora_rank"):
            assert other[key] == pytest.approx(found[0][key], rel=1e-5)


def test_nothing_changed(tmp_path):
    (found,) = run(tmp_path, noise(0), noise(0), "spectrum")
    assert (found["type"], found["reason"]) == ("skipped", "no matrix changed")


# --- merging --------------------------------------------------------------------------------------------------------


def expected(base, old, new):
    base, a, b = base.astype(np.float64).ravel(), *((side.astype(np.float64) - base).ravel() for side in (old, new))
    both = (a != 0) & (b != 0)
    norm = np.linalg.norm
    return {
        "old_relative_l2": norm(a) / norm(base),
        "new_relative_l2": norm(b) / norm(base),
        "cosine_similarity": a @ b / norm(a) / norm(b),
        "old_density": (a != 0).mean(),
        "new_density": (b != 0).mean(),
        "old_effective_density": abs(a).sum() ** 2 / (a.size * (a @ a)),
        "new_effective_density": abs(b).sum() ** 2 / (a.size * (b @ b)),
        "overlap_ratio": both.mean(),
        "sign_conflict_ratio": (a * b < 0).sum() / both.sum(),
        "weighted_conflict_ratio": abs(a * b)[a * b < 0].sum() / abs(a * b).sum(),
    }


def three(seed=0, shape=SHAPE):
    random = np.random.default_rng(seed)
    base = random.normal(size=shape).astype(np.float32)
    shared, own = random.normal(size=shape), [random.normal(size=shape) for _ in range(2)]
    kept = [random.random(shape) < share for share in (0.6, 0.3)]
    return base, *((base + 0.01 * (shared + part) * mask).astype(np.float32) for part, mask in zip(own, kept, strict=True))


@pytest.mark.parametrize("encoding", ["F32", "F64"])
@pytest.mark.parametrize("chunk_size", [1 << 16, 1 << 24])
def test_task_vectors_against_numpy(tmp_path, encoding, chunk_size):
    base, old, new = three()
    sides = [{NAME: cast(side, encoding)} for side in (old, new)]
    found, model = run(tmp_path, *sides, "merge_analysis", {NAME: cast(base, encoding)}, chunk_size=chunk_size)
    for key, value in expected(base, old, new).items():
        assert found[key] == pytest.approx(value, rel=1e-6), key
    assert (model["tensor_count"], model["unmatched_count"], model["compared_count"]) == (1, 0, base.size)
    assert model["base_read_nbytes"] == base.size * (4 if encoding == "F32" else 8)
    a, b = (side.astype(np.float64) - base for side in (old, new))
    large = [abs(x) >= np.sort(abs(x).ravel())[-(x.size // 5)] for x in (a, b)]
    both = large[0] & large[1]
    assert found["trimmed_count"] == both.sum()
    assert found["trimmed_conflict_ratio"] == pytest.approx((a * b < 0)[both].mean())


def test_opposite_task_vectors_conflict_everywhere(tmp_path):
    base = three()[0].astype(np.float64)
    update = 0.01 * noise(4)
    found = run(tmp_path, base + update, base - update, "merge_analysis", base)[0]
    ratios = ("sign_conflict_ratio", "weighted_conflict_ratio", "trimmed_conflict_ratio")
    assert [found[key] for key in ratios] == pytest.approx([1.0, 1.0, 1.0])
    assert found["cosine_similarity"] == pytest.approx(-1.0)
    found = run(tmp_path, base + update, base + 2 * update, "merge_analysis", base)[0]
    assert [found[key] for key in ratios] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_swap_scale_and_an_unchanged_tensor(tmp_path):
    base, old, new = three()
    here, back = run(tmp_path, old, new, "merge_analysis", base), run(tmp_path, new, old, "merge_analysis", base)
    large = run(tmp_path, 4 * old, 4 * new, "merge_analysis", 4 * base)
    for key in expected(base, old, new):
        other = key.replace("old_", "new_") if key.startswith("old_") else key.replace("new_", "old_")
        assert back[0][other] == pytest.approx(here[0][key], rel=1e-9)
        assert large[0][key] == pytest.approx(here[0][key], rel=1e-9)
    same = noise(7).astype(np.float32)
    more = [{NAME: side, "same.weight": same} for side in (old, new, base)]
    found = run(tmp_path, more[0], more[1], "merge_analysis", more[2])
    assert found[0]["cosine_similarity"] == here[0]["cosine_similarity"]
    assert found[-1]["cosine_similarity"] == pytest.approx(here[-1]["cosine_similarity"])
    assert (found[-1]["tensor_count"], len(found)) == (2, 2)


def test_what_the_base_has_not(tmp_path):
    base, old, new = three()
    sides = [{NAME: side, "added.weight": noise(n)} for n, side in enumerate((old, new))]
    model = run(tmp_path, *sides, "merge_analysis", base)[-1]
    assert (model["tensor_count"], model["unmatched_count"]) == (1, 1)
    with pytest.raises(UsageError, match="no tensor of these checkpoints"):
        run(tmp_path, old, new, "merge_analysis", base[:7])
    (skipped,) = run(tmp_path, old, new, "merge_analysis")
    assert skipped["type"] == "skipped"
    assert "BASE" in skipped["reason"]
