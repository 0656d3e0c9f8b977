"""Names as published checkpoints spell them, with the layer and the role they stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffai_stream.plan.naming import natural_key, place

ROOT = Path(__file__).parents[2]

NAMES = (
    ("model.layers.3.self_attn.q_proj.weight", "model.layers.3", "attention.q_proj"),
    ("model.layers.3.self_attn.q_proj.bias", "model.layers.3", "attention.q_proj.bias"),
    ("model.layers.3.mlp.gate_proj.weight", "model.layers.3", "mlp.gate_proj"),
    ("model.layers.3.input_layernorm.weight", "model.layers.3", "norm.input"),
    ("model.layers.31.post_attention_layernorm.weight", "model.layers.31", "norm.post_attention"),
    ("model.embed_tokens.weight", "model.embed_tokens", "embedding"),
    ("model.norm.weight", "model.norm", "final_norm"),
    ("lm_head.weight", "lm_head", "lm_head"),
    ("model.layers.3.mlp.experts.17.up_proj.weight", "model.layers.3", "experts.up_proj"),
    ("model.layers.3.mlp.gate.weight", "model.layers.3", "router"),
    ("model.layers.3.mlp.gate.e_score_correction_bias", "model.layers.3", "router.bias"),
    ("model.layers.3.mlp.shared_experts.down_proj.weight", "model.layers.3", "shared_expert.down_proj"),
    ("model.layers.3.mlp.shared_expert_gate.weight", "model.layers.3", "shared_expert.router"),
    ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "model.layers.0", "experts.gate_proj"),
    ("model.layers.0.block_sparse_moe.gate.weight", "model.layers.0", "router"),
    ("model.layers.0.mlp.experts.gate_up_proj_blocks", "model.layers.0", "experts.gate_up_proj"),
    ("model.layers.0.mlp.experts.down_proj_bias", "model.layers.0", "experts.down_proj.bias"),
    ("model.layers.0.mlp.router.weight", "model.layers.0", "router"),
    ("model.layers.0.self_attn.sinks", "model.layers.0", "attention.sinks"),
    ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", "model.layers.0", "attention.kv_a_proj_with_mqa"),
    ("model.layers.0.self_attn.kv_a_layernorm.weight", "model.layers.0", "norm.kv_a"),
    ("model.layers.0.self_attn.q_norm.weight", "model.layers.0", "norm.q"),
    ("model.layers.0.self_attn.k_proj.weight_scale_inv", "model.layers.0", "attention.k_proj.weight_scale_inv"),
    ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0", "attention.rotary_embedding"),
    ("model.layers.0.pre_feedforward_layernorm.weight", "model.layers.0", "norm.pre_mlp"),
    ("transformer.h.11.attn.c_attn.weight", "transformer.h.11", "attention.qkv_proj"),
    ("transformer.h.0.mlp.c_fc.bias", "transformer.h.0", "mlp.up_proj.bias"),
    ("h.0.attn.c_proj.weight", "h.0", "attention.o_proj"),
    ("h.0.ln_1.weight", "h.0", "norm.input"),
    ("transformer.wte.weight", "transformer.wte", "embedding"),
    ("wpe.weight", "wpe", "position_embedding"),
    ("transformer.ln_f.bias", "transformer.ln_f", "final_norm.bias"),
    ("gpt_neox.layers.4.attention.query_key_value.weight", "gpt_neox.layers.4", "attention.qkv_proj"),
    ("gpt_neox.layers.4.attention.dense.bias", "gpt_neox.layers.4", "attention.o_proj.bias"),
    ("gpt_neox.layers.4.mlp.dense_h_to_4h.weight", "gpt_neox.layers.4", "mlp.up_proj"),
    ("gpt_neox.embed_in.weight", "gpt_neox.embed_in", "embedding"),
    ("embed_out.weight", "embed_out", "lm_head"),
    ("transformer.h.5.self_attention.query_key_value.weight", "transformer.h.5", "attention.qkv_proj"),
    ("transformer.h.5.ln_attn.weight", "transformer.h.5", "norm.input"),
    ("transformer.word_embeddings.weight", "transformer.word_embeddings", "embedding"),
    ("transformer.word_embeddings_layernorm.weight", "transformer.word_embeddings_layernorm", "norm.embedding"),
    ("model.decoder.layers.2.self_attn.out_proj.weight", "model.decoder.layers.2", "attention.o_proj"),
    ("model.decoder.layers.2.fc1.weight", "model.decoder.layers.2", "mlp.up_proj"),
    ("model.decoder.layers.2.final_layer_norm.weight", "model.decoder.layers.2", "norm.post_attention"),
    ("model.decoder.embed_positions.weight", "model.decoder.embed_positions", "position_embedding"),
    ("model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm", "final_norm"),
    ("model.layers.1.mlp.gate_up_proj.weight", "model.layers.1", "mlp.gate_up_proj"),
    ("model.layers.1.self_attn.qkv_proj.weight", "model.layers.1", "attention.qkv_proj"),
    ("model.layers.1.mlp.fc2.weight", "model.layers.1", "mlp.down_proj"),
    ("model.layers.1.self_attn.dense.weight", "model.layers.1", "attention.o_proj"),
    ("bert.encoder.layer.5.attention.self.query.weight", "bert.encoder.layer.5", "attention.q_proj"),
    ("bert.encoder.layer.5.attention.output.dense.weight", "bert.encoder.layer.5", "attention.o_proj"),
    ("bert.encoder.layer.5.attention.output.LayerNorm.weight", "bert.encoder.layer.5", "norm.post_attention"),
    ("bert.encoder.layer.5.intermediate.dense.weight", "bert.encoder.layer.5", "mlp.up_proj"),
    ("bert.encoder.layer.5.output.dense.bias", "bert.encoder.layer.5", "mlp.down_proj.bias"),
    ("bert.encoder.layer.5.output.LayerNorm.gamma", "bert.encoder.layer.5", "norm.post_mlp"),
    ("encoder.layer.5.attention.self.key.weight", "encoder.layer.5", "attention.k_proj"),
    ("bert.embeddings.word_embeddings.weight", "bert.embeddings", "embedding"),
    ("bert.embeddings.token_type_embeddings.weight", "bert.embeddings", "token_type_embedding"),
    ("bert.embeddings.LayerNorm.weight", "bert.embeddings", "norm.embedding"),
    ("bert.pooler.dense.weight", "bert.pooler", "pooler"),
    ("cls.predictions.decoder.weight", "cls.predictions", "lm_head"),
    ("cls.predictions.bias", "cls.predictions", "lm_head.bias"),
    ("cls.predictions.transform.dense.weight", "cls.predictions", "lm_head.transform"),
    ("roberta.embeddings.position_embeddings.weight", "roberta.embeddings", "position_embedding"),
    ("lm_head.dense.weight", "lm_head", "lm_head.transform"),
    ("lm_head.layer_norm.weight", "lm_head", "lm_head.norm"),
    ("lm_head.bias", "lm_head", "lm_head.bias"),
    ("distilbert.transformer.layer.0.attention.q_lin.weight", "distilbert.transformer.layer.0", "attention.q_proj"),
    ("distilbert.transformer.layer.0.ffn.lin2.weight", "distilbert.transformer.layer.0", "mlp.down_proj"),
    ("distilbert.transformer.layer.0.sa_layer_norm.weight", "distilbert.transformer.layer.0", "norm.post_attention"),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.0", "attention.q_proj"),
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "encoder.block.0", "attention.position_embedding"),
    ("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", "encoder.block.0", "mlp.gate_proj"),
    ("encoder.block.0.layer.1.layer_norm.weight", "encoder.block.0", "norm.post_attention"),
    ("decoder.block.0.layer.1.EncDecAttention.k.weight", "decoder.block.0", "cross_attention.k_proj"),
    ("decoder.block.0.layer.2.DenseReluDense.wo.weight", "decoder.block.0", "mlp.down_proj"),
    ("shared.weight", "shared", "embedding"),
    ("encoder.final_layer_norm.weight", "encoder.final_layer_norm", "final_norm"),
    ("vit.encoder.layer.0.attention.attention.query.weight", "vit.encoder.layer.0", "attention.q_proj"),
    ("vit.encoder.layer.0.layernorm_before.weight", "vit.encoder.layer.0", "norm.input"),
    ("vit.embeddings.cls_token", "vit.embeddings", "class_embedding"),
    ("vit.embeddings.patch_embeddings.projection.weight", "vit.embeddings", "patch_embedding"),
    ("blocks.0.attn.qkv.weight", "blocks.0", "attention.qkv_proj"),
    ("blocks.0.attn.proj.bias", "blocks.0", "attention.o_proj.bias"),
    ("blocks.0.norm1.weight", "blocks.0", "norm.input"),
    ("patch_embed.proj.weight", "patch_embed", "patch_embedding"),
    ("pos_embed", "pos_embed", "position_embedding"),
    ("head.weight", "head", "classifier"),
    ("vision_model.encoder.layers.2.layer_norm1.weight", "vision_model.encoder.layers.2", "norm.input"),
    ("vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings", "patch_embedding"),
    ("vision_model.pre_layrnorm.weight", "vision_model.pre_layrnorm", "norm.embedding"),
    ("vision_model.post_layernorm.weight", "vision_model.post_layernorm", "final_norm"),
    ("text_model.embeddings.token_embedding.weight", "text_model.embeddings", "embedding"),
    ("visual.transformer.resblocks.0.attn.in_proj_weight", "visual.transformer.resblocks.0", "attention.qkv_proj"),
    ("visual.transformer.resblocks.0.mlp.c_fc.weight", "visual.transformer.resblocks.0", "mlp.up_proj"),
    ("model.encoder.layers.0.self_attn.k_proj.weight", "model.encoder.layers.0", "attention.k_proj"),
    ("model.encoder.conv1.weight", "model.encoder.conv1", "conv"),
    ("model.decoder.layers.0.encoder_attn.v_proj.bias", "model.decoder.layers.0", "cross_attention.v_proj.bias"),
    ("model.decoder.layers.0.encoder_attn_layer_norm.weight", "model.decoder.layers.0", "norm.cross_attention"),
    ("decoder.blocks.0.cross_attn.query.weight", "decoder.blocks.0", "cross_attention.q_proj"),
    ("decoder.blocks.0.mlp.0.weight", "decoder.blocks.0", "mlp.up_proj"),
    ("decoder.blocks.0.mlp.2.weight", "decoder.blocks.0", "mlp.down_proj"),
    ("layer1.0.conv1.weight", "layer1.0", "conv"),
    ("layer1.0.bn2.running_mean", "layer1.0", "batch_norm.running_mean"),
    ("layer4.1.downsample.0.weight", "layer4.1", "downsample.conv"),
    ("layer4.1.downsample.1.bias", "layer4.1", "downsample.batch_norm.bias"),
    ("layer4.1.downsample.1.running_var", "layer4.1", "downsample.batch_norm.running_var"),
    ("conv1.weight", "conv1", "conv"),
    ("bn1.num_batches_tracked", "bn1", "batch_norm.num_batches_tracked"),
    ("fc.weight", "fc", "classifier"),
    ("features.12.weight", "features.12", "features"),
    ("features.1.conv.0.0.weight", "features.1", "conv"),
    ("classifier.6.bias", "classifier.6", "classifier.bias"),
    ("resnet.encoder.stages.0.layers.1.layer.0.convolution.weight", "resnet.encoder.stages.0.layers.1", "conv"),
    (
        "resnet.encoder.stages.0.layers.0.shortcut.normalization.running_var",
        "resnet.encoder.stages.0.layers.0",
        "downsample.batch_norm.running_var",
    ),
    ("features.denseblock1.denselayer2.conv1.weight", "features.denseblock1.denselayer2", "conv"),
    ("stages.2.blocks.5.conv_dw.weight", "stages.2.blocks.5", "conv"),
    ("down_blocks.0.resnets.1.conv1.weight", "down_blocks.0.resnets.1", "conv"),
    ("down_blocks.0.resnets.1.norm1.weight", "down_blocks.0.resnets.1", "norm"),
    (
        "down_blocks.1.attentions.0.transformer_blocks.3.attn1.to_q.weight",
        "down_blocks.1.attentions.0.transformer_blocks.3",
        "attention.q_proj",
    ),
    (
        "down_blocks.1.attentions.0.transformer_blocks.3.attn2.to_out.0.weight",
        "down_blocks.1.attentions.0.transformer_blocks.3",
        "cross_attention.o_proj",
    ),
    (
        "down_blocks.1.attentions.0.transformer_blocks.3.ff.net.0.proj.weight",
        "down_blocks.1.attentions.0.transformer_blocks.3",
        "mlp.up_proj",
    ),
    (
        "down_blocks.1.attentions.0.transformer_blocks.3.ff.net.2.weight",
        "down_blocks.1.attentions.0.transformer_blocks.3",
        "mlp.down_proj",
    ),
    ("mid_block.attentions.0.proj_in.weight", "mid_block.attentions.0", "proj_in"),
    ("time_embedding.linear_1.weight", "time_embedding", "time_embedding"),
    ("conv_in.weight", "conv_in", "conv"),
    ("conv_norm_out.weight", "conv_norm_out", "final_norm"),
    ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "model.diffusion_model.input_blocks.1.0", "conv"),
    (
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0",
        "cross_attention.k_proj",
    ),
    ("model.diffusion_model.middle_block.1.proj_in.weight", "model.diffusion_model.middle_block.1", "proj_in"),
    ("first_stage_model.encoder.down.0.block.1.conv2.weight", "first_stage_model.encoder.down.0.block.1", "conv"),
    ("transformer_blocks.7.attn.add_q_proj.weight", "transformer_blocks.7", "attention.add_q_proj"),
    ("transformer_blocks.7.attn.norm_added_q.weight", "transformer_blocks.7", "norm.added_q"),
    ("transformer_blocks.7.attn.norm_q.weight", "transformer_blocks.7", "norm.q"),
    ("transformer_blocks.7.norm1.linear.weight", "transformer_blocks.7", "modulation"),
    ("single_transformer_blocks.7.proj_mlp.weight", "single_transformer_blocks.7", "mlp.up_proj"),
    ("single_transformer_blocks.7.proj_out.weight", "single_transformer_blocks.7", "o_down_proj"),
    ("double_blocks.3.img_attn.qkv.weight", "double_blocks.3", "attention.qkv_proj"),
    ("double_blocks.3.img_attn.norm.query_norm.scale", "double_blocks.3", "norm.q"),
    ("double_blocks.3.txt_attn.proj.weight", "double_blocks.3", "context_attention.o_proj"),
    ("double_blocks.3.img_mlp.0.weight", "double_blocks.3", "mlp.up_proj"),
    ("double_blocks.3.txt_mlp.2.weight", "double_blocks.3", "context_mlp.down_proj"),
    ("single_blocks.3.linear1.weight", "single_blocks.3", "qkv_up_proj"),
    ("blocks.3.adaLN_modulation.1.weight", "blocks.3", "modulation"),
    ("layers/dense/vars/0", "layers/dense", "dense"),
    ("layers/conv2d_1/vars/1", "layers/conv2d_1", "conv.bias"),
    ("layers/batch_normalization/vars/2", "layers/batch_normalization", "batch_norm.running_mean"),
    ("model_weights/dense_1/dense_1/kernel:0", "model_weights/dense_1", "dense"),
    ("block1_conv1/kernel:0", "block1_conv1", "conv"),
    ("bert/encoder/layer_3/attention/self/query/kernel", "bert/encoder/layer_3", "attention.q_proj"),
    ("model/h3/attn/c_attn/w", "model/h3", "attention.qkv_proj"),
    ("params.transformer.h_0.mlp.c_fc.kernel", "params.transformer.h_0", "mlp.up_proj"),
    ("blk.4.attn_q.weight", "blk.4", "attention.q_proj"),
    ("blk.4.attn_output.weight", "blk.4", "attention.o_proj"),
    ("blk.4.attn_norm.weight", "blk.4", "norm.input"),
    ("blk.4.ffn_norm.weight", "blk.4", "norm.post_attention"),
    ("blk.4.ffn_gate.weight", "blk.4", "mlp.gate_proj"),
    ("blk.4.ffn_up_exps.weight", "blk.4", "experts.up_proj"),
    ("blk.4.ffn_gate_inp.weight", "blk.4", "router"),
    ("blk.4.exp_probs_b.bias", "blk.4", "router.bias"),
    ("blk.4.ssm_in.weight", "blk.4", "ssm.in_proj"),
    ("v.blk.0.attn_k.weight", "v.blk.0", "attention.k_proj"),
    ("v.patch_embd.weight", "v.patch_embd", "patch_embedding"),
    ("token_embd.weight", "token_embd", "embedding"),
    ("output_norm.weight", "output_norm", "final_norm"),
    ("output.weight", "output", "lm_head"),
    ("rope_freqs.weight", "rope_freqs", "rotary_embedding"),
    ("layers.0.attention.wq.weight", "layers.0", "attention.q_proj"),
    ("layers.0.attention_norm.weight", "layers.0", "norm.input"),
    ("layers.0.feed_forward.w1.weight", "layers.0", "mlp.gate_proj"),
    ("layers.0.feed_forward.w2.weight", "layers.0", "mlp.down_proj"),
    ("tok_embeddings.weight", "tok_embeddings", "embedding"),
    ("norm.weight", "norm", "final_norm"),
    ("backbone.layers.0.mixer.in_proj.weight", "backbone.layers.0", "ssm.in_proj"),
    ("backbone.layers.0.mixer.A_log", "backbone.layers.0", "ssm.a_log"),
    ("backbone.layers.0.mixer.dt_bias", "backbone.layers.0", "ssm.dt.bias"),
    ("backbone.layers.0.norm.weight", "backbone.layers.0", "norm.input"),
    ("backbone.norm_f.weight", "backbone.norm_f", "final_norm"),
    ("backbone.embeddings.weight", "backbone.embeddings", "embedding"),
    ("backbone.embedding.weight", "backbone.embedding", "embedding"),
    (
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.0",
        "attention.q_proj.lora_a",
    ),
    (
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
        "base_model.model.model.layers.0",
        "attention.q_proj.lora_b",
    ),
    (
        "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
        "base_model.model.model.layers.0",
        "attention.q_proj",
    ),
    ("module.model.layers.0.mlp.down_proj.weight.exp_avg", "module.model.layers.0", "mlp.down_proj.exp_avg"),
    ("decoder.layers.0.self_attention.linear_qkv.layer_norm_weight", "decoder.layers.0", "norm.input"),
    ("decoder.layers.0.mlp.linear_fc1.weight", "decoder.layers.0", "mlp.up_proj"),
    ("embedding.word_embeddings.weight", "embedding", "embedding"),
    ("model.visual.merger.mlp.0.weight", "model.visual.merger", "merger.mlp"),
    ("visual.blocks.0.attn.qkv.weight", "visual.blocks.0", "attention.qkv_proj"),
    ("model.language_model.layers.0.self_attn.o_proj.weight", "model.language_model.layers.0", "attention.o_proj"),
    ("multi_modal_projector.linear_1.bias", "multi_modal_projector", "multi_modal_projector.linear_1.bias"),
    ("0.weight", "0", "sequential"),
    ("net.0.bias", "net.0", "net.bias"),
    ("encoder.3.weight", "encoder.3", "encoder"),
    ("transformer_encoder.layers.0.linear1.weight", "transformer_encoder.layers.0", "mlp.up_proj"),
    ("transformer_encoder.layers.0.self_attn.in_proj_bias", "transformer_encoder.layers.0", "attention.qkv_proj.bias"),
    ("blocks.0.1.conv_pw.weight", "blocks.0.1", "conv"),
    ("model.layers.0.linear_attn.in_proj_qkvz.weight", "model.layers.0", "ssm.in_proj_qkvz"),
    ("lstm.weight_ih_l0", "lstm", "lstm.weight_ih_l0"),
    (
        "transformer.encoder.layers.0.self_attention.query_key_value.weight",
        "transformer.encoder.layers.0",
        "attention.qkv_proj",
    ),
    ("transformer.blocks.0.ffn.experts.mlp.w1", "transformer.blocks.0", "experts.gate_proj"),
    ("transformer.blocks.0.ffn.router.layer.weight", "transformer.blocks.0", "router"),
)


@pytest.mark.parametrize(("name", "layer", "role"), NAMES, ids=[name for name, _, _ in NAMES])
def test_place(name, layer, role):
    assert place(name) == (layer, role)


def test_the_table_is_large_enough_to_mean_something():
    assert len({name for name, _, _ in NAMES}) >= 80


@pytest.mark.parametrize("index", [0, 9, 10, 61, 12345])
def test_the_layer_keeps_its_own_index(index):
    assert place(f"model.layers.{index}.mlp.experts.200.up_proj.weight") == (f"model.layers.{index}", "experts.up_proj")


def test_one_layer_has_no_two_matrices_of_one_role():
    leaves = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj")
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    places = [place(f"model.layers.7.{leaf}.weight") for leaf in leaves + norms]
    assert {layer for layer, _ in places} == {"model.layers.7"}
    assert len({role for _, role in places}) == len(places)


@given(st.text(min_size=1, max_size=40))
def test_any_text_has_a_layer_that_starts_it_and_a_role(name):
    layer, role = place(name)
    assert role
    assert layer
    assert name.startswith(layer)


@given(
    st.lists(
        st.sampled_from(["model", "layers", "h", "norm", "0", "17", "weight", "attn", "a_1", "conv1"]), min_size=1, max_size=9
    )
)
def test_a_layer_ends_where_a_component_ends(parts):
    name = ".".join(parts)
    layer, role = place(name)
    assert role
    assert name == layer or name.startswith(f"{layer}.")


@pytest.mark.parametrize(
    "name", ["_" * 100_000, "a." * 50_000, ".norm_" * 20_000, "layers." * 20_000, "a_" * 250, ".lora_A" * 70]
)
def test_hostile_names_take_no_time(name):
    start = perf_counter()
    place(name)
    assert perf_counter() - start < 0.5


def test_natural_key_sorts_numbers_by_value():
    names = ["layers.10.a", "layers.2.a", "layers.2.b", "10", "2x", "layers"]
    assert sorted(names, key=natural_key) == ["2x", "10", "layers", "layers.2.a", "layers.2.b", "layers.10.a"]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_natural_keys_can_always_be_compared(names):
    assert [natural_key(name) for name in sorted(names, key=natural_key)] == sorted(map(natural_key, names))


def test_speed(capsys):
    names = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight" for layer in range(100) for expert in range(500)]
    start = perf_counter()
    for name in names:
        place(name)
    with capsys.disabled():
        print(f"\nplace: {(perf_counter() - start) / len(names) * 1e6:.2f} us a name over {len(names)} names")


def test_importing_the_plan_loads_no_numerics():
    code = "import sys, diffai_stream.plan.align; print(*{'numpy', 'numba', 'dask', 'xxhash'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout.split() == []
    )
