"""The rows of attention."""

from __future__ import annotations

from diffai_stream.analyses.attention.fields import AttentionFields, ImportanceFields, PatternFields
from diffai_stream.analyses.base import Analysis

_HERE = "diffai_stream.analyses.attention"

ROWS = (
    Analysis(
        name="attention_analysis",
        flag="--attention-analysis",
        title="how far queries, keys, values and outputs moved, and which heads moved most",
        family="attention",
        scopes=("layer",),
        basis="measured",
        module=f"{_HERE}.movement",
        fields=AttentionFields,
        needs=("row_sums", "column_sums", "head_grams"),
        reference="largest eigenvalue of G_Q G_K for the share of the strongest direction of W_Qᵀ W_K",
    ),
    Analysis(
        name="head_importance",
        flag="--head-importance",
        title="how much each head can do, and which could be pruned",
        family="attention",
        scopes=("layer",),
        basis="measured",
        module=f"{_HERE}.importance",
        fields=ImportanceFields,
        needs=("head_grams",),
        reference="‖W_Qᵀ W_K‖_F² = ⟨W_Q W_Qᵀ, W_K W_Kᵀ⟩, ‖W_O W_V‖_F² = ⟨W_Oᵀ W_O, W_V W_Vᵀ⟩; Michel et al. 2019",
        reads_identical=True,
    ),
    Analysis(
        name="attention_pattern_diff",
        flag="--attention-pattern-diff",
        title="how alike old and new heads weigh pairs of tokens, near and far",
        family="attention",
        scopes=("layer",),
        basis="measured",
        module=f"{_HERE}.pattern",
        fields=PatternFields,
        needs=("head_grams",),
        reference="cosine of W_Qᵀ Rᵀ W_K, old and new, from products of rows; Su et al. 2021 for the rotation R",
    ),
)
