"""Names of Hugging Face and of GGUF meet at one place, held against the tensor map of the gguf package."""

from __future__ import annotations

import gguf
import pytest

from diffai_stream.formats.base import Checkpoint, TensorEntry
from diffai_stream.plan.names_gguf import role_of, roles_of
from diffai_stream.plan.resolve import place_key

ENDS = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
NORMS = ["input_layernorm.weight", "post_attention_layernorm.weight"]
ATTENTION = [f"self_attn.{m}_proj.weight" for m in "qkvo"]
MLP = [f"mlp.{m}_proj.weight" for m in ("gate", "up", "down")]
BIASES = [f"self_attn.{m}_proj.bias" for m in "qkv"]
SANDWICH = ["pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"]
QK_NORMS = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"]
LATENT = ["q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj"]
SHARED = [f"mlp.shared_experts.{m}_proj.weight" for m in ("gate", "up", "down")]
EXPERTS = [f"mlp.experts.{m}_proj.weight" for m in ("gate", "up", "down")]
GPT2 = [
    f"{m}.{leaf}"
    for m in ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    for leaf in ("weight", "bias")
]
BERT_ATTENTION = [f"attention.self.{m}.weight" for m in ("query", "key", "value")]
BERT_REST = ["attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
DENSE = ["self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]


def layers(modules, prefix="model.layers"):
    return [f"{prefix}.{number}.{module}" for number in (0, 1) for module in modules]


LLAMA = ENDS + layers(NORMS + ATTENTION + MLP)
MODELS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": ENDS
    + layers([*NORMS, *ATTENTION, "block_sparse_moe.gate.weight"])
    + layers([f"block_sparse_moe.experts.w{k}.weight" for k in (1, 2, 3)]),
    "qwen2": LLAMA + layers(BIASES),
    "qwen3": LLAMA + layers(QK_NORMS),
    "qwen2moe": ENDS + layers([*NORMS, *ATTENTION, *BIASES, *EXPERTS, "mlp.gate.weight", "mlp.shared_expert.up_proj.weight"]),
    "gemma": [name for name in LLAMA if name != "lm_head.weight"],
    "gemma2": ENDS[:2] + layers(NORMS + SANDWICH + ATTENTION + MLP),
    "gemma3": ENDS[:2] + layers(NORMS + SANDWICH + ATTENTION + QK_NORMS + MLP),
    "phi2": layers([f"{m}.{leaf}" for m in ("self_attn.dense", "mlp.fc1", "mlp.fc2") for leaf in ("weight", "bias")]),
    "phi3": ENDS
    + layers([*NORMS, "self_attn.qkv_proj.weight", "self_attn.o_proj.weight"])
    + layers(["mlp.gate_up_proj.weight", "mlp.down_proj.weight"]),
    "gpt2": ["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias", *layers(GPT2, "h")],
    "deepseek2": ENDS + layers([f"self_attn.{m}.weight" for m in LATENT] + SHARED + EXPERTS + ["mlp.gate.weight"]),
    "falcon": [
        "transformer.word_embeddings.weight",
        "transformer.ln_f.weight",
        "lm_head.weight",
        *layers([f"{m}.weight" for m in ("ln_attn", "ln_mlp", *DENSE)], "transformer.h"),
    ],
    "gptneox": [
        "gpt_neox.embed_in.weight",
        "gpt_neox.final_layer_norm.weight",
        "embed_out.weight",
        *layers(
            [f"{m}.weight" for m in ("input_layernorm", "attention.query_key_value", "attention.dense")], "gpt_neox.layers"
        ),
    ],
    "bert": [
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.weight",
        *layers([*BERT_ATTENTION, *(f"{m}.weight" for m in BERT_REST)], "encoder.layer"),
    ],
    "gpt-oss": ENDS + layers([*ATTENTION, "self_attn.sinks", "mlp.router.weight", "mlp.router.bias"]),
}
OTHER_NAMES = {"mistral": "llama", "mixtral": "llama"}


def named(names, architecture=None):
    entries = tuple(TensorEntry(name, (1,), "F32", {}) for name in names)
    return Checkpoint("x", "gguf", entries, {"general.architecture": architecture} if architecture else {}, {})


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_has_one_place_under_both_names(model):
    architecture = OTHER_NAMES.get(model, model)
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(number, 2)
    gguf_names = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in MODELS[model]}
    assert None not in gguf_names.values()
    roles = roles_of(named(gguf_names.values(), architecture))
    places = {name: place_key(TensorEntry(name, (1,), "F32", {})) for name in MODELS[model]}
    assert {name: place_key(TensorEntry(other, (1,), "F32", {}), roles) for name, other in gguf_names.items()} == places
    assert len(set(places.values())) == len(places)


def test_only_the_architectures_that_need_it_have_another_table():
    names = ["blk.0.ffn_norm.weight", "blk.0.attn_norm.bias", "blk.0.attn_norm_2.weight"]
    assert roles_of(named(names, "llama")) == roles_of(named(names)) == {}
    assert role_of(names[0], roles_of(named(names, "gemma3"))) == "norm.pre_mlp"
    assert role_of(names[1], roles_of(named(names, "falcon"))) == "norm.post_attention.bias"
    assert role_of(names[1], roles_of(named(names[:2], "falcon"))) is None
    assert role_of("output_norm.weight", roles_of(named(names, "falcon"))) is None
