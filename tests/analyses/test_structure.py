"""Structure and resources against figures worked out by hand from shapes and configuration."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffai_stream.analyses.structure.facts import family_of
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors

NAMES = ("architecture_comparison", "memory_analysis", "inference_speed_estimate", "performance_impact_estimate")
WIDTH, HEADS, KV, DIM, DEPTH, VOCABULARY = 32, 4, 2, 8, 3, 50


def decoder(depth=DEPTH, dtype=np.float32, vocabulary=VOCABULARY, experts=0):
    weights = {"model.embed_tokens.weight": np.ones((vocabulary, WIDTH), dtype)}
    for layer in range(depth):
        prefix = f"model.layers.{layer}"
        weights[f"{prefix}.self_attn.q_proj.weight"] = np.ones((HEADS * DIM, WIDTH), dtype)
        weights[f"{prefix}.self_attn.k_proj.weight"] = np.ones((KV * DIM, WIDTH), dtype)
        for expert in range(experts):
            weights[f"{prefix}.mlp.experts.{expert}.up_proj.weight"] = np.ones((16, WIDTH), dtype)
    return weights | {"lm_head.weight": np.ones((vocabulary, WIDTH), dtype)}


CONFIG = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": KV}


def run(tmp_path, old, new, config=CONFIG, **options):
    for side, weights in (("old", old), ("new", new)):
        write_safetensors(tmp_path / side / "model.safetensors", weights)
        if config:
            (tmp_path / side / "config.json").write_text(json.dumps(config))
    records = list(compare(str(tmp_path / "old"), str(tmp_path / "new"), analyses=NAMES, **options))
    return {name: [r for r in records if r["type"] == name] for name in NAMES}


def numel(weights):
    return sum(value.size for value in weights.values())


def test_facts_and_what_differs(tmp_path):
    old, new = decoder(), decoder(depth=5, vocabulary=60)
    found = run(tmp_path, old, new)["architecture_comparison"][0]
    assert found["old"] | {"evidence": []} == {
        **{"family": "transformer_decoder", "evidence": [], "depth": 3, "width": WIDTH, "heads": HEADS, "kv_heads": KV},
        **{"head_dim": DIM, "vocabulary": VOCABULARY, "experts": None, "parameter_count": numel(old)},
    }
    assert found["differs_in"] == ["depth", "vocabulary"]
    assert len(found["added"]) == 4
    assert found["removed"] == []
    assert found["roles"] == [
        {"role": "attention.k_proj", "old_count": 3, "new_count": 5},
        {"role": "attention.q_proj", "old_count": 3, "new_count": 5},
    ]


def test_without_a_configuration_heads_are_unknown(tmp_path):
    found = run(tmp_path, decoder(), decoder(), config=None)
    side = found["architecture_comparison"][0]["old"]
    assert (side["heads"], side["head_dim"], side["width"]) == (None, None, WIDTH)
    assert found["memory_analysis"][-1]["old_kv_cache_nbytes_per_token"] is None


def test_bytes_by_layer_encoding_and_role(tmp_path):
    old, new = decoder(), decoder(dtype=np.float16)
    records = run(tmp_path, old, new)["memory_analysis"]
    model = records[-1]
    assert (model["old_nbytes"], model["new_nbytes"], model["ratio"]) == (4 * numel(old), 2 * numel(old), 0.5)
    assert {row["encoding"]: row["new_nbytes"] for row in model["encodings"]} == {"F16": 2 * numel(old), "F32": 0}
    assert sum(row["old_nbytes"] for row in model["roles"]) == model["old_nbytes"]
    assert sum(row["old_nbytes"] for row in records[:-1]) == model["old_nbytes"]
    assert model["old_kv_cache_nbytes_per_token"] == 2 * DEPTH * KV * DIM * 2
    assert model["new_adam_nbytes"] == 8 * numel(new)


def test_bounds_of_speed_follow_from_bytes_and_parameters(tmp_path):
    old, new = decoder(), decoder(dtype=np.float16)
    found = run(tmp_path, old, new, memory_bandwidth=1e9, peak_flops=1e12)
    speed, impact = found["inference_speed_estimate"][0], found["performance_impact_estimate"][0]
    touched = numel(old) - VOCABULARY * WIDTH  # the embedding is looked up
    assert speed["old_bytes_per_token"] == 4 * (touched + WIDTH)
    assert speed["old_flops_per_token"] == 2 * touched
    assert speed["old_decode_tokens_per_second"] == pytest.approx(1e9 / (4 * (touched + WIDTH)))
    assert speed["new_prefill_tokens_per_second"] == pytest.approx(1e12 / (2 * touched))
    assert (impact["latency_ratio"], impact["throughput_ratio"], impact["memory_ratio"]) == (0.5, 1.0, 0.5)
    assert speed["basis"] == impact["basis"] == "estimated"


def test_without_hardware_there_are_only_ratios(tmp_path):
    speed = run(tmp_path, decoder(), decoder())["inference_speed_estimate"][0]
    assert speed["old_decode_tokens_per_second"] is speed["new_prefill_tokens_per_second"] is None
    assert speed["bytes_ratio"] == 1.0


def test_only_active_experts_count(tmp_path):
    weights = decoder(experts=4)
    config = CONFIG | {"num_local_experts": 4, "num_experts_per_tok": 1}
    found = run(tmp_path, weights, weights, config)
    dense = numel(decoder()) - VOCABULARY * WIDTH
    assert found["inference_speed_estimate"][0]["old_flops_per_token"] == 2 * (dense + DEPTH * 16 * WIDTH)
    assert "1 of 4 experts are active" in found["inference_speed_estimate"][0]["assumptions"]
    assert found["architecture_comparison"][0]["old"]["family"] == "mixture_of_experts"


@pytest.mark.parametrize(
    ("roles", "family"),
    [
        (("conv", "batch_norm", "classifier"), "cnn"),
        (("dense", "dense.bias"), "mlp"),
        (("attention.q_proj", "token_type_embedding", "pooler"), "transformer_encoder"),
        (("attention.q_proj", "cross_attention.q_proj"), "transformer_encoder_decoder"),
        (("attention.q_proj", "time_embedding", "conv"), "diffusion_unet"),
        (("attention.q_proj", "modulation"), "diffusion_transformer"),
        (("ssm.in_proj", "norm.input"), "state_space"),
        (("lstm.weight_hh_l0",), "rnn"),
        ((), "unknown"),
    ],
)
def test_families_by_roles(roles, family):
    assert family_of(dict.fromkeys(roles, 3))[0] == family


def test_swapping_the_sides_inverts_the_ratios(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = run(tmp_path / "a", decoder(), decoder(dtype=np.float16, depth=4))
    other = run(tmp_path / "b", decoder(dtype=np.float16, depth=4), decoder())
    for name, field in (("performance_impact_estimate", "latency_ratio"), ("inference_speed_estimate", "flops_ratio")):
        assert one[name][0][field] == pytest.approx(1 / other[name][0][field])
