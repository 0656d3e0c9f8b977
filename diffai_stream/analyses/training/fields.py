"""The fields of the training analyses."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict


class MovingLayer(TypedDict):
    """A layer among those that moved most."""

    layer: Annotated[str, "its name"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖; null when only zeros changed"]


class ProgressFields(TypedDict):
    """learning_progress: one record a pair."""

    magnitude: Annotated[float | None, "‖delta‖ / ‖old‖ of the weights"]
    steps: Annotated[int | None, "training steps between the checkpoints; null when not recorded and not in their names"]
    speed: Annotated[float | None, "magnitude a step"]
    fastest_layers: Annotated[list[MovingLayer], "the five layers that moved most, by relative_l2"]
    frozen_ratio: Annotated[float | None, "elements of tensors without any change over all compared, 0..1"]
    frozen_tensor_count: Annotated[int, "tensors without any change"]
    trend: Annotated[
        str | None,
        "of the loss: improving, worsening, flat; of the updates: slowing, accelerating, steady; null with trend_reason",
    ]
    trend_slope: Annotated[float | None, "loss a step by least squares, or the relative change of the speed of the updates"]
    trend_points: Annotated[int | None, "values it was judged by"]
    trend_source: Annotated[str | None, "where these are from"]
    trend_reason: Annotated[str | None, "why there is no trend"]


class ConvergenceFields(TypedDict):
    """convergence_analysis: one record a pair; that of the last one is about the whole trajectory."""

    status: Annotated[str, "converged, converging, oscillating, diverging or undetermined: the first rule that applies"]
    reason: Annotated[str, "that rule, with its figures"]
    update_norms: Annotated[list[float | None], "‖delta‖ of every pair up to this one"]
    update_ratio: Annotated[float | None, "last relative update over the one before, a step where steps are known"]
    direction_cosine: Annotated[float | None, "between the last two updates, from count-sketches; null for the first pair"]
    standard_error: Annotated[float | None, "of direction_cosine"]
    stability: Annotated[float | None, "standard deviation over mean of the last five update norms; null below three"]
    loss_slope: Annotated[float | None, "loss a step over the last fifth of its history"]
    is_loss_plateau: Annotated[bool | None, "whether the loss is flat there: |t| < 2, or a change below 0.1 %"]
    loss_source: Annotated[str | None, "where the loss is from"]
    converged_below: Annotated[float, "relative update that counts as none"]
    action: Annotated[str, "what to do"]


class GradientFields(TypedDict):
    """gradient_analysis: one record a layer."""

    source: Annotated[str, "gradient, adam, momentum, or update (with --learning-rate, where none of these is stored)"]
    element_count: Annotated[int, "elements looked at"]
    old_rms: Annotated[float | None, "root mean square of the gradient or first moment, old"]
    new_rms: Annotated[float | None, "... new; of source update: of the update over learning rate and steps"]
    ratio: Annotated[float | None, "new_rms / old_rms"]
    cosine_similarity: Annotated[float | None, "between the old and the new gradients or first moments"]
    old_signal_to_noise: Annotated[
        float | None, "root of (sum of squared first moments / sum of second), as stored: early in a run above 1, old"
    ]
    new_signal_to_noise: Annotated[float | None, "... new"]
    old_nonfinite_count: Annotated[int | None, "NaN and infinities, old; null where no gradient is stored"]
    new_nonfinite_count: Annotated[int | None, "NaN and infinities, new"]
    learning_rate: NotRequired[Annotated[float, "the learning rate given, of source update"]]
    kind: Annotated[str | None, "exploding or vanishing against the other blocks"]
    ratio_to_median: Annotated[float | None, "new_rms over the median of the repeated blocks; null for fewer than three"]
    threshold: Annotated[float, "ratio_to_median above which it is exploding; below its inverse it is vanishing"]


class GroupRate(TypedDict):
    """The learning rate of a parameter group."""

    group: Annotated[str, "its number; all where one is recorded for all"]
    old: Annotated[float | None, "learning rate, old"]
    new: Annotated[float | None, "learning rate, new"]
    ratio: Annotated[float | None, "new / old"]


class LearningRateFields(TypedDict):
    """learning_rate_analysis: one record a pair."""

    groups: Annotated[list[GroupRate], "learning rates by parameter group"]
    source: Annotated[str, "where they are recorded"]
    pattern: Annotated[
        str | None, "constant, step, linear, exponential, cosine or warmup: the simplest law that fits; null when none does"
    ]
    pattern_residual: Annotated[float | None, "root mean square of what it leaves, over the largest rate"]
    pattern_points: Annotated[int, "rates in the history"]
    pattern_source: Annotated[str | None, "where that is from"]
    warmup_steps: Annotated[int, "step at which a rise at the beginning ends, 0 without one"]
    mean_learning_rate: Annotated[float | None, "mean of the rates logged between old and new, else of theirs"]
    steps: Annotated[int | None, "training steps between the checkpoints"]
    update_per_lr: Annotated[float | None, "‖delta‖ over mean_learning_rate and steps (1 where not known)"]


ChangedSetting = TypedDict(
    "ChangedSetting",
    {
        "name": Annotated[str, "dotted name"],
        "old": Annotated[str | None, "its value as text; null where it was not set"],
        "new": Annotated[str | None, "its value as text; null where it is not set"],
        "class": Annotated[str, "high, medium or low: how much such a setting usually matters"],
        "why": Annotated[str, "the reason for the class"],
        "source": Annotated[str, "file, or the checkpoint itself"],
    },
)


class SettingsFields(TypedDict):
    """hyperparameter_impact: one record a pair."""

    changes: Annotated[list[ChangedSetting], "what changed, by class and name (--top, at most 60)"]
    changed_count: Annotated[int, "settings that changed"]
    high_count: Annotated[int, "... of class high"]
    medium_count: Annotated[int, "... of class medium"]
    low_count: Annotated[int, "... of class low"]
    compared_count: Annotated[int, "settings that either side has"]
    confounded_count: Annotated[int, "changes of class high and medium, when there is more than one: their effects are mixed"]
    relative_l2: Annotated[float | None, "the update measured beside them, ‖delta‖ / ‖old‖ of the weights"]
    statement: Annotated[str, "what may be said: associated, never caused"]
