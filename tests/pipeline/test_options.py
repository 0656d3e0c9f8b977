"""What each option does to the records, the verdict and the exit status."""

import math

import numpy as np
import pytest

from diffai_stream import Options
from diffai_stream.errors import MemoryLimitError, UsageError
from diffai_stream.options import NEUTRAL
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.models import llama
from tests.validation import look, of_type, run, tensors

SMALL = np.float32(1e-3)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Six blocks, of which block d moved by d thousandths; `gone` and `fresh` on one side only."""
    folder, old = tmp_path_factory.mktemp("pair"), llama(6, 16)
    new = {name: values * (1 + SMALL * depth(name)) for name, values in old.items()}
    a = write_safetensors(folder / "old.safetensors", {**old, "gone": np.ones(3, np.float32)})
    return a, write_safetensors(folder / "new.safetensors", {**new, "fresh": np.ones(4, np.float32)})


@pytest.fixture
def compared(tmp_path):
    def compare(old, new, **options):
        sides = (("old", old), ("new", new))
        a, b = (
            write_safetensors(tmp_path / f"{name}.safetensors", {"w": np.asarray(side, np.float32)}) for name, side in sides
        )
        return run(a, b, **options)

    return compare


def depth(name):
    return int(name.split(".")[2]) if ".layers." in name else 0


def verdict(records):
    return records[-1]["status"], records[-1]["exit_status"]


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, 4),
        ({"epsilon": 0.05}, 3),
        ({"epsilon": 0.5}, 1),
        ({"relative_tolerance": 0.05}, 3),
        ({"relative_tolerance": 0.2, "epsilon": 0.01}, 2),
        ({"epsilon": 2.0}, 0),
    ],
    ids=str,
)
def test_tolerances(compared, options, changed):
    old, new = np.array([0.0, 1.0, 10.0, 0.0, 5.0]), np.array([1.0, 1.1, 10.1, -0.02, 5.0])
    records = compared(old, new, include_unchanged=True, **options)
    found = tensors(records)["w"]
    assert found["change"]["changed_count"] == changed
    assert found["status"] == ("changed" if changed else "unchanged")
    assert found["change"]["max_abs"] == 1.0
    assert verdict(records) == (("different", 1) if changed else ("equivalent", 0))


def test_nothing_tolerated_is_identical(compared):
    assert verdict(compared([1, 2], [1, 2], epsilon=0.5)) == ("identical", 0)
    assert verdict(compared([1, 2], [1, 2.1], epsilon=0.5, strict=True)) == ("equivalent", 1)


def test_nan_is_never_tolerated(compared):
    assert verdict(compared([1, 2], [1, np.nan], epsilon=1e30, relative_tolerance=1e30)) == ("different", 1)
    assert verdict(compared([1, np.inf], [1, 2], epsilon=1e30)) == ("different", 1)


def test_include_and_exclude(pair):
    found = tensors(run(*pair, include=("model.layers.2", "*.5.*"), exclude=("*mlp*",)))
    assert {depth(name) for name in found} == {2, 5}
    assert not any("mlp" in name for name in found)
    assert run(*pair, exclude=("model.layers.*", "gone", "fresh"))[-1]["status"] == "identical"


@pytest.mark.parametrize("options", [{"include": ("*layer.*",)}, {"exclude": ("model.layers.99.*",)}])
def test_a_pattern_that_matches_nothing_is_an_error(pair, options):
    with pytest.raises(UsageError, match="matches no tensor"):
        compare(*map(str, pair), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"io": "telepathy"},
        {"fast": True, "histograms": True},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"chunk_size": 100},
        {"workers": 0},
        {"executor": "hamster"},
        {"fail_on": ("everything",)},
        {"fail_on": ("gates",)},
        {"analyses": ("anomalies",)},
        {"precision_loss_threshold": -1.0},
        {"maps": (("a*", "b"),)},
    ],
    ids=str,
)
def test_nonsense_is_refused_before_anything_is_read(pair, options):
    with pytest.raises(UsageError):
        compare(*map(str, pair), **options)


def test_unchanged_tensors_are_told_when_asked(pair):
    few, all_ = run(*pair), run(*pair, include_unchanged=True)
    assert {record["status"] for record in tensors(few).values()} == {"changed", "added", "removed"}
    assert len(tensors(all_)) == len(tensors(few)) + few[-1]["counts"]["unchanged"]
    assert all_[-1]["counts"] == few[-1]["counts"]


def test_sorted_by_change(pair):
    records = run(*pair, sort_by_change_magnitude=True)
    sizes = [r["change"]["relative_l2"] if r["change"] else np.inf for r in of_type(records, "tensor")]
    assert sizes == sorted(sizes, reverse=True)
    kinds = [record["type"] for record in records]
    layers = [i for i, r in enumerate(records) if r["type"] == "layer_impact" and r["scope"] == "layer"]
    assert max(layers) < kinds.index("tensor")
    plain = tensors(run(*pair))
    assert {name: record["change"] for name, record in tensors(records).items()} == {n: r["change"] for n, r in plain.items()}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 1),
        ({"exit_zero": True}, 0),
        ({"strict": True}, 1),
        ({"fail_on": ("different",)}, 1),
        ({"fail_on": ("critical",)}, 0),
        ({"fail_on": ("warning",)}, 0),
        ({"fail_on": ("different", "critical"), "exit_zero": True}, 0),
    ],
    ids=str,
)
def test_exit_status_of_a_difference(pair, options, status):
    assert run(*pair, **options)[-1]["exit_status"] == status


def test_exit_status_follows_severities(compared):
    broken = np.array([[np.nan, 1.0], [2.0, 3.0]])
    for fail_on, status in (("critical", 1), ("warning", 1), ("different", 0)):
        assert compared(broken, broken, fail_on=(fail_on,))[-1]["exit_status"] == status


def test_options_that_change_no_figure_are_no_identity():
    assert Options(strict=True, exit_zero=True, fail_on=("critical",), workers=3, io="pread").identity() == {}
    assert Options(stats=True, epsilon=0.1).identity() == {"stats": True, "epsilon": 0.1}
    assert {"strict", "exit_zero", "fail_on", "workers", "chunk_size", "memory_limit"} <= NEUTRAL


def test_fast_leaves_out_histograms_and_nothing_else(pair):
    fast, full = run(*pair, fast=True), run(*pair)
    for name, record in tensors(full).items():
        quick = tensors(fast)[name]
        if record["change"]:
            assert quick["change"].pop("max_abs_index") == record["change"].pop("max_abs_index")
            assert quick["change"] == pytest.approx(record["change"], rel=1e-6, abs=1e-9)
        for side in ("old", "new", "delta"):
            if (full_stats := record["stats"][side]) and full_stats["mean"] is not None:
                rms = math.hypot(full_stats["mean"], full_stats["std"])
                assert quick["stats"][side].pop("mean") == pytest.approx(full_stats.pop("mean"), abs=1e-6 * rms)
                assert quick["stats"][side] == pytest.approx(full_stats, rel=1e-6, abs=1e-9)
    assert all("quantiles" not in (r["stats"]["old"] or {}) for r in of_type(fast, "layer_impact") if r["scope"] == "layer")


def test_what_stats_and_histograms_add(pair):
    plain, rich = tensors(run(*pair)), tensors(run(*pair, stats=True, histograms=True))
    name = "model.layers.5.mlp.up_proj.weight"
    side, change = rich[name]["stats"]["old"], rich[name]["change"]
    assert {"skewness", "excess_kurtosis", "quantiles", "sparsity_ratio", "histogram"} == side.keys() - plain[name]["stats"][
        "old"
    ].keys()
    assert {"ks", "js_distance", "wasserstein", "ulp_p50", "ulp_p99", "ulp_max"} == change.keys() - plain[name]["change"].keys()
    assert (len(side["histogram"]["edges"]), sum(side["histogram"]["counts"])) == (129, rich[name]["old"]["numel"])


def test_a_memory_limit_is_refused_with_both_numbers(pair):
    needed = next(iter(compare(*map(str, pair))))["plan"]["projected_memory_nbytes"]
    with pytest.raises(MemoryLimitError, match=rf"{needed / 2**20:.0f} MiB.*100 MiB"):
        compare(*map(str, pair), memory_limit=100 << 20)
    assert run(*pair, memory_limit=needed)[-1]["status"] == "different"


def test_inspect(pair):
    records = look(pair[0])
    assert {record["type"] for record in records} == {"header", "tensor", "summary"}
    assert records[-1]["read_nbytes"] == 0
    full = look(pair[0], stats=True)
    assert records[0]["old"]["tensor_count"] == len(tensors(full)) == len(tensors(records))
    assert all(record["stats"]["old"]["l2_norm"] > 0 for record in tensors(full).values())
    assert (full[-1]["status"], full[-1]["exit_status"]) == ("identical", 0)
