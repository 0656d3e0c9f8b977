"""Attention, head by head, against float64 NumPy: singular values and forms written out, rotations as matrices."""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.errors import UsageError
from tests.attention_models import CONFIG, HEADS, KV_HEADS, SIZE, WIDTH, attention, head, moved, run

NAMES = ("attention_analysis", "head_importance", "attention_pattern_diff")
SHARED = HEADS // KV_HEADS


def cosine(a, b):
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def form(model, number, turn=None):
    queries, keys = head(model, "q", number), head(model, "k", number // SHARED)
    return queries.T @ (np.eye(SIZE) if turn is None else turn.T) @ keys


def rotation(distance, base=10_000.0, halves=True, rotated=SIZE):
    turn = np.eye(SIZE)
    for pair in range(rotated // 2):
        a, b = (pair, pair + rotated // 2) if halves else (2 * pair, 2 * pair + 1)
        angle = distance * base ** (-2 * pair / rotated)
        turn[[[a], [b]], [a, b]] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def test_moves_of_heads_against_numpy(tmp_path):
    old = attention()
    new = moved(old)
    new["model.layers.0.self_attn.q_proj.weight"][:SIZE] = old["model.layers.0.self_attn.q_proj.weight"][:SIZE]
    found = run(tmp_path, old, new, "attention_analysis", top=0)[0]
    assert (found["head_count"], found["kv_head_count"], found["head_dim"], found["heads_from"]) == (6, 2, 8, "config.json")
    assert found["unchanged_head_count"] == 1
    assert len(found["moved_heads"]) == 2 * HEADS + 2 * KV_HEADS - 1
    for row in found["moved_heads"]:
        a, b = (head(model, row["projection"], row["head"]) for model in (old, new))
        assert row["relative_l2"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)
        assert row["cosine_similarity"] == pytest.approx(cosine(a, b), abs=1e-9)
    relative = [row["relative_l2"] for row in found["moved_heads"]]
    assert relative == sorted(relative, reverse=True)
    for row in found["projections"]:
        a, b = (model[f"model.layers.0.self_attn.{row['projection']}_proj.weight"].astype(float) for model in (old, new))
        assert row["relative_l2"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)


def test_focus_is_the_share_of_the_first_singular_value(tmp_path):
    old = attention()
    new = moved(old)
    new["model.layers.0.self_attn.q_proj.weight"][SIZE : 2 * SIZE] = np.outer(np.ones(SIZE), np.arange(WIDTH))
    found = run(tmp_path, old, new, "attention_analysis", top=0)[0]
    for row in found["focus_shifts"]:
        for side, model in (("old", old), ("new", new)):
            values = np.linalg.svd(form(model, row["head"]), compute_uv=False)
            assert row[f"{side}_share"] == pytest.approx(values[0] ** 2 / (values**2).sum(), abs=1e-5)
    focused = next(row for row in found["focus_shifts"] if row["head"] == 1)
    assert focused["new_share"] == pytest.approx(1.0, abs=1e-6)
    assert found["mean_focus_shift"] == pytest.approx(np.mean([abs(row["shift"]) for row in found["focus_shifts"]]))


def test_importance_against_numpy(tmp_path):
    old = attention()
    new = moved(old)
    found = run(tmp_path, old, new, "head_importance", top=0)[0]
    assert [row["new_rank"] for row in found["heads"]] == list(range(1, HEADS + 1))
    sums = {"old": 0.0, "new": 0.0}
    for row in found["heads"]:
        for side, model in (("old", old), ("new", new)):
            written = head(model, "o", row["head"]).T @ head(model, "v", row["head"] // SHARED)
            assert row[f"{side}_qk_norm"] == pytest.approx(np.linalg.norm(form(model, row["head"])), rel=1e-6)
            assert row[f"{side}_ov_norm"] == pytest.approx(np.linalg.norm(written), rel=1e-6)
            sums[side] += row[f"{side}_share"]
    assert sums == pytest.approx({"old": 1.0, "new": 1.0})


def test_a_pruned_head_is_found(tmp_path):
    old, new = attention(), moved(attention(), 0.01)
    new["model.layers.1.self_attn.o_proj.weight"][:, 3 * SIZE : 4 * SIZE] = 0
    found = run(tmp_path, old, new, "head_importance")
    assert [(r["subject"], r["prunable_heads"], r["old_prunable_count"]) for r in found] == [
        ("model.layers.0", [], 0),
        ("model.layers.1", [3], 0),
    ]
    last = found[1]["heads"][-1]
    assert (last["head"], last["new_ov_norm"], last["new_share"], last["prunable"]) == (3, 0.0, 0.0, True)
    assert last["old_share"] > 0.05


@pytest.mark.parametrize("halves", [True, False])
def test_forms_at_a_distance_against_rotation_matrices(tmp_path, halves):
    config = CONFIG | {"model_type": "llama" if halves else "gptj", "rope_theta": 500.0}
    old, new = attention(), moved(attention(), 0.8)
    found = run(tmp_path, old, new, "attention_pattern_diff", config=config, top=0)[0]
    assert found["rotary"] == f"base 500, 8 of 8 rows, {'halves' if halves else 'interleaved'}"
    distances = {row["distance"]: row for row in found["distances"]}
    assert list(distances) == [0, 1, 8, 64]
    for distance, row in distances.items():
        turn = rotation(distance, 500.0, halves)
        expected = [cosine(form(old, h, turn), form(new, h, turn)) for h in range(HEADS)]
        assert row["mean_cosine"] == pytest.approx(np.mean(expected), abs=2e-6)
        assert row["min_cosine"] == pytest.approx(min(expected), abs=2e-6)
    for row in found["heads"]:
        assert row["cosine"] == pytest.approx(cosine(form(old, row["head"]), form(new, row["head"])), abs=2e-6)


def test_what_looks_alike_up_close_may_not_from_afar(tmp_path):
    """An orthogonal mix of the rows of q and k leaves their form at distance 0 and breaks the pairs that turn together."""
    old = attention()
    new = {name: values.copy() for name, values in old.items()}
    mix = np.linalg.qr(np.random.default_rng(3).normal(size=(SIZE, SIZE)))[0]
    for part in "qk":
        values = new[f"model.layers.0.self_attn.{part}_proj.weight"]
        for start in range(0, len(values), SIZE):
            values[start : start + SIZE] = mix @ values[start : start + SIZE]
    found = run(tmp_path, old, new, "attention_pattern_diff")
    assert found[0]["cosine"] == pytest.approx(1.0, abs=1e-6)
    assert found[0]["mean_cosine"] < 0.9
    assert (found[1]["cosine"], found[1]["mean_cosine"]) == (1.0, 1.0)


def test_another_base_changes_forms_at_a_distance_alone(tmp_path):
    old = attention()
    config = {side: CONFIG | {"rope_theta": base} for side, base in (("old", 10_000.0), ("new", 1_000_000.0))}
    found = run(tmp_path, old, {**old, "extra": np.ones(2, np.float32)}, "attention_pattern_diff", config=config)[0]
    turns = [rotation(64, base) for base in (10_000.0, 1_000_000.0)]
    expected = [cosine(form(old, h, turns[0]), form(old, h, turns[1])) for h in range(HEADS)]
    assert found["cosine"] == 1.0
    assert found["distances"][-1]["mean_cosine"] == pytest.approx(np.mean(expected), abs=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_scaling_both_sides_changes_no_ratio_and_swapping_inverts(tmp_path, name):
    old, new = attention(), moved(attention())
    here, larger, back = (
        run(tmp_path / kind, *sides, name, top=0)
        for kind, sides in (
            ("here", (old, new)),
            ("larger", ({n: 4 * v for n, v in old.items()}, {n: 4 * v for n, v in new.items()})),
            ("back", (new, old)),
        )
    )
    for a, b, c in zip(here, larger, back, strict=True):
        if name == "attention_analysis":
            assert [m["relative_l2"] for m in a["moved_heads"]] == pytest.approx([m["relative_l2"] for m in b["moved_heads"]])
            shifts = [{row["head"]: row["shift"] for row in r["focus_shifts"]} for r in (a, c)]
            assert {h: -s for h, s in shifts[1].items()} == pytest.approx(shifts[0], abs=1e-9)
        elif name == "head_importance":
            assert [h["new_share"] for h in a["heads"]] == pytest.approx([h["new_share"] for h in b["heads"]], rel=1e-6)
            assert {h["head"]: h["old_share"] for h in a["heads"]} == pytest.approx(
                {h["head"]: h["new_share"] for h in c["heads"]}
            )
            assert a["rank_correlation"] == pytest.approx(c["rank_correlation"])
        else:
            cosines = [[d["mean_cosine"] for d in r["distances"]] for r in (a, b, c)]
            assert cosines[1] == pytest.approx(cosines[0], abs=1e-6)
            assert cosines[2] == pytest.approx(cosines[0], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_unchanged_tensor_or_another_order_changes_nothing(tmp_path, name):
    old, new = attention(), moved(attention())
    more = {"zz.weight": np.ones((4, 4), np.float32)}
    kept = [dict(reversed((model | more).items())) for model in (old, new)]
    first, second = run(tmp_path / "a", old, new, name), run(tmp_path / "b", *kept, name)
    drop = ("seq", "run_id")
    strip = [
        [{k: v for k, v in r.items() if k not in drop} for r in sorted(rs, key=lambda r: r["subject"])]
        for rs in (first, second)
    ]
    assert strip[0] == strip[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk_size", [1 << 16, 1 << 24])
def test_chunks_do_not_show(tmp_path, name, chunk_size):
    random = np.random.default_rng(0)
    old = {
        f"model.layers.0.self_attn.{part}_proj.weight": random.normal(size=(96, 3000) if part != "o" else (3000, 96)).astype(
            "f4"
        )
        for part in "qkvo"
    }
    config = {"num_attention_heads": 4, "rope_theta": 1e4}
    kept = [run(tmp_path / str(size), old, moved(old), name, config=config, chunk_size=size) for size in (chunk_size, 1 << 20)]
    assert [{k: v for k, v in r.items() if k != "run_id"} for r in kept[0]] == [
        {k: v for k, v in r.items() if k != "run_id"} for r in kept[1]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_skipped(tmp_path, name):
    values = {"conv.weight": np.ones((4, 4), np.float32)}
    found = run(tmp_path / "a", values, {"conv.weight": values["conv.weight"] * 2}, name)
    assert [(r["type"], r["reason"]) for r in found] == [
        ("skipped", "no layer has projections of queries, keys and values: not a transformer")
    ]
    found = run(tmp_path / "b", attention(), moved(attention()), name, config=None)
    assert [r["type"] for r in found] == ["skipped"]
    assert "number of attention heads" in found[0]["reason"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("told", [{"num_attention_heads": 7}, CONFIG | {"num_key_value_heads": 3}, CONFIG | {"head_dim": 5}])
def test_a_configuration_against_the_shapes_is_told_before_anything_is_read(tmp_path, name, told):
    with pytest.raises(UsageError, match=r"model\.layers\.0"):
        run(tmp_path, attention(), moved(attention()), name, config=told)
    found = run(tmp_path, attention(), moved(attention()), name, config=told, all_analyses=True)
    assert [r["type"] for r in found] == ["skipped"]


@pytest.mark.parametrize("name", NAMES)
def test_the_norm_of_a_head_tells_its_size(tmp_path, name):
    norms = {f"model.layers.{n}.self_attn.q_norm.weight": np.ones(SIZE, np.float32) for n in range(2)}
    found = run(tmp_path, attention() | norms, moved(attention()) | norms, name, config={"model_type": "qwen3"})
    assert [(r["heads_from"], r["head_count"], r["kv_head_count"]) for r in found] == [("shapes", HEADS, KV_HEADS)] * 2


@pytest.mark.parametrize("name", NAMES)
def test_attention_to_another_sequence(tmp_path, name):
    sides = [
        {n.replace("model.layers", "model.decoder.layers").replace("self_attn", "encoder_attn"): v for n, v in model.items()}
        for model in (attention(), moved(attention()))
    ]
    found = run(tmp_path, *sides, name)
    assert [r["attention"] for r in found] == ["cross"] * 2
