"""The fields of each analysis' records: types and one-line descriptions, from which schema and reference are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict


class RoleImpact(TypedDict):
    """The change of one role within a layer."""

    role: Annotated[str, "role of the tensors, e.g. attention.q_proj"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖ over the tensors of this role; null when ‖old‖ is 0"]


class LayerRank(TypedDict):
    """A layer in the ranking."""

    layer: Annotated[str, "name of the layer"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖ of the layer; null when ‖old‖ is 0"]
    energy_ratio: Annotated[float | None, "Σdelta² of the layer over Σdelta² of the model; null when nothing changed"]


class LayerImpactFields(TypedDict):
    """layer_impact: one record a layer, one for the model at the end."""

    relative_l2: NotRequired[Annotated[float | None, "‖delta‖ / ‖old‖ of the layer; null when ‖old‖ is 0"]]
    delta_l2_norm: NotRequired[Annotated[float | None, "‖delta‖ of the layer; null when beyond float64"]]
    changed_ratio: NotRequired[Annotated[float | None, "changed elements over elements compared; null when none were"]]
    element_count: NotRequired[Annotated[int, "elements of the layer, the larger side where they differ"]]
    unread_count: NotRequired[Annotated[int, "tensors known to be identical without reading, which these figures leave out"]]
    roles: NotRequired[Annotated[list[RoleImpact], "the change by role, in name order"]]
    stats: NotRequired[Annotated[dict[str, Any], "old, new, delta: merged figures, with quantiles from 1,024 keys"]]
    ranking: NotRequired[Annotated[list[LayerRank], "layers by relative_l2, largest first (model record, --top)"]]


class DistributionShiftFields(TypedDict):
    """distribution_shift: one record a tensor that is on both sides and did not stay as it was."""

    mean_change: Annotated[float, "mean of new less that of old"]
    std_ratio: Annotated[float | None, "std of new / old; null when that of old is 0"]
    norm_ratio: Annotated[float | None, "l2_norm of new / old; null when that of old is 0"]
    ks: Annotated[float | None, "Kolmogorov-Smirnov distance; null without histograms"]
    js_distance: Annotated[float | None, "Jensen-Shannon distance (base 2); null without histograms"]
    wasserstein: Annotated[float | None, "Wasserstein distance of order 1, in units of the weights; null where keys are coarse"]
    keys: Annotated[
        Literal["patterns", "coarse"] | None,
        "whose counts are compared: of all patterns, or of 1,024 coarse keys, as below 2^22 elements; null without histograms",
    ]


class WorstTensor(TypedDict):
    """A tensor in the ranking of quantization damage."""

    name: Annotated[str, "name of the tensor"]
    sqnr_db: Annotated[float | None, "its signal to quantization noise ratio, dB"]
    relative_l2: Annotated[float | None, "its ‖delta‖ / ‖old‖"]


class QuantizationFields(TypedDict):
    """quantization: one record a tensor whose encoding differs, one for the model."""

    old_bits_per_weight: NotRequired[Annotated[float | None, "stored bits per element, scales included"]]
    new_bits_per_weight: NotRequired[Annotated[float | None, "stored bits per element, scales included"]]
    compression_ratio: NotRequired[Annotated[float | None, "stored bytes old / new"]]
    sqnr_db: NotRequired[Annotated[float | None, "10 log10(Σold² / Σdelta²), dB; null when either sum is 0"]]
    sqnr_scale_invariant_db: NotRequired[
        Annotated[float | None, "sqnr_db after the best factor for each column; null unless columns may be rescaled (AWQ, ...)"]
    ]
    sqnr_gap_db: NotRequired[
        Annotated[float | None, "sqnr_db less that of rounding normal weights to the coarser side; null if unknown"]
    ]
    relative_l2: NotRequired[Annotated[float | None, "‖delta‖ / ‖old‖, after the fitted scale where there is one"]]
    expected_relative_l2: NotRequired[
        Annotated[float | None, "what rounding normal weights to the coarser side costs, and 3 dB; null if unknown"]
    ]
    max_abs: NotRequired[Annotated[float | None, "greatest |delta| as stored, before any fitted scale"]]
    cosine_similarity: NotRequired[Annotated[float | None, "cosine between old and new as stored"]]
    saturation_ratio: NotRequired[
        Annotated[float | None, "new codes at the limits of their encoding over all; null if uncounted"]
    ]
    smallest_scale: NotRequired[Annotated[float | None, "smallest magnitude of the recorded scales; null if there are none"]]
    largest_scale: NotRequired[Annotated[float | None, "largest magnitude of the recorded scales; null if there are none"]]
    nonfinite_scales: NotRequired[Annotated[int | None, "recorded scales (and biases) that are NaN or infinite"]]
    zero_scales: NotRequired[Annotated[int | None, "recorded scales that are 0"]]
    range_ratio: NotRequired[Annotated[float | None, "abs_max new / abs_max old"]]
    code_entropy_bits: NotRequired[Annotated[float | None, "Shannon entropy of the new codes, bits; null if uncounted"]]
    worst_row: NotRequired[Annotated[int | None, "row (all axes but the last) with the greatest relative_l2"]]
    worst_row_relative_l2: NotRequired[Annotated[float | None, "its ‖delta‖ / ‖old‖"]]
    cast: NotRequired[
        Annotated[Literal["exact", "rne", "truncated", "none"] | None, "how new follows from old; null if unknown"]
    ]
    old_is_bf16: NotRequired[Annotated[bool | None, "old is float32 but holds bfloat16 values only; null if not float32"]]
    new_is_bf16: NotRequired[Annotated[bool | None, "the same of new"]]
    overflow_count: NotRequired[Annotated[int | None, "finite values that became infinite or NaN; null unless new is narrower"]]
    saturated_count: NotRequired[Annotated[int | None, "old values beyond the largest that became the largest"]]
    flushed_count: NotRequired[Annotated[int | None, "old values that became 0 and do not round to it"]]
    subnormal_count: NotRequired[Annotated[int | None, "new values below the smallest normal one"]]
    exceeds_threshold: NotRequired[Annotated[bool, "relative_l2 above the threshold"]]
    threshold: NotRequired[
        Annotated[float | None, "--precision-loss-threshold, else 0.01, or expected_relative_l2 with --quantization-aware"]
    ]
    scale_source: NotRequired[Annotated[Literal["recorded", "fitted_row", "none"], "where the scale of integer codes is from"]]
    tensor_count: NotRequired[Annotated[int, "tensors whose encoding differs (model record)"]]
    exceeding_count: NotRequired[Annotated[int, "of these, how many exceed the threshold (model record)"]]
    worst: NotRequired[Annotated[list[WorstTensor], "tensors by relative_l2, largest first (model record, --top)"]]


class AnomalyFields(TypedDict):
    """anomaly: one record an anomaly."""

    kind: Annotated[str, "what is odd, e.g. nonfinite, exploding, dead_rows"]
    side: Annotated[Literal["old", "new", "both"] | None, "the side it was found on; null when it is about the change"]
    value: Annotated[float | None, "the figure that was judged; null when it is a count only"]
    threshold: Annotated[float | None, "the limit it crossed"]
    count: Annotated[int | None, "how many elements, rows or tensors; null where that has no meaning"]
    detail: Annotated[str | None, "what the figure means, or the other tensor"]
