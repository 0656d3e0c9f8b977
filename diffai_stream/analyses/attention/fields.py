"""The fields of the attention analyses. Lists of heads keep --top of them; --histograms keeps all."""

from __future__ import annotations

from typing import Annotated, TypedDict


class ProjectionMove(TypedDict):
    """One projection of an attention."""

    projection: Annotated[str, "q, k, v or o"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖; null when ‖old‖ is 0"]
    cosine_similarity: Annotated[float | None, "of old and new; null when either is 0"]


class HeadMove(TypedDict):
    """One head of one projection."""

    projection: Annotated[str, "q, k, v or o"]
    head: Annotated[int, "number of the head; of k and v that of the key and value head"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖ of its rows (of o: columns); null when ‖old‖ is 0"]
    cosine_similarity: Annotated[float | None, "of old and new; null when either is 0"]


class FocusShift(TypedDict):
    """How concentrated a head's form W_Qᵀ W_K is."""

    head: Annotated[int, "number of the head"]
    old_share: Annotated[float | None, "share of the largest squared singular value in ‖W_Qᵀ W_K‖_F², old; null when it is 0"]
    new_share: Annotated[float | None, "the same, new"]
    shift: Annotated[float | None, "new - old: above 0 the head looks for fewer things"]


class AttentionFields(TypedDict):
    """attention_analysis: one record an attention of a layer."""

    attention: Annotated[str, "self, cross or context"]
    head_count: Annotated[int, "attention heads"]
    kv_head_count: Annotated[int, "key and value heads; fewer than attention heads when these share them"]
    head_dim: Annotated[int, "rows of a head"]
    heads_from: Annotated[str, "what tells the heads: config.json, metadata or shapes"]
    projections: Annotated[list[ProjectionMove], "those compared"]
    moved_heads: Annotated[list[HeadMove], "by relative_l2, largest first; unchanged ones are left out (--top)"]
    unchanged_head_count: Annotated[int, "heads of all projections without any change"]
    mean_focus_shift: Annotated[float | None, "mean of |shift| over heads; null unless q and k are compared"]
    focus_shifts: Annotated[list[FocusShift], "by |shift|, largest first (--top)"]


class HeadWeight(TypedDict):
    """What one head can do, on both sides."""

    head: Annotated[int, "number of the head"]
    kv_head: Annotated[int, "the key and value head it uses"]
    old_qk_norm: Annotated[float, "‖W_Qᵀ W_K‖_F, old: how strongly it can choose"]
    new_qk_norm: Annotated[float, "the same, new"]
    old_ov_norm: Annotated[float, "‖W_O W_V‖_F, old: how much it can write"]
    new_ov_norm: Annotated[float, "the same, new"]
    old_share: Annotated[float | None, "its part in the layer's sum of √(qk_norm · ov_norm), old; null when that is 0"]
    new_share: Annotated[float | None, "the same, new"]
    share_change: Annotated[float | None, "new_share - old_share"]
    old_rank: Annotated[int, "1 is the largest share, old"]
    new_rank: Annotated[int, "1 is the largest share, new"]
    prunable: Annotated[bool, "whether its new √(qk_norm · ov_norm) is below `prunable_below` of the layer's median"]


class ImportanceFields(TypedDict):
    """head_importance: one record an attention of a layer."""

    attention: Annotated[str, "self, cross or context"]
    head_count: Annotated[int, "attention heads"]
    kv_head_count: Annotated[int, "key and value heads"]
    heads_from: Annotated[str, "what tells the heads: config.json, metadata or shapes"]
    heads: Annotated[list[HeadWeight], "by new_rank (--top: the first and last ones)"]
    prunable_heads: Annotated[list[int], "new heads that could be pruned"]
    old_prunable_count: Annotated[int, "old heads that could be pruned"]
    prunable_below: Annotated[float, "that share of the median"]
    rank_correlation: Annotated[float | None, "Spearman's, of old and new importance; null for fewer than 2 different heads"]


class DistanceCosine(TypedDict):
    """The forms of a layer at one distance."""

    distance: Annotated[int, "places from the key to the query"]
    mean_cosine: Annotated[float | None, "mean over heads of the cosine of old and new forms; null when all are 0"]
    min_cosine: Annotated[float | None, "the least of them"]


class HeadPattern(TypedDict):
    """The form of one head."""

    head: Annotated[int, "number of the head"]
    kv_head: Annotated[int, "the key and value head it uses"]
    cosine: Annotated[float | None, "cosine of W_Qᵀ W_K, old and new, at distance 0; null when either is 0"]
    mean_cosine: Annotated[float | None, "mean over the distances; null without a rotary embedding"]


class PatternFields(TypedDict):
    """attention_pattern_diff: one record an attention of a layer."""

    attention: Annotated[str, "self, cross or context"]
    head_count: Annotated[int, "attention heads"]
    kv_head_count: Annotated[int, "key and value heads"]
    heads_from: Annotated[str, "what tells the heads: config.json, metadata or shapes"]
    distance: Annotated[int, "of `cosine`: 0"]
    cosine: Annotated[float | None, "mean over heads of the cosine at distance 0"]
    mean_cosine: Annotated[float | None, "mean over heads and distances; null without a rotary embedding"]
    distances: Annotated[list[DistanceCosine], "distance by distance, 0 first"]
    heads: Annotated[list[HeadPattern], "by mean_cosine, else cosine, smallest first (--top)"]
    rotary: Annotated[str, "the rotation used, or why there is none"]
    left_out: Annotated[list[str], "what the forms do not hold although the layer has it: biases, norms of q and k"]
