"""One realistic run as its records, fed to every writer: a small transformer, fine-tuned, one tensor quantized, one unreadable.

`full_run()` has every record type; `transformer_run()` is the same model at any depth, for looking at tables.
"""

import math
from typing import Annotated, Any, Literal, NotRequired, TypedDict

RUN_ID = "9f2c41d07ab35e18"


class RoleChange(TypedDict):
    """Relative change of the tensors of one role in a layer."""

    role: Annotated[str, "role"]
    relative_l2: Annotated[float | None, "relative change"]


class LayerImpactFields(TypedDict):
    """Change of each layer."""

    relative_l2: NotRequired[Annotated[float | None, "relative change of the layer"]]
    element_count: NotRequired[Annotated[int, "elements"]]
    roles: NotRequired[Annotated[list[RoleChange], "change by role"]]
    ranking: NotRequired[Annotated[list[dict[str, Any]], "layers, the largest change first"]]


class QuantizationFields(TypedDict, total=False):
    """What the encoding costs."""

    old_bits_per_weight: Annotated[float, "bits"]
    new_bits_per_weight: Annotated[float, "bits"]
    compression_ratio: Annotated[float, "old bytes over new bytes"]
    sqnr_db: Annotated[float | None, "dB"]
    cast: Annotated[Literal["exact", "rne", "truncated", "none"] | None, "how the values were cast"]
    exceeds_threshold: Annotated[bool, "relative_l2 above the threshold"]


class AnomalyFields(TypedDict):
    """Something that should not be."""

    kind: Annotated[str, "which"]
    value: Annotated[float | None, "measured"]
    threshold: Annotated[float | None, "limit"]
    count: Annotated[int | None, "how many"]
    side: Annotated[Literal["old", "new", "delta"], "which side"]


class GateFields(TypedDict):
    """One gate."""

    gate: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str | None


FINDING_FIELDS: dict[str, type] = {
    "layer_impact": LayerImpactFields,
    "quantization": QuantizationFields,
    "anomaly": AnomalyFields,
    "regression_test": GateFields,
}


def numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"schema_version": 1, "run_id": RUN_ID, "seq": seq, **record} for seq, record in enumerate(records)]


def side_info(name: str, shape: list[int], encoding: str = "BF16") -> dict[str, Any]:
    bits = {"BF16": 16, "F32": 32, "F16": 16, "Q4_K": 4.5}[encoding]
    dtype = {"BF16": "bfloat16", "F16": "float16"}.get(encoding, "float32")
    numel = math.prod(shape)
    return {
        "name": name,
        "dtype": dtype,
        "encoding": encoding,
        "shape": shape,
        "numel": numel,
        "stored_nbytes": int(numel * bits / 8),
    }


def side_stats(scale: float, numel: int, quantiles: bool = False) -> dict[str, Any]:
    stats: dict[str, Any] = {
        "mean": scale * 1e-3,
        "std": scale,
        "min": -4.75 * scale,
        "max": 4.5 * scale,
        "l2_norm": scale * math.sqrt(numel),
        "abs_max": 4.75 * scale,
        "zero_count": 12,
        "nan_count": 0,
        "posinf_count": 0,
        "neginf_count": 0,
    }
    if quantiles:
        places = {
            "p001": -3.1,
            "p01": -2.3,
            "p05": -1.6,
            "p25": -0.67,
            "p50": 0.0,
            "p75": 0.67,
            "p95": 1.6,
            "p99": 2.3,
            "p999": 3.1,
        }
        stats |= {
            "skewness": 0.01,
            "excess_kurtosis": 0.4,
            "quantiles": {key: z * scale for key, z in places.items()},
            "sparsity_ratio": 12 / numel,
        }
    return stats


def change_stats(relative_l2: float, numel: int, scale: float = 0.02) -> dict[str, Any]:
    changed = 0 if not relative_l2 else numel if relative_l2 > 1e-3 else int(numel * 0.42)
    return {
        "changed_count": changed,
        "changed_ratio": changed / numel,
        "sign_flip_count": int(numel * relative_l2 / 4),
        "l2_norm": relative_l2 * scale * math.sqrt(numel),
        "relative_l2": relative_l2,
        "cosine_similarity": 1.0 - relative_l2**2 / 2,
        "cosine_distance": relative_l2**2 / 2,
        "sqnr_db": -20 * math.log10(relative_l2) if relative_l2 else None,
        "max_abs": 9 * relative_l2 * scale,
        "max_abs_index": [3, 141] if changed else None,
        "mean_abs": 0.8 * relative_l2 * scale,
    }


def tensor(name: str, shape: list[int], relative_l2: float | None = None, **more: Any) -> dict[str, Any]:
    """A tensor record; `layer` and `role` from `more`, status changed unless said otherwise."""
    status = more.pop("status", "changed")
    quantiles = more.pop("quantiles", False)
    old = None if status == "added" else side_info(name, more.pop("old_shape", shape), more.pop("old_encoding", "BF16"))
    new = None if status == "removed" else side_info(more.pop("new_name", name), shape, more.pop("new_encoding", "BF16"))
    comparable = relative_l2 is not None
    numel = math.prod(shape)
    return {
        "type": "tensor",
        "name": name,
        "layer": None,
        "role": None,
        "status": status,
        "match": "exact",
        "old": old,
        "new": new,
        "stats": {
            "old": side_stats(0.02, numel, quantiles) if old else None,
            "new": side_stats(0.0201, numel, quantiles) if new else None,
            "delta": side_stats(0.02 * relative_l2, numel, quantiles) if comparable else None,
        },
        "change": change_stats(relative_l2, numel) if comparable else None,
        **more,
    }


def checkpoint(path: str, tensors: int, parameters: int, **more: Any) -> dict[str, Any]:
    info = {"path": path, "format": "safetensors", "tensor_count": tensors, "parameter_count": parameters}
    return {**info, "stored_nbytes": 2 * parameters, "metadata": [{"key": "format", "value": "pt"}], **more}


def header(old: dict[str, Any], new: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "header",
        "tool": {"name": "diffai_stream", "version": "0.1.0"},
        "old": old,
        "new": new,
        "options": {"stats": False, "epsilon": 0.0},
        "plan": {
            "batch_count": 37,
            "read_nbytes": old["stored_nbytes"] + new["stored_nbytes"],
            "chunk_nbytes": 33_554_432,
            "projected_memory_nbytes": 301_989_888,
            "executor": "threads",
            "worker_count": 8,
        },
        **more,
    }


def finding(name: str, subject: str, scope: str = "layer", basis: str = "measured", **fields: Any) -> dict[str, Any]:
    return {"type": name, "scope": scope, "subject": subject, "basis": basis, **fields}


def summary(status: str = "different", exit_status: int = 1, **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("unchanged", "changed", "added", "removed", "renamed", "reshaped", "retyped", "error"), 0)
    return {
        "type": "summary",
        "status": status,
        "differs_in": more.pop("differs_in", []),
        "counts": counts | more.pop("counts", {}),
        "parameter_count": {"old": 1_235_814_400, "new": 1_235_818_496, "changed": 1_101_004_800},
        "relative_l2": 0.0312,
        "exit_status": exit_status,
        "read_nbytes": 4_943_257_600,
        "elapsed_seconds": 2.84,
        "peak_memory_nbytes": 361_000_000,
        **more,
    }


_ROLES = (
    ("self_attn.q_proj", "attention.q_proj", [2048, 2048], 1.0),
    ("self_attn.k_proj", "attention.k_proj", [512, 2048], 0.8),
    ("self_attn.v_proj", "attention.v_proj", [512, 2048], 1.6),
    ("self_attn.o_proj", "attention.o_proj", [2048, 2048], 1.2),
    ("mlp.gate_proj", "mlp.gate_proj", [8192, 2048], 2.0),
    ("mlp.up_proj", "mlp.up_proj", [8192, 2048], 2.6),
    ("mlp.down_proj", "mlp.down_proj", [2048, 8192], 2.2),
    ("input_layernorm", "norm.input", [2048], 0.02),
)


def _relative(layer: int, depth: int, weight: float) -> float:
    """A hump over depth, spread over about three decades."""
    return weight * 0.02 * 10 ** (-3.0 * abs(layer / max(depth - 1, 1) - 0.7))


def transformer_layer(layer: int, depth: int, quantiles: bool = False) -> list[dict[str, Any]]:
    prefix, records, roles = f"model.layers.{layer}", [], []
    for module, role, shape, weight in _ROLES:
        relative_l2 = 0.0 if role == "norm.input" and layer % 5 == 0 else _relative(layer, depth, weight)
        roles.append({"role": role, "relative_l2": relative_l2})
        if relative_l2:
            records.append(
                tensor(f"{prefix}.{module}.weight", shape, relative_l2, layer=prefix, role=role, quantiles=quantiles)
            )
    whole = _relative(layer, depth, 2.1)
    return [*records, finding("layer_impact", prefix, relative_l2=whole, element_count=60_821_504, roles=roles)]


def transformer_run(depth: int = 16, quantiles: bool = False) -> list[dict[str, Any]]:
    """Header to summary of a fine-tuned model, without trouble."""
    parameters = 60_821_504 * depth
    records = [
        header(checkpoint("Llama-3.2-1B", 8 * depth, parameters), checkpoint("runs/chat/step-4000", 8 * depth, parameters))
    ]
    for layer in range(depth):
        records += transformer_layer(layer, depth, quantiles)
    changed = sum(record["type"] == "tensor" for record in records)
    return numbered([*records, summary(counts={"changed": changed, "unchanged": 8 * depth - changed})])


def full_run() -> list[dict[str, Any]]:
    """Every record type and every tensor status once or more."""
    old = checkpoint("base.safetensors", 18, 1_235_814_400)
    new = checkpoint("out/model.gguf", 18, 1_235_818_496, format="gguf", stored_nbytes=1_961_000_000)
    ranking = [
        {"layer": "model.layers.1", "relative_l2": 0.00529, "energy_ratio": 0.996},
        {"layer": "model.layers.0", "relative_l2": 0.000334, "energy_ratio": 0.004},
    ]
    gate = {"gate": "layer_change", "passed": False, "value": 0.0197, "limit": 0.01, "detail": "relative_l2 beyond the limit"}
    totals = {"old_bits_per_weight": 16.0, "new_bits_per_weight": 12.7, "compression_ratio": 1.26, "sqnr_db": 20.1}
    return numbered(
        [
            header(old, new),
            {
                "type": "warning",
                "code": "trailing_bytes",
                "message": "16 bytes follow the last tensor",
                "path": "base.safetensors",
                "tensor": None,
            },
            tensor("model.embed_tokens.weight", [32016, 2048], status="reshaped", old_shape=[32000, 2048], role="embedding"),
            *transformer_layer(0, 2, quantiles=True),
            *transformer_layer(1, 2),
            tensor("model.norm.weight", [2048], 0.0, status="retyped", new_encoding="F32", role="final_norm"),
            tensor("lm_head.weight", [32000, 2048], 0.0986, new_encoding="Q4_K", new_name="output.weight", match="renamed"),
            _quantization("lm_head.weight"),
            _anomaly("heavy_tail", "warning", "lm_head.weight", 31.5, 20.0, None),
            _anomaly("nonfinite", "critical", "model.layers.1.mlp.up_proj.weight", None, None, 3),
            {
                "type": "error",
                "error": "TensorError",
                "message": "the extent ends 4,096 bytes behind the end of the file; download it again",
                "path": "out/model.gguf",
                "tensor": "blk.1.attn_q.bias",
                "offset": 1_960_995_904,
            },
            tensor("adapter.lora_A.weight", [16, 2048], status="added"),
            tensor("adapter.old_bias", [2048], status="removed"),
            finding("layer_impact", "model", scope="model", ranking=ranking),
            finding("quantization", "model", scope="model", **totals),
            finding("regression_test", "model.layers.1", severity="critical", **gate),
            {
                "type": "skipped",
                "analysis": "embedding_analysis",
                "subject": "model",
                "reason": "no tokenizer beside the checkpoint",
            },
            *(
                {"type": kind, "format": "markdown", "text": f"# Comparison of base and `model`\n\n{kind} | of *all*\n"}
                for kind in ("review", "report")
            ),
            summary(
                "failed",
                2,
                differs_in=["container", "encoding", "names"],
                counts={"changed": 17, "added": 1, "removed": 1, "renamed": 1, "reshaped": 1, "retyped": 1, "error": 1},
            ),
        ]
    )


def _quantization(name: str) -> dict[str, Any]:
    measured = {"compression_ratio": 3.56, "sqnr_db": 20.12, "sqnr_gap_db": -0.31, "relative_l2": 0.0986, "cast": "none"}
    rows = {"worst_row": 417, "worst_row_relative_l2": 0.131, "exceeds_threshold": True}
    bits = {"old_bits_per_weight": 16.0, "new_bits_per_weight": 4.5}
    return finding("quantization", name, scope="tensor", **bits, **measured, **rows)


def _anomaly(
    kind: str, severity: str, name: str, value: float | None, threshold: float | None, count: int | None
) -> dict[str, Any]:
    figures = {"value": value, "threshold": threshold, "count": count, "side": "new"}
    return finding("anomaly", name, scope="tensor", severity=severity, kind=kind, **figures)
