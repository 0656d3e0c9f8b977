"""Laws that hold for every analysis alike, on one model that has something for each to tell.

Scaling both sides changes no ratio. The order of tensors and the cut into shards change nothing. An unchanged tensor changes
counts only. Swapping the sides swaps what is told of old and of new, and turns ratios over.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from diffai_stream.analyses.catalogue import ANALYSES
from tests.analyses.scenario import CAST, UNCHANGED, Sizes, findings, flat, run, save, states
from tests.models import cast

SIZES = Sizes(0)
ENVELOPE = ("schema_version", "run_id", "seq", "type", "base")
TEXTS = {"detail", "evidence", "statement", "reason", "map"}  # they hold figures and lists of names

SCALED = dict.fromkeys(("delta_l2_norm", "update_norms", "update_per_lr", "max_abs", "new_rms", "singular_values"), 1)
SCALED |= dict.fromkeys(("old_near_zero_below", "new_near_zero_below", "mean", "std", "min", "max", "abs_max", "l2_norm"), 1)
SCALED |= {"mean_change": 1}
SCALED |= {f"p{level}": 1 for level in ("001", "01", "05", "25", "50", "75", "95", "99", "999")}
SCALED |= {f"{side}_{form}_norm": 2 for side in ("old", "new") for form in ("qk", "ov")}
"""Fields that grow with the weights, and with which power; all others are ratios, counts and words."""

INVERTED = {"ratio", "compression_ratio", "range_ratio", "bytes_ratio", "flops_ratio", "efficiency_ratio"}
INVERTED |= {"std_ratio", "norm_ratio", "latency_ratio", "throughput_ratio", "memory_ratio"}
NEGATED = {"mean_change", "stats.delta.mean", "stats.delta.skewness", "focus_shifts[].shift", "heads[].share_change"}
NEITHER = {
    "a part of old, or of the side that is judged": {
        *("relative_l2", "energy_ratio", "value", "magnitude", "sqnr_db", "sqnr_gap_db", "sqnr_scale_invariant_db"),
        *("worst_row", "worst_row_relative_l2", "threshold", "limit", "prunable", "prunable_heads", "is_sparse", "layer"),
    },
    "of codes and casts, which only a narrower new has": {
        *("saturation_ratio", "code_entropy_bits", "cast", "old_is_bf16", "new_is_bf16", "overflow_count", "saturated_count"),
        *("flushed_count", "subnormal_count"),
    },
    "of the model that is the new one": {"sparse_layer_count", "dense_layer_count", "two_of_four_tensor_count", "zero_rows"},
    "clusters start from old": {"old_cluster_sizes", "new_cluster_sizes", "adjusted_rand_index", "migrated_rows"},
    "a run has one direction": {
        *("steps", "speed", "trend", "trend_slope", "trend_points", "trend_source", "update_norms", "old_rms", "new_rms"),
        *("pattern", "pattern_residual", "pattern_points", "mean_learning_rate", "update_per_lr", "loss_slope"),
        *("ratio_to_median", "warmup_steps", "kind", "learning_rate"),
    },
    "side by side": {"side", "min", "max", "projection", "head", "kv_head", "old_rank", "new_rank", "source", "row", "token"},
    "of deltas, whose order turns": {f"p{level}" for level in ("001", "01", "05", "25", "50", "75", "95", "99", "999")},
    "sums of all sides": {"level", "rule", "severity", "passed", "strategy", "name"},
}

WHOLE = {
    *("parameter_count", "relative_l2", "tensor_count", "magnitude", "speed", "frozen_ratio", "frozen_tensor_count"),
    *("bytes_ratio", "ratio", "latency_ratio", "memory_ratio", "throughput_ratio", "update_ratio", "total_count"),
    *("old_relative_l2", "new_relative_l2"),
}
"""Figures of the whole model, which one more tensor belongs to."""


def values(records):
    """(analysis, subject) -> path -> values, those of lists sorted: nothing but their order may differ."""
    found = defaultdict(lambda: defaultdict(list))
    for record in records:
        key = record["type"], record["subject"], record.get("kind", record.get("gate", record.get("trigger", "")))
        for path, value in flat({name: item for name, item in record.items() if name not in ENVELOPE}):
            found[key][path].append(value)
    return {key: {path: sorted(every, key=repr) for path, every in paths.items()} for key, paths in found.items()}


def told(folder, scale=1.0, swapped=False, **how):
    """The findings about the last two checkpoints of a run, one matrix rounded."""
    base, *_, old, new = states(SIZES, scale)
    new = new | {CAST: cast(new[CAST], "BF16")}
    paths = [
        save(folder / name, model, SIZES, step, **how)
        for name, model, step in (("base", base, 1), ("old", old, 200), ("new", new, 300))
    ]
    sides = paths[1:][:: -1 if swapped else 1]
    return values(findings(run(paths[0], *sides, learning_rate=SIZES.rate)))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    found = told(tmp_path_factory.mktemp("here"))
    assert {kind for kind, *_ in found} - {"skipped"} == set(ANALYSES)
    return found


def different(left, right):
    """(analysis, path, values on the left and on the right) of what is not the same."""
    for key in sorted(left.keys() | right.keys()):
        for path in sorted(left.get(key, {}).keys() | right.get(key, {}).keys()):
            sides = [side.get(key, {}).get(path, []) for side in (left, right)]
            if not same(*sides):
                yield key, path, sides


def same(left, right):
    if len(left) != len(right):
        return False
    return all(
        a == b or (is_number(a) and is_number(b) and a == pytest.approx(b, rel=1e-6, abs=1e-9))
        for a, b in zip(left, right, strict=True)
    )


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def last(path):
    return path.split(".")[-1].removesuffix("[]")


def is_text(path):
    return bool(TEXTS & {token.removesuffix("[]") for token in path.split(".")})


def grown(values_, power):
    return [value * 2.0**power if is_number(value) else value for value in values_]


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    return told(tmp_path_factory.mktemp("doubled"), scale=2.0)


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    return told(tmp_path_factory.mktemp("swapped"), swapped=True)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    return told(tmp_path_factory.mktemp("longer"), extra=True)


@pytest.fixture(scope="module", params=["reversed", "shards"])
def reordered(request, tmp_path_factory):
    return told(tmp_path_factory.mktemp(request.param), order=request.param)


def of(name, found):
    return {key: paths for key, paths in found.items() if key[0] == name}


@pytest.mark.parametrize("name", ANALYSES)
def test_scaling_both_sides_changes_no_ratio(name, here, doubled):
    assert of(name, here).keys() == of(name, doubled).keys()
    checked = 0
    for key, paths in of(name, here).items():
        for path, before in paths.items():
            if not is_text(path):
                power = SCALED.get(last(path), 0)
                assert same(sorted(grown(before, power), key=repr), doubled[key][path]), (key, path)
                checked += 1
    assert checked


@pytest.mark.parametrize("name", ANALYSES)
def test_order_and_shards_change_nothing(name, here, reordered):
    found = [(key, path) for key, path, _ in different(of(name, here), of(name, reordered)) if not is_text(path)]
    assert found == []


@pytest.mark.parametrize("name", ANALYSES)
def test_an_unchanged_tensor_changes_counts_only(name, here, longer):
    for key, path, sides in different(of(name, here), of(name, longer)):
        if not is_text(path) and key[1] not in (UNCHANGED, "extra", "extra.unchanged"):
            is_whole = last(path).endswith(("_count", "_nbytes", "_per_token", "_per_second", "_density", "_ratio"))
            listed = path.endswith(("[].layer", "[].role", "[].relative_l2", "[].name"))
            assert key[1] == "model", (key, path, sides)
            assert is_whole or listed or last(path) in WHOLE or (key[2], path) == ("size", "value"), (key, path, sides)


def turned(path):
    """The path on the other side."""
    swaps = {"old": "new", "new": "old"}
    tokens = []
    for token in path.split("."):
        word, bracket = token.removesuffix("[]"), "[]" * token.endswith("[]")
        head, _, rest = word.partition("_")
        tokens.append(("_".join([swaps[head], *([rest] if rest else [])]) if head in swaps else word) + bracket)
    return ".".join(tokens)


@pytest.mark.parametrize("name", ANALYSES)
def test_swapping_the_sides_turns_everything_over(name, here, swapped):
    exempt = {field for fields in NEITHER.values() for field in fields}
    checked = 0
    for key, paths in of(name, here).items():
        for path, before in paths.items():
            other = swapped.get(key, {}).get(turned(path))
            if is_text(path) or (last(path) in exempt and turned(path) == path) or other is None:
                continue
            if last(path) in INVERTED:
                before = [1 / value if value else value for value in before]
            elif path in NEGATED:
                before = [-value if value is not None else value for value in before]
            if last(path) not in exempt or "stats.old" in path or "stats.new" in path:
                assert same(sorted(before, key=repr), sorted(other, key=repr)), (key, path)
                checked += 1
    assert checked
