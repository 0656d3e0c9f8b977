"""What makes no sense is refused before a byte of a tensor is read: one clear line, exit status 2, nothing on stdout."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.errors import UsageError
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.models import llama, tuned

GATE = ("regression_test",)
CONFIG = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.fixture
def pair(tmp_path):
    model = llama(3)
    for name, side in (("old", model), ("new", tuned(model))):
        write_safetensors(tmp_path / name / "model.safetensors", side)
    return tmp_path / "old", tmp_path / "new"


def beside(pair, name, content, sides=(0, 1)):
    for side in sides:
        (pair[side] / name).write_text(json.dumps(content))


def refused(pair, **options):
    """The message: compare() raises when it is called, which is before anything is read."""
    with pytest.raises(UsageError) as caught:
        compare(*map(str, pair), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CONTRADICTIONS = [
    ({"fast": True, "histograms": True}, "leave one"),
    ({"ignore_optimizer_state": True, "compare_gradients": True}, "leave one out"),
    ({"min_sqnr": 30.0}, "--min-sqnr is for --regression-test"),
    ({"expect_unchanged": ("*",)}, "--expect-unchanged is for --regression-test"),
    ({"tolerance_per_layer": (("*", 0.1),), "analyses": ("alert",)}, "--tolerance-per-layer is for --regression-test"),
    ({"max_size": 5, "analyses": ("alert",)}, "--regression-test or --deployment-readiness"),
    ({"peak_flops": 1e12}, "--inference-speed-estimate"),
    ({"memory_bandwidth": 1e12}, "--inference-speed-estimate"),
    ({"include": ("model.norm*",), "exclude": ("*.weight",)}, "leave no tensor"),
    ({"fail_on": ("gates",)}, "gates"),
]
PATTERNS = [
    ({"include": ("nothing.*",)}, "--include"),
    ({"exclude": ("nothing.*",)}, "--exclude"),
    ({"maps": (("nothing", "else"),)}, "--map"),
    ({"expect_unchanged": ("nothing.*",), "analyses": GATE}, "--expect-unchanged"),
    ({"tolerance_per_layer": (("nothing.*", 0.1),), "analyses": GATE}, "--tolerance-per-layer"),
]


@pytest.mark.parametrize(("options", "message"), CONTRADICTIONS, ids=str)
def test_contradictions(pair, options, message):
    assert message in refused(pair, **options)


@pytest.mark.parametrize(("options", "option"), PATTERNS, ids=str)
def test_patterns_that_match_nothing(pair, options, option):
    message = refused(pair, **options)
    assert message.startswith(option)
    assert "nothing" in message


@pytest.mark.parametrize("name", ANALYSES)
def test_an_unknown_analysis_suggests_the_nearest(pair, name):
    assert f"did you mean {name!r}?" in refused(pair, analyses=(name + "s",))


def test_an_unknown_analysis_like_none_lists_all(pair):
    assert "layer_impact" in refused(pair, analyses=("qqqq",))


ATTENTION = ("attention_analysis", "head_importance", "attention_pattern_diff")


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("heads", [{"num_attention_heads": 7}, {"num_attention_heads": 4, "num_key_value_heads": 3}])
def test_heads_that_do_not_divide(pair, name, heads):
    beside(pair, "config.json", CONFIG | heads)
    assert "cannot tell the heads" in refused(pair, analyses=(name,))


SHAPED = ("architecture_comparison", "memory_analysis", "inference_speed_estimate", "performance_impact_estimate")


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize(("wrong", "message"), [({"hidden_size": 48}, "width of 48"), ({"num_hidden_layers": 2}, "2 layers")])
def test_a_config_that_disagrees_with_the_shapes(pair, name, wrong, message):
    beside(pair, "config.json", CONFIG, (0,))
    beside(pair, "config.json", CONFIG | wrong, (1,))
    told = refused(pair, analyses=(name,))
    assert message in told
    assert str(pair[1]) in told
    assert list(compare(*map(str, pair), all_analyses=True))[-1]["type"] == "summary"


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("fitting", [{}, {"num_hidden_layers": 8}, {"hidden_size": 32, "embedding_size": 64}])
def test_a_config_that_fits(pair, name, fitting):
    beside(pair, "config.json", CONFIG | fitting)
    assert [r for r in compare(*map(str, pair), analyses=(name,)) if r["type"] == name]


@pytest.mark.parametrize(("count", "fits"), [(257, False), (100, False), (256, True), (250, True)])
def test_a_tokenizer_of_another_size(pair, count, fits):
    beside(pair, "vocab.json", {f"t{n}": n for n in range(count)}, (1,))
    if fits:
        assert [r for r in compare(*map(str, pair), analyses=("embedding_analysis",)) if r["type"] == "embedding_analysis"]
    else:
        told = refused(pair, analyses=("embedding_analysis",))
        assert f"vocab.json of the new checkpoint {pair[1]} has {count} tokens" in told
        assert list(compare(*map(str, pair), all_analyses=True))[-1]["type"] == "summary"


def test_a_base_that_is_no_checkpoint(pair, tmp_path):
    from diffai_stream.errors import DiffaiError

    (tmp_path / "base.safetensors").write_bytes(b"nothing")
    with pytest.raises(DiffaiError, match=r"base\.safetensors"):
        compare(*map(str, pair), analyses=("merge_analysis",), merge_base=str(tmp_path / "base.safetensors"))
    write_safetensors(tmp_path / "base.safetensors", {"other": np.ones(3, np.float32)})
    told = refused(pair, analyses=("merge_analysis",), merge_base=str(tmp_path / "base.safetensors"))
    assert "no tensor of these checkpoints" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["--min-sqnr", "30"],
        ["--include", "nothing"],
        ["--regression-test", "--expect-unchanged", "nothing"],
        ["--model-type", "lama"],
        ["--include", "model.norm*", "--exclude", "*"],
        ["--embeding-analysis"],
    ],
    ids=str,
)
def test_the_command_line_says_so_in_one_line(pair, arguments):
    command = [sys.executable, "-m", "diffai_stream.cli", *map(str, pair), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"diffai: error: ")
    assert done.stderr.count(b"\n") == 1
