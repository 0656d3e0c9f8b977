"""Training checkpoints sorted: which leaves are the weights, an average of them, optimizer state, gradients.

What a program saves beside its weights follows no standard; the keys are those of common trainers. Levels that only wrap the
weights are taken off, so that a checkpoint and an export of it have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from diffai_stream.formats.pickled.tree import Leaf, Path

WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
EMA = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema_state", "model_ema_state_dict")
_LAST = ("generator",)
OPTIMIZER = (
    "optimizer",
    "optimizers",
    "optimizer_states",
    "optimizer_state_dict",
    "optimizer_state",
    "optim",
    "opt",
    "opt_state",
)
GRADIENT = ("grad", "grads", "gradient", "gradients")
_STATE = {
    *("lr_scheduler", "lr_schedulers", "scheduler", "schedulers", "scheduler_state_dict", "lr_scheduler_state_dict", "scaler"),
    *(
        "grad_scaler",
        "amp",
        "callbacks",
        "loops",
        "rng_state",
        "rng_states",
        "random_state",
        "cuda_rng_state",
        "torch_rng_state",
    ),
    *("cuda_rng_state_all", "random_rng_state", "sampler", "dataloader", "dataloaders", "train_state", "train_metrics"),
    *("hyper_parameters", "datamodule_hyper_parameters", "args", "config", "cfg", "hparams", "train_args", "extra_state"),
}
_EMA_PREFIX = "model_ema."


class Sorted(NamedTuple):
    """A leaf with the name it goes by and the kind of state it is: weights, ema, optimizer or gradient."""

    name: str
    value: Any
    part: str


def sort_leaves(leaves: Iterable[Leaf]) -> list[Sorted]:
    """All leaves by name and part, the weights first, else in their order."""
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.path[0] if leaf.path else "", []).append(leaf)
    main = _main(groups)
    found: list[Sorted] = []
    for key, group in groups.items():
        found += _weights(group, key) if key == main else _others(key, group, main is not None)
    order = {"weights": 0, "ema": 1, "gradient": 2, "optimizer": 3}
    return sorted(found, key=lambda leaf: order[leaf.part])


def _main(groups: dict[str, list[Leaf]]) -> str | None:
    """The key whose value is the state dict, None when the tensors are at the top."""
    nested = {key for key, group in groups.items() if all(len(leaf.path) > 1 for leaf in group)}
    return next((key for key in (*WEIGHTS, *EMA, *_LAST) if key in nested), None)


def _weights(group: Sequence[Leaf], key: str) -> list[Sorted]:
    inner = unwrapped([leaf._replace(path=leaf.path[1:]) for leaf in group])
    return [Sorted(dotted(leaf.path), leaf.value, part_within(leaf.path)) for leaf in inner]


def part_within(path: Path) -> str:
    """The part of a name within a state dict: some keep an average or gradients among the weights."""
    if path[0].startswith(_EMA_PREFIX):
        return "ema"
    return "gradient" if path[-1].endswith(".grad") or (path[-1] == "grad" and len(path) > 1) else "weights"


def unwrapped(leaves: list[Leaf]) -> list[Leaf]:
    """The leaves without the levels that all of them share and that only wrap."""
    while leaves and all(len(leaf.path) > 1 and leaf.path[0] == leaves[0].path[0] for leaf in leaves):
        if leaves[0].path[0] not in WEIGHTS:
            break
        leaves = [leaf._replace(path=leaf.path[1:]) for leaf in leaves]
    return leaves


def _others(key: str, group: list[Leaf], has_main: bool) -> list[Sorted]:
    """Leaves of a key that does not hold the weights; without such a key in the checkpoint they are weights themselves."""
    if key in EMA and has_main:
        inner = unwrapped([leaf._replace(path=leaf.path[1:]) for leaf in group])
        return [Sorted(dotted(("ema", *leaf.path)), leaf.value, "ema") for leaf in inner]
    if key in OPTIMIZER and any(len(leaf.path) > 1 for leaf in group):
        return [Sorted(dotted(leaf.path), leaf.value, "optimizer") for leaf in group]
    if key in GRADIENT and any(len(leaf.path) > 1 for leaf in group):
        inner = unwrapped([leaf._replace(path=leaf.path[1:]) for leaf in group])
        return [Sorted(f"{dotted(leaf.path)}.grad", leaf.value, "gradient") for leaf in inner]
    if has_main and (key in _STATE or all(_is_scalar(leaf.value) for leaf in group)):
        return [Sorted(dotted(leaf.path), leaf.value, "optimizer") for leaf in group]
    return [Sorted(dotted(leaf.path) or "tensor", leaf.value, part_within(leaf.path or ("tensor",))) for leaf in group]


def _is_scalar(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and all(size == 1 for size in shape)


def dotted(path: Path) -> str:
    """The components joined by dots."""
    return ".".join(path)
