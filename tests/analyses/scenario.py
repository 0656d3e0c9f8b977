"""A training run with something for every analysis to tell, from a seed: other seeds are other models of other sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors, write_sharded
from tests.models import cast, llama, tuned

Model = dict[str, Any]
Records = list[dict[str, Any]]
CAST = "model.layers.1.mlp.down_proj.weight"
CODES = "model.layers.2.mlp.down_proj.weight"
SPARSE = "model.layers.0.mlp.up_proj.weight"
BROKEN = "model.layers.2.mlp.gate_proj.weight"
UNCHANGED = "extra.unchanged.weight"


@dataclass(frozen=True)
class Sizes:
    """What two scenarios differ in beside their numbers."""

    seed: int

    @property
    def layers(self) -> int:
        return 5 + 2 * self.seed

    @property
    def width(self) -> int:
        return 64 + 32 * self.seed

    @property
    def heads(self) -> int:
        return 4 - 2 * self.seed

    @property
    def rate(self) -> float:
        return 1e-3 * (1 + self.seed)


def states(sizes: Sizes, scale: float = 1.0) -> list[Model]:
    """The base and four checkpoints in float32, scaled by a power of two."""
    base = llama(sizes.layers, sizes.width, sizes.seed)
    found = [base]
    for number in range(4):
        step = tuned(found[-1], 0.02 * (1 + sizes.seed) / (number + 1), 10 * sizes.seed + number)
        frozen = f"model.layers.{sizes.seed}."  # and one matrix of the frozen block is touched after all
        touched = ("q_proj", "k_proj")[: 1 + sizes.seed]
        kept = {name for name in step if name.startswith(frozen) and not any(part in name for part in touched)}
        found.append({name: found[-1][name] if name in kept else values for name, values in step.items()})
    last = found[-1]
    last[SPARSE] = np.where(np.arange(last[SPARSE].shape[1]) % 4 < 2 - sizes.seed, 0, last[SPARSE]).astype(np.float32)
    last[BROKEN] = last[BROKEN].copy()
    last[BROKEN][: 3 + sizes.seed] = 0
    embedding = found[2]["model.embed_tokens.weight"]
    order = np.random.default_rng(sizes.seed).permutation(len(embedding))
    last["model.embed_tokens.weight"] = np.where((order % (7 - sizes.seed) == 0)[:, None], embedding[order], embedding)
    return [{name: (scale * values).astype(np.float32) for name, values in state.items()} for state in found]


def stored(model: Model, sizes: Sizes) -> Model:
    """The model as the last checkpoint stores it: a matrix rounded, one as codes without scales."""
    scale = 127 / float(np.abs(model[CODES]).max())
    codes = np.rint(model[CODES] * scale)
    return model | {CAST: cast(model[CAST], ("BF16", "F16")[sizes.seed]), CODES: cast(codes, "I8")}


def save(folder: Path, model: Model, sizes: Sizes, step: int, order: str = "", extra: bool = False) -> Path:
    """A checkpoint with everything that lies beside one; `order`: reversed or shards."""
    model = dict(model)
    if extra:
        model[UNCHANGED] = np.random.default_rng(99).normal(0, 0.05, (24, 40)).astype(np.float32)
    names = list(model)
    folder.mkdir(parents=True, exist_ok=True)
    if order == "shards":
        write_sharded(folder, {f"model-{n}.safetensors": {name: model[name] for name in names[n::3]} for n in range(3)})
    else:
        write_safetensors(folder / "model.safetensors", {n: model[n] for n in (names[::-1] if order else names)})
    config = {"model_type": "llama", "hidden_size": sizes.width, "num_attention_heads": sizes.heads}
    config |= {"num_key_value_heads": sizes.heads, "learning_rate": sizes.rate / step, "dropout": step / 1e4, "seed": step}
    rates = [sizes.rate * (1 + np.cos(np.pi * s / (700 + 100 * sizes.seed))) for s in range(10, step + 1, 10)]
    rates[: 3 * sizes.seed] = [sizes.rate * n / 3 for n in range(3)][: len(rates)] if sizes.seed else []
    log = [
        {"step": 10 * (n + 1), "loss": 3 - (n + 1) * (1 + sizes.seed) / 300, "learning_rate": r} for n, r in enumerate(rates)
    ]
    state = {"global_step": step, "log_history": log}
    rows = model["model.embed_tokens.weight"].shape[0]
    vocabulary = {f"token{sizes.seed}-{n}": n for n in range(rows)}
    for name, content in (("config", config), ("trainer_state", state), ("vocab", vocabulary)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def checkpoints(folder: Path, sizes: Sizes, scale: float = 1.0, **how: Any) -> list[Path]:
    """The base and the checkpoints of steps that depend on the seed."""
    models = states(sizes, scale)
    models[-1] = stored(models[-1], sizes)
    for layer in range(1 + sizes.seed):
        del models[0][f"model.layers.{layer}.input_layernorm.weight"]
    steps = [0, *(100 * (n + 1 + sizes.seed * n) for n in range(4))]
    return [
        save(folder / ("base" if not n else f"run-{step}"), model, sizes, max(step, 1), **how)
        for n, (model, step) in enumerate(zip(models, steps, strict=True))
    ]


def run(base: Path, *paths: Path, **options: Any) -> Records:
    """The records of every analysis over these checkpoints."""
    told = {"stats": True, "top": 0, "memory_bandwidth": 1e12, "peak_flops": 1e14, "max_size": 1 << 20, "min_sqnr": 30.0}
    told |= {"expect_unchanged": ("*.layers.1*",), "tolerance_per_layer": (("lm_head", 1e-4),)}
    names = tuple(ANALYSES)
    return list(compare(*map(str, paths), analyses=names, merge_base=str(base), **(told | options)))


def damaged(folder: Path, sizes: Sizes) -> tuple[Path, Path]:
    """Two checkpoints with what a healthy run has not: broken numbers, other shapes, pruned heads, experts, zeros."""
    number = 1 + sizes.seed
    old = llama(sizes.layers, sizes.width, 20 + sizes.seed)
    new = dict(tuned(llama(sizes.layers + 2 * number, sizes.width, 20 + sizes.seed), 0.01, 21))
    table = old["model.embed_tokens.weight"]
    new["model.embed_tokens.weight"] = np.concatenate([new["model.embed_tokens.weight"], table[: 8 * number]])
    new["lm_head.weight"] = 1.01 * old["lm_head.weight"][: -4 * number]
    new["lm_head.weight"][-number:] = 0
    for layer, side in ((3, old), (4, new)):
        values = side[f"model.layers.{layer}.mlp.up_proj.weight"]
        values.reshape(-1)[: 3 * number : 3] = np.nan
        values.reshape(-1)[1 : 6 * number : 3] = np.inf
        values.reshape(-1)[2 : 9 * number : 3] = -np.inf
        for place in range(number):  # sparse layers, more of them in the larger model
            for name in [name for name in side if f".layers.{place + layer - 3}." in name and side[name].ndim == 2]:
                side[name][np.random.default_rng(layer).random(side[name].shape) < 0.7] = 0
                side[name][:, 32 * place : 32 * (place + number)] = 0
        side["model.layers.2.self_attn.o_proj.weight"][:, -(sizes.width // sizes.heads) :] *= np.float32(1e-4)
    new[f"model.layers.{number}.self_attn.v_proj.weight"] = tuned(
        {"shifted": old[f"model.layers.{number - 1}.self_attn.v_proj.weight"]}, 0.1 * number
    )["shifted"]
    for side in (old, new):
        side[f"model.layers.1.self_attn.{'qk'[sizes.seed]}_proj.bias"] = np.full(sizes.width, 0.01 * number, np.float32)
    del new["model.norm.weight"], new["model.layers.1.input_layernorm.weight"]
    new |= {f"model.added.{n}.weight": old["model.norm.weight"] for n in range(number)}
    for part in ("down", "gate")[:number]:
        new[f"model.layers.3.mlp.{part}_proj.weight"] = new[f"model.layers.3.mlp.{part}_proj.weight"][: -2 * number]
    paths = []
    for name, model, step in (("a", old, 50), ("b", new, 80)):
        path = save(folder / f"damaged-{name}", model, sizes, step)
        config = json.loads((path / "config.json").read_text())
        experts = {"num_local_experts": 4 * number + step, "num_experts_per_tok": number, "weight_decay": number / step}
        paths.append(path)
        extra = {f"logging_steps_{n}": step for n in range(number)} | {f"max_grad_norm_{n}": step for n in range(number)}
        rates = {"eta_learning_rate": 1, **{f"{prefix}_learning_rate": step for prefix in ("max", "min")[: sizes.seed]}}
        (path / "config.json").write_text(json.dumps(config | experts | extra | rates))
    return paths[0], paths[1]


def low_rank(folder: Path, sizes: Sizes) -> tuple[Path, Path]:
    """A checkpoint and the same with an adapter merged, whose rank depends on the seed; a shard of both is one file."""
    random, rank = np.random.default_rng(sizes.seed), 3 + 4 * sizes.seed
    old = llama(3, 128 + 16 * sizes.seed, 30 + sizes.seed)
    shared = {"lm_head.weight", *(f"model.layers.{n}.input_layernorm.weight" for n in range(1 + sizes.seed))}
    shared |= {"model.norm.weight", *(f"model.layers.{n}.post_attention_layernorm.weight" for n in range(2 * sizes.seed))}
    new = dict(old)
    for name in [name for name in old if "_proj" in name]:
        update = random.normal(size=(old[name].shape[0], rank)) @ random.normal(size=(rank, old[name].shape[1]))
        new[name] = (old[name] + 0.001 * update).astype(np.float32)
    folders = folder / "lora-a", folder / "lora-b"
    for place, model in zip(folders, (old, new), strict=True):
        shards = {"own.safetensors": {n: v for n, v in model.items() if n not in shared}}
        write_sharded(place, shards | {"shared.safetensors": {n: model[n] for n in shared}})
    (folders[1] / "shared.safetensors").unlink()
    (folders[1] / "shared.safetensors").hardlink_to(folders[0] / "shared.safetensors")
    return folders


def trained(folder: Path, sizes: Sizes) -> tuple[Path, Path]:
    """Two checkpoints of a few linear layers with the state of Adam."""
    import torch

    torch.manual_seed(sizes.seed)
    width = 6 + 3 * sizes.seed
    network = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(4 + sizes.seed))
    optimizer = torch.optim.Adam(network.parameters(), lr=sizes.rate)
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(1, 9):
        x = torch.randn(5, width)
        for layer in network:
            x = layer(x)
        optimizer.zero_grad()
        x.square().mean().backward()
        optimizer.step()
        if step in (3, 8):
            state = deepcopy(optimizer.state_dict())
            state["state"][0]["exp_avg"][0, : step - 2 + sizes.seed] = float("nan")
            torch.save({"model": network.state_dict(), "optimizer": state, "step": step}, folder / f"adam-{step}.pt")
    return folder / "adam-3.pt", folder / "adam-8.pt"


def quantized(folder: Path, sizes: Sizes) -> tuple[Path, Path]:
    """Weights and the same with a scale for each row of integers (compressed-tensors), and as float8 beyond its range."""
    random, scheme = np.random.default_rng(sizes.seed), {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    values = (random.normal(size=(64, 96 + 32 * sizes.seed)) * np.exp(random.normal(size=(64, 1)))).astype(np.float32)
    wide = (values * 200).astype(np.float32)
    scale = np.abs(values).max(1, keepdims=True) / 127
    codes = np.rint(values / scale).astype(np.int8)
    scale[: 1 + sizes.seed], scale[4 : 6 - 2 * sizes.seed] = np.inf, 0
    group = {"format": "int-quantized", "weights": scheme, "targets": ["Linear"]}
    narrow = np.clip(wide, -448, 448) * (np.abs(wide) > 1)
    old = {"a.weight": values, "b.weight": wide, "c.weight": 1e7 * sizes.rate * values.astype(np.float64)}
    old |= {f"more.{n}.weight": values.astype(np.float64) for n in range(sizes.seed)}
    tensors = {"a.weight": codes, "a.weight_scale": scale.astype(np.float32), "b.weight": cast(narrow, "F8_E4M3")}
    tensors |= {"c.weight": cast(1e7 * sizes.rate * values, "F8_E5M2")}
    tensors |= {f"more.{n}.weight": cast(values, "F16") for n in range(sizes.seed)}
    a = write_safetensors(folder / "plain" / "model.safetensors", old)
    b = write_safetensors(folder / "codes" / "model.safetensors", tensors)
    method = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}}
    (b.parent / "config.json").write_text(json.dumps({"quantization_config": method}))
    return a.parent, b.parent


def everything(folder: Path, sizes: Sizes) -> Records:
    """The findings of every analysis over everything that a seed has."""
    base, *run_paths = checkpoints(folder, sizes)
    found = findings(run(base, *run_paths, learning_rate=sizes.rate))
    coded, options = quantized(folder, sizes), {"stats": True, "top": 0, "tolerance": 0.001 * (1 + sizes.seed)}
    for pair in (damaged(folder, sizes), low_rank(folder, sizes), trained(folder, sizes), coded, coded[::-1]):
        found += findings(compare(*map(str, pair), analyses=tuple(ANALYSES), **options))
    healthy = compare(*map(str, low_rank(folder / "again", sizes)), analyses=("deployment_readiness",), stats=True)
    return found + findings(healthy)


def findings(records: Iterable[Mapping[str, Any]]) -> Records:
    """The findings and what was skipped."""
    return [dict(r) for r in records if r["type"] in ANALYSES or r["type"] == "skipped"]


def flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """(path, scalar) of everything in a record; places in lists are left out of the path."""
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in flat(item, f"{path}.{key}" if path else key)]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in flat(item, f"{path}[]")]
    return [(path, value)]
