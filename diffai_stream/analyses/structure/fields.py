"""The fields of structure and resource analyses."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict


class EncodingBytes(TypedDict):
    """Stored bytes of one encoding."""

    encoding: Annotated[str, "as in `diffai formats`"]
    old_nbytes: Annotated[int, "bytes stored in old"]
    new_nbytes: Annotated[int, "bytes stored in new"]


class RoleBytes(TypedDict):
    """Stored bytes of one role."""

    role: Annotated[str, "what the tensors do"]
    old_nbytes: Annotated[int, "bytes stored in old"]
    new_nbytes: Annotated[int, "bytes stored in new"]


class MemoryFields(TypedDict):
    """memory_analysis: one record a layer, one for the model."""

    old_nbytes: Annotated[int, "bytes stored in old, which is what loading takes at the stored type"]
    new_nbytes: Annotated[int, "bytes stored in new"]
    ratio: Annotated[float | None, "new / old"]
    encodings: NotRequired[Annotated[list[EncodingBytes], "by encoding (model record)"]]
    roles: NotRequired[Annotated[list[RoleBytes], "by role (model record)"]]
    old_kv_cache_nbytes_per_token: NotRequired[Annotated[int | None, "2·layers·kv heads·head size·2 bytes; null if unknown"]]
    new_kv_cache_nbytes_per_token: NotRequired[Annotated[int | None, "2·layers·kv heads·head size·2 bytes; null if unknown"]]
    old_adam_nbytes: NotRequired[Annotated[int, "two float32 moments a parameter"]]
    new_adam_nbytes: NotRequired[Annotated[int, "two float32 moments a parameter"]]


class SpeedFields(TypedDict):
    """inference_speed_estimate: one record for the model."""

    old_bytes_per_token: Annotated[int, "bytes read for one token: all weights but unused experts and embedding rows"]
    new_bytes_per_token: Annotated[int, "bytes read for one token"]
    old_flops_per_token: Annotated[int, "2 · active parameters"]
    new_flops_per_token: Annotated[int, "2 · active parameters"]
    bytes_ratio: Annotated[float | None, "new / old"]
    flops_ratio: Annotated[float | None, "new / old"]
    old_decode_tokens_per_second: Annotated[float | None, "--memory-bandwidth / bytes per token; null without it"]
    new_decode_tokens_per_second: Annotated[float | None, "--memory-bandwidth / bytes per token; null without it"]
    old_prefill_tokens_per_second: Annotated[float | None, "--peak-flops / FLOPs per token; null without it"]
    new_prefill_tokens_per_second: Annotated[float | None, "--peak-flops / FLOPs per token; null without it"]
    assumptions: Annotated[list[str], "what the estimate takes for granted"]


class PerformanceFields(TypedDict):
    """performance_impact_estimate: one record for the model."""

    latency_ratio: Annotated[float | None, "new / old time of a decoded token, bound by memory"]
    throughput_ratio: Annotated[float | None, "new / old tokens a second of a large batch, bound by arithmetic"]
    memory_ratio: Annotated[float | None, "new / old bytes of the weights"]
    assumptions: Annotated[list[str], "what the estimate takes for granted"]


class RoleCount(TypedDict):
    """Tensors of one role on both sides."""

    role: Annotated[str, "what the tensors do"]
    old_count: Annotated[int, "tensors in old"]
    new_count: Annotated[int, "tensors in new"]


class Architecture(TypedDict):
    """The facts of one side."""

    family: Annotated[str, "transformer_decoder, transformer_encoder, mixture_of_experts, cnn, mlp, rnn, diffusion_unet, ..."]
    evidence: Annotated[list[str], "the roles that say so"]
    depth: Annotated[int, "layers of the longest stack"]
    width: Annotated[int | None, "size of the hidden state; null if unknown"]
    heads: Annotated[int | None, "attention heads; null if unknown"]
    kv_heads: Annotated[int | None, "key and value heads; null if unknown"]
    head_dim: Annotated[int | None, "size of a head; null if unknown"]
    vocabulary: Annotated[int | None, "rows of the embedding; null if unknown"]
    experts: Annotated[int | None, "experts of a layer; null if unknown"]
    parameter_count: Annotated[int, "elements of the weights"]


class ArchitectureFields(TypedDict):
    """architecture_comparison: one record for the model."""

    old: Annotated[Architecture, "facts of old"]
    new: Annotated[Architecture, "facts of new"]
    same_family: Annotated[bool, "whether both families are the same"]
    differs_in: Annotated[list[str], "facts that differ"]
    added: Annotated[list[str], "tensors only in new (--top)"]
    removed: Annotated[list[str], "tensors only in old (--top)"]
    reshaped: Annotated[list[str], "tensors of another shape (--top)"]
    roles: Annotated[list[RoleCount], "roles whose number of tensors differs"]
