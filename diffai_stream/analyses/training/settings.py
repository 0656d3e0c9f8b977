"""hyperparameter_impact: every setting that changed, how much such a setting usually matters, and the update beside it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from diffai_stream.analyses.base import Finding, Findings, ModelEvidence, Skipped
from diffai_stream.analyses.training.progress import magnitude_of
from diffai_stream.options import Options

MOST_CHANGES = 60  # of a record, whose line must stay short
MOST_TEXT = 80
CLASSES = ("high", "medium", "low")


class Rule(NamedTuple):
    """Settings whose last words match are of a class; `why` is printed."""

    pattern: str
    kind: str
    why: str


PROGRESS = re.compile(
    r"(?:.*\.)?(?:global_step|step|steps|epoch|epochs_trained|iteration|num_updates|_step_count|last_epoch|_last_lr(?:\.\d+)?"
    r"|total_flos|best_\w+|train_loss|val_loss|eval_loss|loss|num_input_tokens_seen|log_history)"
    r"|(?:.*\.)?\w*loss(?:es|_history|_curve)\.\d+"
)
"""What tells how far a run is; it is no setting."""

RULES = (
    Rule(r"(?:peak_|base_|max_|min_|initial_)?(?:lr|learning_rate)s?", "high", "scales every update"),
    Rule(r"optim(?:izer)?(?:_name|_type)?|optimizer\.(?:name|type|class\w*)", "high", "another rule of update"),
    Rule(r"\w*(?:batch_size|gradient_accumulation\w*|accumulate_grad_batches)", "high", "changes the noise of every update"),
    Rule(r"(?:max_|num_|total_)?(?:train_)?(?:steps|epochs)|num_train_epochs|t_max", "high", "how long, and how far it decays"),
    Rule(
        r"(?:hidden|intermediate|d_model|n_embd|vocab|head)_?\w*(?:size|dim)?|num_\w*(?:layers|heads)|n_(?:layer|head)s?",
        "high",
        "another architecture",
    ),
    Rule(r"\w*(?:dataset|data_path|data_dir|train_file|data)\w*", "high", "other data"),
    Rule(r"(?:lora_)?(?:r|rank|alpha|lora_alpha|target_modules\w*)", "high", "what an adapter can express"),
    Rule(r"(?:loss|criterion|objective|label_smoothing\w*|beta|kl_\w+)", "high", "another objective"),
    Rule(r"\w*weight_decay\w*|wd|l2", "medium", "pulls weights towards 0 at every step"),
    Rule(r"\w*(?:scheduler|schedule|decay|gamma|milestones|warmup)\w*|eta_min", "medium", "changes the rate over time"),
    Rule(
        r"betas?(?:\.\d+)?|adam_beta\d|momentum|nesterov|dampening|amsgrad|(?:\w+_)?eps(?:ilon)?",
        "medium",
        "memory of the optimizer",
    ),
    Rule(r"\w*(?:grad_norm|clip\w*)", "medium", "bounds large updates"),
    Rule(r"\w*dropout\w*|\w*(?:noise|augment\w*|mixup|cutmix)\w*", "medium", "regularizes"),
    Rule(
        r"\w*(?:rope_\w+|max_position_embeddings|max_(?:seq|length)\w*|\w*seq_len\w*|sliding_window|block_size)",
        "medium",
        "what positions mean, or how many are seen",
    ),
    Rule(r"(?:torch_)?dtype|fp16|bf16|tf32|precision|half_precision\w*", "medium", "rounding of every operation"),
    Rule(r"(?:data_|manual_)?seed", "medium", "another random order"),
    Rule(r"\w*(?:path|dir|name|names|version|hub|token|url|author|date|time|id)\w*", "low", "names and places"),
    Rule(
        r"\w*(?:log|save|eval|report|print|debug|num_workers|dataloader|worker|device|cuda|local_rank|world_size|push)\w*",
        "low",
        "how a run is watched and fed",
    ),
    Rule(
        r"(?:foreach|fused|capturable|differentiable|maximize|use_cache|compile\w*|verbose|_is_initial|_get_lr\w*)",
        "low",
        "how it is computed",
    ),
)
"""The first that matches the last word of a name, or the whole of it, counts."""
UNKNOWN = Rule("", "medium", "not in the table of known settings")


def rule_of(name: str) -> Rule:
    """The rule for a dotted name."""
    words = name.lower().split(".")
    last = ".".join(words[-2:]) if words[-1].isdigit() and len(words) > 1 else words[-1]
    return next(
        (rule for rule in RULES if re.fullmatch(rule.pattern, last) or re.fullmatch(rule.pattern, name.lower())), UNKNOWN
    )


def model(evidence: ModelEvidence, options: Options) -> Findings:
    """One record; nothing in it says that a setting caused the update."""
    old, new = (context.hyperparameters for context in evidence.run.configurations)
    if not old or not new:
        missing = "neither checkpoint has" if not old and not new else f"the {'old' if not old else 'new'} checkpoint has not"
        yield Skipped("model", f"{missing} any settings: no config.json, training_args.bin, hparams.yaml, none of its own")
        return
    changes = [
        _change(name, old.get(name), new.get(name))
        for name in dict.fromkeys((*old, *new))
        if not PROGRESS.fullmatch(name)
        and (old[name].value if name in old else None) != (new[name].value if name in new else None)
    ]
    changes.sort(key=lambda change: (CLASSES.index(change["class"]), change["name"]))
    counts = {kind: sum(change["class"] == kind for change in changes) for kind in CLASSES}
    weighty = counts["high"] + counts["medium"]
    shown = MOST_CHANGES if not options.top else min(options.top, MOST_CHANGES)
    magnitude = magnitude_of(evidence)
    fields: dict[str, Any] = {
        "changes": changes[:shown],
        "changed_count": len(changes),
        **{f"{kind}_count": count for kind, count in counts.items()},
        "compared_count": len({**old, **new}),
        "confounded_count": weighty if weighty > 1 else 0,
        "relative_l2": magnitude,
        "statement": _statement(weighty, magnitude),
    }
    yield Finding("model", "model", "derived", fields)


def _change(name: str, old: Any, new: Any) -> dict[str, Any]:
    rule = rule_of(name)
    told = [str(side.value)[:MOST_TEXT] if side is not None else None for side in (old, new)]
    source = (new or old).source
    return {"name": name[:MOST_TEXT], "old": told[0], "new": told[1], "class": rule.kind, "why": rule.why, "source": source}


def _statement(weighty: int, magnitude: float | None) -> str:
    update = "an update that cannot be told as a ratio" if magnitude is None else f"an update of relative l2 {magnitude:.3g}"
    if not weighty:
        return f"no setting that usually matters changed; {update}"
    if weighty == 1:
        return f"one change is associated with {update}"
    return f"{weighty} changes at once are associated with {update}: none of them can be told from the others"
