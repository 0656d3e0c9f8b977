"""The row of efficiency."""

from __future__ import annotations

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.efficiency.fields import EfficiencyFields

ROWS = (
    Analysis(
        name="param_efficiency_analysis",
        flag="--param-efficiency-analysis",
        title="zeros, patterns of zeros that hardware can use, and bits that the weights really carry",
        family="efficiency",
        scopes=("tensor", "model"),
        basis="measured",
        module="diffai_stream.analyses.efficiency.efficiency",
        fields=EfficiencyFields,
        ranks_tensors=True,
        reads_identical=True,
        needs=("counts", "key_histogram", "zero_patterns", "stored_codes"),
        reference="2:4 sparsity, Mishra et al. 2021; entropy of codes, Shannon 1948",
    ),
)
