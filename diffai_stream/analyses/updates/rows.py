"""The rows of updates; both are opt-in, because they cost more than the rest together."""

from __future__ import annotations

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.updates.fields import MergeFields, SpectrumFields

_HERE = "diffai_stream.analyses.updates"

ROWS = (
    Analysis(
        name="spectrum",
        flag="--spectrum",
        title="how many directions the change of a matrix has, and what an adapter of low rank could hold of it",
        family="updates",
        scopes=("tensor", "model"),
        basis="measured",
        module=f"{_HERE}.spectrum",
        fields=SpectrumFields,
        ranks_tensors=True,
        is_opt_in=True,
        needs=("agreement", "delta_spectrum"),
        reference="Nyström sketch, Tropp, Yurtsever, Udell & Cevher 2017; adapters, Hu et al. 2021, arXiv 2106.09685",
    ),
    Analysis(
        name="merge_analysis",
        flag="--merge-analysis",
        argument="BASE",
        title="old and new as two changes of a common BASE: angle, overlap and conflicts of sign",
        family="updates",
        scopes=("tensor", "model"),
        basis="measured",
        module=f"{_HERE}.merging",
        fields=MergeFields,
        ranks_tensors=True,
        is_opt_in=True,
        needs=("task_vectors",),
        reference="TIES, Yadav et al. 2023, arXiv 2306.01708; DARE, Yu et al. 2024, arXiv 2311.03099",
    ),
)
