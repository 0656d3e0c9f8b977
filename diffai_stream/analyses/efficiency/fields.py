"""The fields of param_efficiency_analysis. Ratios of a side that is not there are null."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict


class EfficiencyFields(TypedDict):
    """param_efficiency_analysis: one record a tensor of two or more axes, one for the model."""

    old_nonzero_ratio: Annotated[float | None, "elements that are not 0, old (model: of all tensors)"]
    new_nonzero_ratio: Annotated[float | None, "the same, new"]
    efficiency_ratio: Annotated[float | None, "elements that are not 0, new / old; null when old has none"]
    old_near_zero_ratio: NotRequired[
        Annotated[float | None, "elements below old_near_zero_below, zeros included; null with --fast"]
    ]
    new_near_zero_ratio: NotRequired[Annotated[float | None, "the same, new"]]
    old_near_zero_below: NotRequired[
        Annotated[float | None, "2^-10 of the root mean square, cut to one digit after the binary point"]
    ]
    new_near_zero_below: NotRequired[Annotated[float | None, "the same, new"]]
    old_two_of_four_ratio: Annotated[float | None, "groups of 4 neighbours in a row of which 2 or more are 0, old"]
    new_two_of_four_ratio: Annotated[float | None, "the same, new; 1.0 is what sparse tensor cores need"]
    old_zero_block_ratio: Annotated[float | None, "runs of 32 neighbours in a row that are all 0, old"]
    new_zero_block_ratio: Annotated[float | None, "the same, new"]
    old_effective_bits: NotRequired[Annotated[float | None, "entropy of the codes, old; null for codes above 16 bits"]]
    new_effective_bits: NotRequired[Annotated[float | None, "the same, new"]]
    sparse_above: Annotated[float, "share of zeros above which a tensor or layer is called sparse"]
    is_sparse: NotRequired[Annotated[bool, "whether new (or old where new is not there) is sparse"]]
    old_sparse_layer_count: NotRequired[Annotated[int, "layers of old that are sparse (model record)"]]
    sparse_layer_count: NotRequired[Annotated[int, "layers of new that are sparse (model record)"]]
    dense_layer_count: NotRequired[Annotated[int, "layers of new that are not (model record)"]]
    two_of_four_tensor_count: NotRequired[Annotated[int, "tensors of new of which every group conforms (model record)"]]
