"""Checkpoints of one set of weights in two layouts: every pair must be found, and be equal under the view that was found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors

H, KV, D, HIDDEN, INNER, VOCAB, LAYERS, EXPERTS = 4, 2, 16, 48, 40, 60, 3, 3
Weights = dict[str, np.ndarray]


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)


def llama() -> Weights:
    """A small decoder in Hugging Face names."""
    shapes = {
        "self_attn.q_proj": (H * D, HIDDEN),
        "self_attn.k_proj": (KV * D, HIDDEN),
        "self_attn.v_proj": (KV * D, HIDDEN),
        "self_attn.o_proj": (HIDDEN, H * D),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }
    weights = {"model.embed_tokens.weight": random((VOCAB, HIDDEN), 1)}
    for layer in range(LAYERS):
        for number, (name, shape) in enumerate(shapes.items()):
            weights[f"model.layers.{layer}.{name}.weight"] = random(shape, 10 * layer + number + 2)
        for number, name in enumerate(("input_layernorm", "post_attention_layernorm")):
            weights[f"model.layers.{layer}.{name}.weight"] = 1 + random((HIDDEN,), 100 + 10 * layer + number)
    return weights | {"model.norm.weight": 1 + random((HIDDEN,), 900), "lm_head.weight": random((VOCAB, HIDDEN), 901)}


GGUF = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
META = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "model.layers": "layers",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def renamed(weights: Weights, table: dict[str, str]) -> Weights:
    found = {}
    for name, value in weights.items():
        for old, new in table.items():
            name = name.replace(old, new)
        found[name] = value
    return found


def rotated(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter writes q and k."""
    return value.reshape(heads, 2, D // 2, -1).swapaxes(1, 2).reshape(value.shape)


def permuted(weights: Weights) -> Weights:
    heads = {"q_proj": H, "k_proj": KV}
    return {
        name: next((rotated(value, count) for kind, count in heads.items() if kind in name), value)
        for name, value in weights.items()
    }


def shifted(weights: Weights) -> Weights:
    return {name: value + 1 if "norm" in name else value for name, value in weights.items()}


def replaced(weights: Weights, fuse: Callable[[list[np.ndarray]], np.ndarray], parts: list[str], whole: str) -> Weights:
    """The weights with the parts of each layer fused into one tensor."""
    kept = {name: value for name, value in weights.items() if not any(part in name for part in parts)}
    for layer in range(LAYERS):
        kept[f"model.layers.{layer}.{whole}.weight"] = fuse([weights[f"model.layers.{layer}.{part}.weight"] for part in parts])
    return kept


def by_head(parts: list[np.ndarray], heads: int) -> np.ndarray:
    return np.stack([part.reshape(heads, D, -1) for part in parts], 1).reshape(-1, parts[0].shape[1])


def by_group(parts: list[np.ndarray]) -> np.ndarray:
    q, k, v = (part.reshape(KV, -1, D, HIDDEN) for part in parts)
    return np.concatenate([q, k, v], 1).reshape(-1, HIDDEN)


QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
GATE_UP = ["mlp.gate_proj", "mlp.up_proj"]


def many_heads() -> Weights:
    """As many key as query heads."""
    weights = llama()
    for layer in range(LAYERS):
        for seed, name in enumerate(("k_proj", "v_proj")):
            weights[f"model.layers.{layer}.self_attn.{name}.weight"] = random((H * D, HIDDEN), 500 + 2 * layer + seed)
    return weights


def experts() -> Weights:
    weights = {}
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            for seed, (name, shape) in enumerate(
                (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER)))
            ):
                key = f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight"
                weights[key] = random(shape, 100 * layer + 10 * expert + seed)
    return weights


def stacked(weights: Weights, fuse_gate_up: bool, transpose: bool) -> Weights:
    found = {}
    for layer in range(LAYERS):

        def stack(name: str, layer: int = layer) -> np.ndarray:
            keys = [f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight" for expert in range(EXPERTS)]
            return np.stack([weights[key].T if transpose else weights[key] for key in keys])

        prefix = f"model.layers.{layer}.mlp.experts" if fuse_gate_up else f"blk.{layer}.ffn"
        if fuse_gate_up:
            found[f"{prefix}.gate_up_proj"] = np.concatenate([stack("gate"), stack("up")], 2 if transpose else 1)
            found[f"{prefix}.down_proj"] = stack("down")
        else:
            found |= {f"{prefix}_{name}_exps.weight": stack(name) for name in ("gate", "up", "down")}
    return found


def conv1d(weights: Weights) -> Weights:
    return {name: value.T if value.ndim == 2 and "embed" not in name else value for name, value in weights.items()}


def no_shift(weights: Weights) -> Weights:
    return {name: value - 1 if "norm" in name else value for name, value in weights.items()}


CASES = {
    "gguf names and rows": (llama(), renamed(permuted(llama()), GGUF), "renamed+permuted"),
    "meta names": (llama(), renamed(permuted(llama()), META), "renamed+permuted"),
    "norms around 0": (no_shift(llama()), renamed(shifted(no_shift(llama())), GGUF), "renamed+offset"),
    "fused in blocks": (llama(), replaced(llama(), np.concatenate, QKV, "self_attn.qkv_proj"), "fused"),
    "fused by group": (llama(), replaced(llama(), by_group, QKV, "self_attn.qkv_proj"), "fused"),
    "fused by head": (many_heads(), replaced(many_heads(), lambda p: by_head(p, H), QKV, "attention.query_key_value"), "fused"),
    "gate and up": (llama(), replaced(llama(), np.concatenate, GATE_UP, "mlp.gate_up_proj"), "fused"),
    "gate and up, row by row": (
        llama(),
        replaced(llama(), lambda p: np.stack(p, 1).reshape(-1, HIDDEN), GATE_UP, "mlp.gate_up_proj"),
        "fused",
    ),
    "fused Conv1D": (llama(), replaced(llama(), lambda p: np.concatenate(p).T, QKV, "attn.c_attn"), "fused+transposed"),
    "experts in a stack": (experts(), stacked(experts(), False, False), "stacked"),
    "experts, gate and up in a stack": (experts(), stacked(experts(), True, False), "stacked+fused"),
    "transposed experts": (experts(), stacked(experts(), True, True), "stacked+fused+transposed"),
    "Conv1D, square ones too": (
        llama() | {"model.layers.0.extra.weight": random((30, 30), 77)},
        conv1d(llama() | {"model.layers.0.extra.weight": random((30, 30), 77)}),
        "transposed",
    ),
    "convolution kernels": (
        {"conv.weight": random((8, 3, 5, 5), 1), "conv2.weight": random((3, 3, 3, 3), 2)},
        {
            "conv.weight": random((8, 3, 5, 5), 1).transpose(2, 3, 1, 0),
            "conv2.weight": random((3, 3, 3, 3), 2).transpose(2, 3, 1, 0),
        },
        "transposed",
    ),
    "an axis of one": ({"mixer.conv1d.weight": random((64, 1, 4), 3)}, {"mixer.conv1d.weight": random((64, 4), 3)}, "squeezed"),
}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_equal_under_the_view_that_was_found(tmp_path, case, swap):
    first, second, match = CASES[case]
    paths = [write_safetensors(tmp_path / f"{side}.safetensors", weights) for side, weights in (("a", first), ("b", second))]
    records = list(compare(*map(str, reversed(paths) if swap else paths), epsilon=2e-7 if "offset" in match else 0.0))
    tensors = [record for record in records if record["type"] == "tensor"]
    assert {record["status"] for record in tensors} <= {"unchanged"}, [(t["name"], t["status"], t["match"]) for t in tensors]
    assert records[-1]["status"] == "equivalent"
    assert "layout" in records[-1]["differs_in"]
    assert match in {record["match"] for record in tensors}
    assert records[-1]["counts"]["added"] == records[-1]["counts"]["removed"] == 0


@pytest.mark.parametrize("case", ["gguf names and rows", "fused by group", "transposed experts", "Conv1D, square ones too"])
def test_one_changed_element_is_found_in_any_layout(tmp_path, case):
    first, second, _ = CASES[case]
    name, value = max(second.items(), key=lambda item: item[1].size)
    changed = value.copy()
    changed.reshape(-1)[-7] += 1
    old = write_safetensors(tmp_path / "a.safetensors", first)
    new = write_safetensors(tmp_path / "b.safetensors", second | {name: changed})
    records = list(compare(str(old), str(new)))
    assert sum(record["change"]["changed_count"] for record in records if record["type"] == "tensor") == 1
    assert records[-1]["status"] == "different"


def test_a_longer_vocabulary_is_compared_over_the_common_rows(tmp_path):
    weights = llama()
    longer = weights | {
        name: np.concatenate([weights[name], random((4, HIDDEN), 5)])
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    old, new = (write_safetensors(tmp_path / f"{i}.safetensors", w) for i, w in enumerate((weights, longer)))
    records = list(compare(str(old), str(new)))
    found = [record for record in records if record["type"] == "tensor"]
    assert [record["status"] for record in found] == ["reshaped"] * 2
    assert {record["match"] for record in found} == {"padded"}
    assert all(record["change"]["changed_count"] == 0 for record in found)
    assert found[0]["new"]["shape"] == [VOCAB + 4, HIDDEN]
    assert found[0]["new"]["compared_shape"] == [VOCAB, HIDDEN]
    assert records[-1]["status"] == "different"


def test_unrelated_weights_are_not_bent_into_another_layout(tmp_path):
    """Two models of one shape and nothing in common: names pair, no view is believed."""
    other = renamed(
        {name: random(value.shape, 7000 + i) + ("norm" in name) for i, (name, value) in enumerate(llama().items())}, META
    )
    old, new = (write_safetensors(tmp_path / f"{i}.safetensors", w) for i, w in enumerate((llama(), other)))
    tensors = [record for record in compare(str(old), str(new)) if record["type"] == "tensor"]
    assert {record["match"] for record in tensors} == {"renamed"}
    assert {record["status"] for record in tensors} == {"changed"}


def test_a_fused_tensor_that_fits_no_cut_stays_apart(tmp_path):
    odd = replaced(llama(), lambda parts: np.concatenate(parts)[::-1], QKV, "self_attn.qkv_proj")
    old, new = (write_safetensors(tmp_path / f"{i}.safetensors", w) for i, w in enumerate((llama(), odd)))
    summary = list(compare(str(old), str(new)))[-1]
    assert summary["counts"]["added"] == LAYERS
    assert summary["counts"]["removed"] == 3 * LAYERS
