"""Tensor names to places: the layer (the repeated block) a tensor belongs to and the role it has there.

A name is cut in three: `model.layers.3` (the layer), `self_attn.q_proj` (the module, which a row of the tables below turns
into a role) and `weight` (the leaf, which may add a suffix to the role). Names that differ in their first index only are
looked up once. The tables are ordered: the first row that matches the whole module path wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

from diffai_stream.errors import UsageError


class Place(NamedTuple):
    """Where a tensor belongs: `model.layers.3` and `attention.q_proj`."""

    layer: str
    role: str


class Row(NamedTuple):
    """`family` uses names like `pattern` (the whole module path) for `role`; `block` restricts it to one kind of block."""

    family: str
    pattern: str
    role: str
    block: str = r"\w*"


_SELF = (
    r"(?:.*\.)?(?:self_attn|self_?attention|attention(?:\.(?:self|attention|output))?|attn1?|mixer\.mha|mha"
    r"|multiheaddotproductattention_\d+)"
)
_CROSS = r"(?:.*\.)?(?:encoder_attn|cross_attn|cross_?attention(?:\.(?:self|output))?|encdecattention|attn2|multihead_attn)"
_ATTENTION_NAMES = {_CROSS: "cross_attention", "txt_attn": "context_attention", "img_attn": "attention", _SELF: "attention"}
_FFN = r"(?:.*\.)?(?:mlp|ffn|ff|feed_forward|feedforward|densereludense|mlpblock_\d+|img_mlp)"

_ATTENTION = (
    Row("BERT, ViT, Whisper, GPT-2", r"query|q_attn", "q_proj"),
    Row("BERT, ViT, Whisper", r"key", "k_proj"),
    Row("BERT, ViT, Whisper", r"value", "v_proj"),
    Row("Llama, Mistral, Qwen, Gemma, DistilBERT", r"([qkvo])_(?:proj|lin)", r"\1_proj"),
    Row("Meta, T5, InternLM, diffusers", r"(?:w|to_)?([qkvo])", r"\1_proj"),
    Row("GPT-2, GPT-NeoX, Falcon, Bloom, Megatron", r"c_attn|query_key_value|linear_qkv|in_proj", "qkv_proj"),
    Row("timm, MPT, Phi-3, diffusers", r"qkv|w_?qkv|qkv_proj|to_qkv|qkv_lin", "qkv_proj"),
    Row("GPT-2, BERT, timm, Megatron", r"c_proj|dense|proj|linear_proj", "o_proj"),
    Row("OPT, CLIP, Whisper, DistilBERT, diffusers", r"out(?:_proj|_lin)?|to_out(?:\.0)?", "o_proj"),
    Row("Flux, SD3", r"to_add_out", "add_o_proj"),
    Row("Gemma 3, Qwen 3, DeepSeek", r"([qk](?:_a|_b)?|kv_a)_(?:layer)?norm", r"norm.\1"),
    Row("SD3, Flux", r"norm_(added_[qk]|[qk])|norm\.([qk])(?:uery|ey)_norm", r"norm.\1\2"),
    Row("Bloom, BERT", r"layer_?norm|ln", "norm.post_attention"),
    Row("Megatron", r"linear_qkv\.layer_norm", "norm.input"),
    Row("Llama", r"rotary_emb.*|rope.*", "rotary_embedding"),
    Row("T5, Swin", r"relative_attention_bias|relative_position_(?:bias_table|index)", "position_embedding"),
    Row("any", r"(\w+)", r"\1"),
)


def _scoped(row: Row, scope: str, name: str) -> Row:
    role = row.role if row.role.startswith("norm") else f"{name}.{row.role}"
    return Row(row.family, rf"{scope}\.(?:{row.pattern})", role)


_BLOCK = (
    Row("Qwen, DeepSeek MoE", r"(?:.*\.)?shared_experts?\.(gate|up|down|gate_up)_proj", r"shared_expert.\1_proj"),
    Row("Qwen MoE", r"mlp\.shared_expert_gate", "shared_expert.router"),
    Row("Qwen, DeepSeek MoE, gpt-oss", r"(?:.*\.)?experts\.(?:\d+\.)?(gate|up|down|gate_up)_proj", r"experts.\1_proj"),
    Row("Mixtral", r"(?:.*\.)?experts\.(?:\d+\.|mlp\.)?w1", "experts.gate_proj"),
    Row("Mixtral", r"(?:.*\.)?experts\.(?:\d+\.|mlp\.)?w2", "experts.down_proj"),
    Row("Mixtral", r"(?:.*\.)?experts\.(?:\d+\.|mlp\.)?(?:w3|v1)", "experts.up_proj"),
    Row("Granite MoE", r"block_sparse_moe\.input_linear", "experts.gate_up_proj"),
    Row("Granite MoE", r"block_sparse_moe\.output_linear", "experts.down_proj"),
    Row("Mixtral, DeepSeek, Qwen MoE", r"(?:mlp|block_sparse_moe|moe)\.gate(?:\.wg)?", "router"),
    Row("DBRX, Llama 4, gpt-oss, Granite", r"(?:mlp|block_sparse_moe|moe|ffn|feed_forward)\.router(?:\.layer)?", "router"),
    Row("GGUF", r"ffn_(gate|up|down|gate_up)(?:_exps|\.\d+)", r"experts.\1_proj"),
    Row("GGUF", r"ffn_(gate|up|down)_shexp", r"shared_expert.\1_proj"),
    Row("GGUF", r"ffn_gate_inp_shexp", "shared_expert.router"),
    Row("GGUF", r"ffn_gate_inp|exp_probs_b", "router"),
    Row("GGUF", r"attn_(qkv|[qkv])", r"attention.\1_proj"),
    Row("GGUF", r"attn_o(?:ut(?:put)?)?", "attention.o_proj"),
    Row("GGUF", r"attn_([qk](?:_a|_b)?|kv_a)_norm", r"norm.\1"),
    Row("GGUF", r"attn_(q_a|q_b|kv_b)", r"attention.\1_proj"),
    Row("GGUF", r"attn_kv_a_mqa", "attention.kv_a_proj_with_mqa"),
    Row("GGUF", r"cross_attn_([qkvo])", r"cross_attention.\1_proj"),
    Row("GGUF", r"attn_output_norm", "norm.post_attention"),
    Row("GGUF", r"layer_output_norm", "norm.post_mlp"),
    Row("GGUF", r"attn_(?!norm)(\w+)", r"attention.\1"),
    Row("GGUF", r"ffn_(gate|up|down)", r"mlp.\1_proj"),
    Row("GGUF Mamba", r"ssm_(in|x|dt|out)", r"ssm.\1_proj"),
    Row("GGUF Mamba", r"ssm_(\w+)", r"ssm.\1"),
    Row("Mamba, Jamba", r"(?:mixer|mamba|ssm|linear_attn)\.(\w+)", r"ssm.\1"),
    Row("Llama, Qwen, Gemma, Falcon 3", rf"{_FFN}\.(gate|up|down|gate_up)_proj", r"mlp.\1_proj"),
    Row("Meta, InternLM", r"feed_forward\.w1", "mlp.gate_proj"),
    Row("Meta, InternLM", r"feed_forward\.w3", "mlp.up_proj"),
    Row("Meta, InternLM", r"feed_forward\.w2", "mlp.down_proj"),
    Row("Qwen 1", r"mlp\.w1", "mlp.up_proj"),
    Row("Qwen 1", r"mlp\.w2", "mlp.gate_proj"),
    Row("DINOv2, EVA", r"mlp\.(?:w12|w_12)", "mlp.gate_up_proj"),
    Row("DINOv2, EVA", r"mlp\.w3", "mlp.down_proj"),
    Row("T5", r"(?:.*\.)?densereludense\.wi_0", "mlp.gate_proj"),
    Row("T5", r"(?:.*\.)?densereludense\.wi(?:_1)?", "mlp.up_proj"),
    Row("T5", r"(?:.*\.)?densereludense\.wo", "mlp.down_proj"),
    Row("GPT-2, GPT-NeoX, Falcon, Bloom", rf"{_FFN}\.(?:c_fc|dense_h_to_4h|fc_in|dense_0)", "mlp.up_proj"),
    Row("GPT-2, GPT-NeoX, Falcon, Bloom", rf"{_FFN}\.(?:c_proj|dense_4h_to_h|fc_out|dense_1)", "mlp.down_proj"),
    Row("Phi, CLIP, timm, OPT, Whisper", rf"(?:{_FFN}\.)?(?:fc1|lin1|linear_fc1)|{_FFN}\.0", "mlp.up_proj"),
    Row("Phi, CLIP, timm, OPT, Whisper", rf"(?:{_FFN}\.)?(?:fc2|lin2|linear_fc2)|{_FFN}\.[2-4]", "mlp.down_proj"),
    Row("torch.nn.Transformer", r"linear1", "mlp.up_proj", r"(?!single_)\w*"),
    Row("torch.nn.Transformer", r"linear2", "mlp.down_proj", r"(?!single_)\w*"),
    Row("Flux", r"linear1", "qkv_up_proj", "single_blocks"),
    Row("Flux", r"linear2|proj_out", "o_down_proj", "single_blocks|single_transformer_blocks"),
    Row("Flux", r"proj_mlp", "mlp.up_proj"),
    Row("Flux", r"txt_mlp\.0|ff_context\.net\.0\.proj", "context_mlp.up_proj"),
    Row("Flux", r"txt_mlp\.2|ff_context\.net\.2", "context_mlp.down_proj"),
    Row("diffusers", r"ff\.net\.0\.proj", "mlp.up_proj"),
    Row("diffusers", r"ff\.net\.2", "mlp.down_proj"),
    Row("DiT, Flux", r"adaln_modulation\.1|scale_shift_table|(?:img_mod|modulation)\.lin|norm1?\.linear", "modulation"),
    Row("Flux", r"txt_mod\.lin|norm1_context\.linear", "context_modulation"),
    Row("BERT", r"(?:\w+\.)?attention\.output\.layernorm|sa_layer_norm", "norm.post_attention"),
    Row("BERT", r"output\.layernorm|output_layer_norm", "norm.post_mlp"),
    Row("BERT", r"intermediate\.dense", "mlp.up_proj"),
    Row("BERT", r"output\.dense", "mlp.down_proj"),
    Row("T5", r"layer\.0\.layer_norm", "norm.input"),
    Row("T5", r"layer\.1\.layer_norm", "norm.post_attention"),
    Row("T5", r"layer\.2\.layer_norm", "norm.pre_mlp"),
    Row("Gemma, GGUF", r"(pre|post)_(?:feedforward_layer|ffw_)norm", r"norm.\1_mlp"),
    Row("UNet", r".*norm\w*", "norm", "resnets|attentions|motion_modules|input_blocks|output_blocks|middle_block|mid"),
    Row("Llama, Gemma, Mixtral, Bloom, GPT-NeoX", r"input_layernorm", "norm.input"),
    Row("Llama, Gemma, Bloom, Megatron", r"post_attention_(?:layer)?norm|mlp\.linear_fc1\.layer_norm", "norm.post_attention"),
    Row("GPT-2, Falcon, OPT", r"ln_?1|ln_attn|self_attn_layer_norm|attn_ln", "norm.input"),
    Row("GPT-2, Falcon, OPT", r"ln_?2|ln_mlp|final_layer_norm|mlp_ln", "norm.post_attention"),
    Row("BART, Whisper", r"encoder_attn_layer_norm|cross_attn_ln", "norm.cross_attention"),
    Row("Meta, GGUF, InternLM", r"att(?:entio)?n_norm", "norm.input"),
    Row("Meta, GGUF, InternLM", r"ffn_norm", "norm.post_attention"),
    Row("CLIP, ViT, timm, Mamba", r"(?:layer_?)?norm1?|layernorm_before|pre_?norm", "norm.input"),
    Row("CLIP, ViT, timm", r"(?:layer_?)?norm2|layernorm_after", "norm.post_attention"),
    Row("diffusers", r"norm3", "norm.pre_mlp"),
    Row("torchvision, timm, HF ResNet", r"downsample\.0|shortcut\.convolution", "downsample.conv"),
    Row("torchvision, timm, HF ResNet", r"downsample\.1|shortcut\.normalization", "downsample.batch_norm"),
    *(_scoped(row, scope, name) for scope, name in _ATTENTION_NAMES.items() for row in _ATTENTION),
    *(Row("any", scope, name) for scope, name in _ATTENTION_NAMES.items()),
)

_OUTSIDE = (
    Row("Llama, Gemma, OPT, T5", r"(?:.*\.)?embed_tokens|shared", "embedding"),
    Row("GPT-2, GPT-NeoX, BERT, Bloom, Falcon", r"(?:.*\.)?(?:wte|embed_in|word_embeddings|tokens_embed)", "embedding"),
    Row("Meta, CLIP, GGUF, InternLM", r"(?:.*\.)?tok(?:en)?_emb(?:eddings?|d|edder)", "embedding"),
    Row("Mamba, Keras", r"embeddings?(?:_\d+)?|embed", "embedding"),
    Row("GPT-2, OPT", r"(?:.*\.)?(?:wpe|embed_positions|positions_embed)", "position_embedding"),
    Row("BERT, CLIP, timm, GGUF", r"(?:.*\.)?pos(?:ition(?:al)?)?_(?:embed(?:dings?)?|embd|ids)", "position_embedding"),
    Row("BERT, GGUF", r"(?:.*\.)?(?:token_type_embeddings|token_types)", "token_type_embedding"),
    Row("ViT, CLIP, DiT, GGUF", r"(?:.*\.)?patch_embe?d(?:dings?)?(?:\.proj(?:ection)?)?", "patch_embedding"),
    Row("SD3, torchvision ViT", r"pos_embed\.proj|conv_proj", "patch_embedding"),
    Row("ViT, CLIP", r"(?:.*\.)?(?:cls_token|class_token|class_embedding|class_embd)", "class_embedding"),
    Row("BERT, Bloom, BART", r"embeddings\.layer_?norm|word_embeddings_layernorm|layernorm_embedding|emb_ln", "norm.embedding"),
    Row("CLIP, GGUF", r"pre_layr?norm|ln_pre|token_embd_norm", "norm.embedding"),
    Row("ESM, RoBERTa, BERT", r"(?:predictions\.transform|lm_head)\.dense", "lm_head.transform"),
    Row("ESM, RoBERTa, BERT", r"(?:predictions\.transform|lm_head)\.layer_?norm", "lm_head.norm"),
    Row("Llama, GPT-2, RoBERTa", r"lm_head(?:\.decoder)?", "lm_head"),
    Row("GPT-NeoX, GGUF, Meta, Megatron", r"embed_out|output|output_layer", "lm_head"),
    Row("BERT, RNN language models", r"predictions(?:\.decoder)?|decoder", "lm_head"),
    Row("Llama, GPT-2, Mamba, GGUF, timm", r"norm|final_norm|ln_f|norm_f|ln|output_norm", "final_norm"),
    Row("OPT, T5, CLIP, ViT, Whisper", r"(?:final_?|post_?)?layer_?norm|ln_post|ln_final", "final_norm"),
    Row("diffusers", r"conv_norm_out|norm_out", "final_norm"),
    Row("torchvision, timm, BERT", r"classifier|fc|head|heads\.head|score|classification_head", "classifier"),
    Row("BERT", r"pooler\.dense", "pooler"),
    Row("GGUF, Llama", r"rope_freqs|rotary_emb.*|rope.*", "rotary_embedding"),
    Row("LDM, DiT, Flux, diffusers", r"(?:t_embedder|time_in|time_embed(?:ding)?|time_text_embed)\b.*", "time_embedding"),
)

_ANYWHERE = (
    Row("torchvision, Keras", r"(?:.*\.)?(?:(?:\w*_)?(?:bn\d*|batch_?norm\w*)|normalization)", "batch_norm"),
    Row("torchvision, Keras, LDM", r"(?:.*\.)?(?:(?:\w*_)?conv\w*|skip_connection|in_layers\.2|out_layers\.3)", "conv"),
    Row("Keras", r"(?:.*\.)?dense(?:_\d+)?", "dense"),
    Row("any, LDM", r"(?:.*\.)?(?:\w*_)?(?:layer|rms|group)?_?norm(?:alization)?(?:_?\d+)?|(?:in|out)_layers\.0", "norm"),
)

_OUTER_BLOCKS = (
    r"(?:stages?|down|up)\.\d+\.(?:layers|blocks|block|attn)\.\d+",
    r"(?:layers?|h|blk|blocks?|resblocks|resnets|attentions|features|stages?|cells|down|up|motion_modules)\.\d+(?:\.\d+)*",
    r"(?:\w+_blocks|\w+_layers|middle_block)\.\d+(?:\.\d+)*",
    r"(?:layers?|h|blocks?|encoderblock|stages?)_?\d+(?:\.\d+)*",
    r"features\.denseblock\d+(?:\.denselayer\d+)?",
)
_INNER_BLOCKS = r"(?:resnets|attentions|(?:temporal_)?(?:transformer_)?blocks|motion_modules|downsamplers|upsamplers)"
_LAYER = re.compile(rf"(?:.*?\.)??(?:{'|'.join(_OUTER_BLOCKS)})(?:\.{_INNER_BLOCKS}\.\d+)*(?![^.])", re.IGNORECASE)

_WRAPPERS = (
    r"(?:module|_orig_mod|model|base_model|transformer|gpt_neox|bert|roberta|distilbert|electra|albert|deberta|esm|vit|clip|dinov2"
    r"|(?:language|text|vision|diffusion|first_stage|cond_stage)_model|(?:vision|audio)_tower|visual|(?:vision|text|image)_encoder"
    r"|encoder|decoder|backbone|trunk|net|network|params|(?:model_)?state_dict|cls|layers|model_weights|functional|sequential"
    r"|student|teacher|ema|unet|vae|resnet|convnextv?2?|swin|whisper|t5|[va](?=\.patch_|\.post_|\.pre_|\.position))"
)
_OUTSIDE_LAYER = re.compile(rf"((?:{_WRAPPERS}\.)*)[^.]+(?:\.\d+(?![^.]))*", re.IGNORECASE)

_ADAPTERS = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_down": "lora_a", "lora_up": "lora_b"} | {
    "base_layer": "",
    "default": "",
}
_LEAVES = {
    **dict.fromkeys(("weight", "kernel", "w", "qweight", "gamma", "scale", "embeddings", "embedding", "weight_packed"), ""),
    **dict.fromkeys(("bias", "beta", "b", "e_score_correction_bias"), "bias"),
    **{"moving_mean": "running_mean", "moving_variance": "running_var", "blocks": ""},
}
_OTHER_LEAVES = (
    r"running_mean|running_var|num_batches_tracked|scales|qzeros|g_idx|weight_(?:scale|scale_inv|scale_2|zero_point|shape|g|v)|input_scale"
    r"|absmax|quant_map|nested_absmax|nested_quant_map|SCB|lora_magnitude_vector|lora_embedding_[AB]|alpha"
)
_STATES = r"grad|step|exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer"
_TAIL = re.compile(rf"(.+?)((?:\.(?:{'|'.join(_ADAPTERS)}))*)(?:\.({'|'.join(_LEAVES)}|{_OTHER_LEAVES}))?(?:\.({_STATES}))?")
_FUSED_LEAF = re.compile(r"(.+)_(weight|bias|blocks|scales)")
_KERAS_VARIABLE = re.compile(r"(.+)\.vars\.(\d+)")
_BATCH_NORM = ("", "bias", "running_mean", "running_var")
_KERAS_VARIABLES = {"batch_norm": _BATCH_NORM, "cell": ("", "recurrent", "bias"), "": ("", "bias")}
_FIRST_INDEX = re.compile(r"[./]([0-9]+)[./]")
_LONGEST = 512  # characters; the patterns take quadratic time, names are read from files of strangers

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _compiled(rows: Iterable[Row]) -> Rules:
    return tuple((re.compile(rf"(?:{row.block}):(?:{row.pattern})", re.IGNORECASE), row.role) for row in rows)


_INSIDE_RULES = _compiled((*_BLOCK, *_ANYWHERE))
_OUTSIDE_RULES = _compiled((*_OUTSIDE, *_ANYWHERE))


def place(name: str) -> Place:
    """The layer and the role of a tensor, by its name alone; neither is ever empty unless the name is."""
    index = _FIRST_INDEX.search(name)
    if index is None:
        cut, role = _look_up(name, None)
        return Place(name[:cut], role)
    start, end = index.span(1)
    cut, role = _look_up(name[:start], name[end:])
    return Place(name[: (end if cut >= 0 else start) + cut], role)


class _Family(NamedTuple):
    """The rules of a family, inside and outside of blocks."""

    inside: Rules
    outside: Rules


def place_in(name: str, family: str) -> Place:
    """The place of a tensor whose model is said to be of a family: its own place, unless the tables have no row for it.

    Then the rules of the family are held against the end of the name, whatever stands before it:
    `tower.stack_3.self_attn.q_proj` is `attention.q_proj` of `tower.stack_3`. Raises UsageError for a family that no row names.
    """
    rules = _rules_of(family)
    module, suffix = _split_leaf(name.replace("/", ".").removesuffix(":0"))
    if len(name) > _LONGEST or is_known(name):
        return place(name)
    tokens = module.split(".")
    for start in reversed(range(1, len(tokens))):
        if role := _role(":" + ".".join(tokens[start:]), rules.inside):
            return Place(name[: len(".".join(tokens[:start]))], (role + suffix).lower())
    for start in range(len(tokens)):
        if role := _role(":" + ".".join(tokens[start:]), rules.outside):
            return Place(name[: len(module)], (role + suffix).lower())
    return place(name)


def is_known(name: str) -> bool:
    """Whether a row of the tables gives the role, not the words of the name."""
    module, _ = _split_leaf(name.replace("/", ".").removesuffix(":0"))
    if inside := _LAYER.match(module):
        block = next((token for token in reversed(inside.group().split(".")) if not token.isdigit()), "")
        return bool(_role(f"{block}:{module[inside.end() + 1 :]}", _INSIDE_RULES))
    outside = _OUTSIDE_LAYER.match(module)
    return bool(outside and _role(f":{module[outside.end(1) :]}", _OUTSIDE_RULES))


def families() -> tuple[str, ...]:
    """The families that the tables name, as `place_in` knows them."""
    names = (label for row in (*_BLOCK, *_OUTSIDE, *_ANYWHERE) for label in row.family.split(","))
    return tuple(sorted({_plain(name) for name in names} - {"any"}))


def _plain(family: str) -> str:
    return re.sub(r"[^a-z0-9]", "", family.lower())


@lru_cache(maxsize=8)
def _rules_of(family: str) -> _Family:
    """The rules of one family; `qwen2` is `qwen`, `gpt_neox` is `GPT-NeoX`."""
    wanted = _plain(family)
    known = [name for name in families() if wanted and wanted.startswith(name)]
    if not known:
        near = get_close_matches(wanted, families(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(families())}"
        raise UsageError(f"--model-type knows no {family!r}; {hint}")
    inside, outside = (
        _compiled(row for row in rows if {_plain(label) for label in row.family.split(",")} & set(known))
        for rows in (_BLOCK, (*_OUTSIDE, *_ANYWHERE))
    )
    return _Family(inside, outside)


def natural_key(name: str) -> tuple[str | int, ...]:
    """Sort key that compares numbers by value: `layers.2` before `layers.10`."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return tuple(parts)


@lru_cache(maxsize=1 << 16)
def _look_up(head: str, tail: str | None) -> tuple[int, str]:
    """Where the layer ends and the role, of the name with an index between `head` and `tail` (None: without one).

    The end is counted from the end of the index, or from its start when negative, so that it holds for any index.
    """
    name = head if tail is None else f"{head}0{tail}"
    length, role = _analyse(name)
    if tail is None:
        return length, role
    start, end = len(head), len(head) + 1
    return (length - end if length >= end else length - start), role


def _analyse(name: str) -> tuple[int, str]:
    """Length of the layer name and the role, looked up in the tables."""
    if len(name) > _LONGEST:
        return len(name), "other"
    module, suffix = _split_leaf(name.replace("/", ".").removesuffix(":0"))
    if inside := _LAYER.match(module):
        length, rest, rules = inside.end(), module[inside.end() + 1 :], _INSIDE_RULES
        block = next((token for token in reversed(inside.group().split(".")) if not token.isdigit()), "")
    elif outside := _OUTSIDE_LAYER.match(module):
        length, rest, rules, block = outside.end(), module[outside.end(1) :], _OUTSIDE_RULES, ""
    else:
        return len(name), name.lower()
    # a module path of indices alone is an nn.Sequential at the top
    role = _role(f"{block}:{rest}", rules) or _without_indices(rest) or block or _without_indices(module) or "sequential"
    if suffix.startswith(".running_") and not role.endswith("batch_norm"):
        role = "batch_norm"
    return length, (role + suffix).lower()


def _role(subject: str, rules: Rules) -> str:
    for pattern, role in rules:
        if found := pattern.fullmatch(subject):
            return found.expand(role)
    return ""


def _without_indices(path: str) -> str:
    return ".".join(token for token in path.split(".") if not token.isdigit())


def _split_leaf(path: str) -> tuple[str, str]:
    """The module path and what its leaf adds to the role: "" for weights, `.bias`, `.lora_a`, `.running_mean`, ..."""
    if variable := _KERAS_VARIABLE.fullmatch(path):
        return variable[1], _keras_suffix(variable[1], int(variable[2]))
    tail = _TAIL.fullmatch(path)
    if tail is None:
        return path, ""
    module, adapters, leaf, state = tail.groups()
    if not leaf and (fused := _FUSED_LEAF.fullmatch(module)):
        module, leaf = fused.groups()
    names = [*(_ADAPTERS[adapter] for adapter in adapters.split(".")[1:]), _LEAVES.get(leaf, leaf), state]
    return module, "".join(f".{name}" for name in names if name)


def _keras_suffix(module: str, index: int) -> str:
    names = next(names for kind, names in _KERAS_VARIABLES.items() if kind in module)
    name = names[index] if index < len(names) else f"variable_{index}"
    return f".{name}" if name else ""
