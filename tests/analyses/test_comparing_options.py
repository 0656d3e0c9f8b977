"""Options that change the comparison, each with a planted case: what they let pass, and what they do not."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.errors import UsageError
from diffai_stream.plan.naming import families, place, place_in
from tests.checkpoints import write_safetensors
from tests.models import cast, llama, tuned
from tests.validation import of_type, run, tensors

UP = "model.layers.1.mlp.up_proj.weight"
GATE = ("regression_test",)


@pytest.fixture
def compared(tmp_path):
    def compare(old, new, config=None, **options):
        for name, side in (("old", old), ("new", new)):
            write_safetensors(tmp_path / name / "model.safetensors", side)
            if config is not None:
                (tmp_path / name / "config.json").write_text(json.dumps(config))
        return run(tmp_path / "old", tmp_path / "new", **options)

    return compare


def test_what_rounding_explains_is_no_change(compared):
    old = llama(3)
    new = {name: cast(values, "BF16") for name, values in old.items()}
    plain, aware = compared(old, new), compared(old, new, quantization_aware=True)
    assert [records[-1]["status"] for records in (plain, aware)] == ["different", "equivalent"]
    assert [records[-1]["exit_status"] for records in (plain, aware)] == [1, 0]
    assert {r["status"] for r in tensors(aware).values()} == {"retyped"}
    assert tensors(aware)[UP]["change"]["changed_count"] == 0
    assert tensors(aware)[UP]["change"]["relative_l2"] == tensors(plain)[UP]["change"]["relative_l2"] > 0
    assert aware[-1]["parameter_count"]["changed"] == 0


def test_one_element_that_rounding_does_not_explain_is_a_change(compared):
    old = llama(3)
    rounded = {name: values.astype(ml_dtypes.bfloat16).astype(np.float32) for name, values in old.items()}
    rounded[UP].reshape(-1)[17] += 0.5
    records = compared(old, {name: cast(values, "BF16") for name, values in rounded.items()}, quantization_aware=True)
    assert [name for name, r in tensors(records).items() if r["status"] == "changed"] == [UP]
    assert records[-1]["status"] == "different"


def test_a_loss_is_judged_by_what_the_encoding_must_lose(compared):
    old = {"w.weight": np.random.default_rng(0).normal(0, 1, (256, 256)).astype(np.float32)}
    honest = {"w.weight": cast(old["w.weight"], "F8_E4M3")}
    bad = {"w.weight": cast(old["w.weight"] * 1.2, "F8_E4M3")}
    for new, exceeds in ((honest, False), (bad, True)):
        for aware, told in ((False, True), (True, exceeds)):
            (found,) = [
                r for r in of_type(compared(old, new, quantization_aware=aware), "quantization") if r["scope"] == "tensor"
            ]
            assert found["exceeds_threshold"] == told
    strict = compared(old, honest, quantization_aware=True, precision_loss_threshold=0.001)
    assert of_type(strict, "quantization")[0]["threshold"] == 0.001


def test_gates_allow_what_the_encoding_explains(compared):
    old = llama(3)
    new = {name: cast(values, "F8_E5M2") for name, values in old.items()}
    failing = compared(old, new, analyses=GATE)
    assert failing[-1]["exit_status"] == 1
    passing = compared(old, new, analyses=GATE, quantization_aware=True)
    assert passing[-1]["exit_status"] == 0
    new[UP] = cast(old[UP] * 2, "F8_E5M2")
    records = compared(old, new, analyses=GATE, quantization_aware=True)
    assert [r["subject"] for r in of_type(records, "regression_test") if not r["passed"]] == ["model.layers.1"]


# --- model type -----------------------------------------------------------------------------------------------------


def hidden(model):
    """The names of a model in a wrapper that no table knows."""
    return {name.replace("model.layers.", "tower.stack_"): values for name, values in model.items()}


def test_roles_of_names_that_tell_nothing(compared):
    old = hidden(llama(4))
    plain, told = compared(old, hidden(tuned(llama(4)))), compared(old, hidden(tuned(llama(4))), model_type="llama")
    name = "tower.stack_2.self_attn.q_proj.weight"
    assert tensors(plain)[name]["role"] != "attention.q_proj"
    assert (tensors(told)[name]["role"], tensors(told)[name]["layer"]) == ("attention.q_proj", "tower.stack_2")
    layers = {r["subject"] for r in of_type(told, "layer_impact") if r["scope"] == "layer"}
    assert {f"tower.stack_{n}" for n in range(4)} <= layers


def test_analyses_of_roles_follow(compared):
    config = {"num_attention_heads": 4}
    old, new = hidden(llama(4)), hidden(tuned(llama(4)))
    names = ("attention_analysis", "attention_pattern_diff", "architecture_comparison")
    plain = compared(old, new, config, analyses=names)
    told = compared(old, new, config, analyses=names, model_type="llama")
    assert not of_type(plain, "attention_analysis")
    assert [r["head_count"] for r in of_type(told, "attention_analysis")] == [4] * 4
    assert of_type(told, "attention_pattern_diff")[0]["rotary"].startswith("base 10000")
    assert [of_type(records, "architecture_comparison")[0]["old"]["family"] for records in (plain, told)] == [
        "mlp",
        "transformer_decoder",
    ]


def test_a_name_that_tells_its_role_keeps_it():
    for name in llama(1):
        assert place_in(name, "bert") == place(name)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "qwen2", "BERT", "vit"])
def test_families_are_known_by_their_usual_names(name):
    assert place_in("odd.thing.weight", name)
    assert len(families()) > 20


def test_an_unknown_family_suggests_the_nearest(compared):
    with pytest.raises(UsageError, match=r"did you mean 'llama'\?"):
        compared(llama(1), llama(1), model_type="lama")
