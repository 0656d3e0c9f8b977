"""The rows of representation."""

from __future__ import annotations

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.representation.fields import ClusteringFields, EmbeddingFields, SimilarityFields

_HERE = "diffai_stream.analyses.representation"

ROWS = (
    Analysis(
        name="embedding_analysis",
        flag="--embedding-analysis",
        title="how far each token's row moved, with the texts of those that moved most",
        family="representation",
        scopes=("tensor",),
        basis="measured",
        module=f"{_HERE}.embedding",
        fields=EmbeddingFields,
        needs=("row_sums",),
        reference="cosine distance from Σd² and the norms, stable where the cosine saturates",
    ),
    Analysis(
        name="clustering_change",
        flag="--clustering-change",
        title="whether the rows of an embedding still fall into the same clusters",
        family="representation",
        scopes=("tensor",),
        basis="measured",
        module=f"{_HERE}.clustering",
        fields=ClusteringFields,
        needs=("row_samples",),
        reference="k-means, Lloyd 1982; adjusted Rand index, Hubert & Arabie 1985",
    ),
    Analysis(
        name="similarity_matrix",
        flag="--similarity-matrix",
        title="which layers of old are like which of new: copied, shifted or doubled ones",
        family="representation",
        scopes=("model",),
        basis="measured",
        module=f"{_HERE}.similarity",
        fields=SimilarityFields,
        needs=("agreement", "sketch"),
        reference="count-sketch, Charikar, Chen & Farach-Colton 2002; the diagonal from the sums of the pair",
        reads_identical=True,
    ),
)
