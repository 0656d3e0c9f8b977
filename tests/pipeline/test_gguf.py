"""A Hugging Face checkpoint beside the GGUF file that the converter makes of it: every tensor finds its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from tests.checkpoints import write_safetensors
from tests.validation import of_type, run, tensors

HEADS, KV_HEADS, HEAD, HIDDEN, FFN, VOCAB = 8, 2, 32, 256, 512, 320
Weights = dict[str, np.ndarray]
RANDOM = np.random.default_rng(5)
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{m}_proj": f"attn_{m}" for m in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{m}_proj": f"ffn_{m}" for m in ("gate", "up", "down")},
}


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.02, shape).astype(np.float32)


def norm(*shape: int) -> np.ndarray:
    return (1 + RANDOM.normal(0, 0.1, shape)).astype(np.float32)


def llama() -> Weights:
    """A small model with grouped heads, by the names of Hugging Face."""
    shapes = {
        "q": (HEADS * HEAD, HIDDEN),
        "k": (KV_HEADS * HEAD, HIDDEN),
        "v": (KV_HEADS * HEAD, HIDDEN),
        "o": (HIDDEN, HEADS * HEAD),
    }
    weights = {
        "model.embed_tokens.weight": normal(VOCAB, HIDDEN),
        "model.norm.weight": norm(HIDDEN),
        "lm_head.weight": normal(VOCAB, HIDDEN),
    }
    for i in range(2):
        layer = f"model.layers.{i}."
        weights |= {f"{layer}self_attn.{name}_proj.weight": normal(*shape) for name, shape in shapes.items()}
        weights |= {f"{layer}mlp.{name}_proj.weight": normal(FFN, HIDDEN) for name in ("gate", "up")}
        weights |= {f"{layer}mlp.down_proj.weight": normal(HIDDEN, FFN)}
        weights |= {f"{layer}{name}_layernorm.weight": norm(HIDDEN) for name in ("input", "post_attention")}
    return weights


def gguf_name(name: str) -> str:
    for ours, theirs in (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")):
        if name == f"{ours}.weight":
            return f"{theirs}.weight"
    number, _, module = name.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{NAMES[module.removesuffix('.weight')]}.weight"


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from halves to pairs, as the converter writes q and k of Llama."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def convert(path: Any, weights: Weights, architecture: str, kind: str, change: Any) -> Any:
    """A GGUF file of weights by their GGUF names: matrices quantized, vectors float32."""
    writer = GGUFWriter(path, architecture)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    number = GGMLQuantizationType[kind]
    for name, values in weights.items():
        stored = np.ascontiguousarray(change(name, values))
        if stored.ndim > 1 and kind != "F32":
            writer.add_tensor(name, quantize(stored, number), raw_dtype=number)
        else:
            writer.add_tensor(name, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_llama(name: str, values: np.ndarray) -> np.ndarray:
    heads = HEADS if ".attn_q." in name else KV_HEADS if ".attn_k." in name else 0
    return permuted(values, heads) if heads else values


def as_gemma(name: str, values: np.ndarray) -> np.ndarray:
    return values + 1 if "norm" in name else values


def compared(tmp_path: Any, weights: Weights, architecture: str, kind: str, change: Any) -> list[dict[str, Any]]:
    old = write_safetensors(tmp_path / "model.safetensors", weights)
    new = convert(tmp_path / "model.gguf", {gguf_name(n): v for n, v in weights.items()}, architecture, kind, change)
    return run(old, new, include_unchanged=True)


@pytest.mark.parametrize(("kind", "loss"), [("F32", 0), ("Q8_0", 0.006), ("Q4_0", 0.1)])
def test_a_llama_beside_its_conversion(tmp_path, kind, loss):
    records = compared(tmp_path, llama(), "llama", kind, as_llama)
    found = tensors(records)
    assert {record["status"] for record in found.values()} <= {"changed", "unchanged"}
    assert len(found) == 21
    for name, record in found.items():
        relative = record["change"]["relative_l2"] if record["change"] else 0
        assert relative <= loss * (record["old"]["shape"] != [HIDDEN]), name
    layouts = {name: record["match"] for name, record in found.items() if "permuted" in record["match"]}
    assert set(layouts) == {f"model.layers.{i}.self_attn.{m}_proj.weight" for i in (0, 1) for m in "qk"}
    assert not of_type(records, "error")


def test_rows_of_heads_are_found_through_the_loss_of_one_bit_types(tmp_path):
    def coarse(name, values):
        noise = np.random.default_rng(len(name)).normal(0, 0.6 * values.std(), values.shape)
        return as_llama(name, (values + noise).astype(np.float32))

    found = tensors(compared(tmp_path, llama(), "llama", "F32", coarse))
    moved = {name for name, record in found.items() if "permuted" in record["match"]}
    assert moved == {f"model.layers.{i}.self_attn.{m}_proj.weight" for i in (0, 1) for m in "qk"}


def test_gemma_norms_are_stored_around_one(tmp_path):
    weights = {name: values - 1 if values.ndim == 1 else values for name, values in llama().items()}
    found = tensors(compared(tmp_path, weights, "gemma", "Q8_0", as_gemma))
    norms = {name: record for name, record in found.items() if "norm" in name}
    assert len(norms) == 5
    assert all("offset" in record["match"] for record in norms.values())
    assert max(record["change"]["relative_l2"] if record["change"] else 0 for record in norms.values()) < 1e-6


def test_values_are_those_of_the_package(tmp_path):
    weights = {"model.layers.0.mlp.up_proj.weight": normal(FFN, HIDDEN)}
    (record,) = tensors(compared(tmp_path, weights, "llama", "Q5_1", lambda _, values: values)).values()
    (values,) = weights.values()
    decoded = dequantize(quantize(values, GGMLQuantizationType.Q5_1), GGMLQuantizationType.Q5_1).astype(np.float64)
    delta = decoded - values
    assert record["change"]["relative_l2"] == pytest.approx(
        np.linalg.norm(delta) / np.linalg.norm(values.astype(float)), rel=1e-6
    )
    assert record["stats"]["new"]["std"] == pytest.approx(decoded.std(), rel=1e-6)
    assert record["stats"]["new"]["max"] == decoded.max()
    assert record["change"]["max_abs"] == pytest.approx(np.abs(delta).max(), rel=1e-6)
    assert record["new"]["stored_nbytes"] == values.size * 6 // 8


def test_two_conversions_of_one_model(tmp_path):
    weights = {gguf_name(name): values for name, values in llama().items()}
    paths = [convert(tmp_path / f"{kind}.gguf", weights, "llama", kind, as_llama) for kind in ("Q8_0", "Q4_1")]
    records = run(*paths)
    matrices = [record for record in of_type(records, "quantization") if record["scope"] == "tensor"]
    assert len(matrices) == 16
    assert {(record["old_bits_per_weight"], record["new_bits_per_weight"]) for record in matrices} == {(8.5, 5.0)}
    assert records[-1]["counts"]["unchanged"] == 5
