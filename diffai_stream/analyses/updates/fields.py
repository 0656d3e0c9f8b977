"""The fields of spectrum and merge_analysis; records of tensors and of the model share most of them."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict


class RankEnergy(TypedDict):
    """What an adapter of a rank could hold."""

    rank: Annotated[int, "directions kept"]
    energy_ratio: Annotated[float, "their part of Σdelta², 0..1"]


class SpectrumFields(TypedDict):
    """spectrum: one record a matrix that changed, one for the model."""

    delta_l2_norm: Annotated[float | None, "‖delta‖ of the matrix, or of all of them; null when beyond float64"]
    stable_rank: Annotated[float | None, "‖delta‖² over its largest squared singular value (model: median of the matrices)"]
    effective_rank: Annotated[float | None, "(Σσ²)² / Σσ⁴ over all singular values, estimated (model: median)"]
    energy_rank: NotRequired[Annotated[int | None, "directions that hold energy_share of Σdelta²; null above rank_limit"]]
    energy_share: Annotated[float, "that share, also what an adapter must hold to be called enough"]
    rank_limit: Annotated[int, "directions of the sketch"]
    captured_ratio: Annotated[float | None, "part of Σdelta² that these directions hold, 0..1"]
    rank_energies: Annotated[list[RankEnergy], "what an adapter of each usual rank could hold, from below"]
    lora_rank: Annotated[int | None, "least of these ranks that holds energy_share; null when none does"]
    lora_parameter_ratio: NotRequired[Annotated[float | None, "parameters of such an adapter over those of the matrix"]]
    singular_values: NotRequired[Annotated[list[float], "the largest of delta, at most eight; never above the true ones"]]
    matrix_count: NotRequired[Annotated[int, "matrices that changed (model record)"]]
    lora_matrix_count: NotRequired[Annotated[int, "of these, how many have a lora_rank (model record)"]]
    operation_count: NotRequired[Annotated[int, "arithmetic operations that the sketches took (model record)"]]


class MergeFields(TypedDict):
    """merge_analysis: one record a tensor that either side changed, one for the model. Task vectors are side - base."""

    base: Annotated[str, "the base checkpoint, as given"]
    old_relative_l2: Annotated[float | None, "‖old - base‖ / ‖base‖; null when ‖base‖ is 0"]
    new_relative_l2: Annotated[float | None, "‖new - base‖ / ‖base‖"]
    cosine_similarity: Annotated[float | None, "between both task vectors; null when either is 0"]
    old_density: Annotated[float | None, "elements that old changed over all, 0..1"]
    new_density: Annotated[float | None, "elements that new changed over all"]
    old_effective_density: Annotated[float | None, "(Σ|x|)² / (n Σx²) of the old task vector: what DARE may drop is the rest"]
    new_effective_density: Annotated[float | None, "the same, new"]
    overlap_ratio: Annotated[float | None, "elements that both changed over all"]
    sign_conflict_ratio: Annotated[float | None, "of the elements that both changed, those with opposite signs"]
    weighted_conflict_ratio: Annotated[float | None, "Σ|old·new| of these over that of all: conflicts by their weight"]
    trimmed_conflict_ratio: Annotated[float | None, "conflicts where both are among the largest fifth of a leaf, as TIES trims"]
    trimmed_count: Annotated[int, "elements where both are"]
    compared_count: Annotated[int, "elements that are finite in all three"]
    tensor_count: NotRequired[Annotated[int, "tensors compared with the base (model record)"]]
    unmatched_count: NotRequired[Annotated[int, "tensors that the base has not in this shape and layout (model record)"]]
    base_read_nbytes: NotRequired[Annotated[int, "bytes of the base that were read besides (model record)"]]
