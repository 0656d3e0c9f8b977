"""The fields of embedding and clustering analyses."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict


class MovedRow(TypedDict):
    """A row among those that moved most."""

    row: Annotated[int, "number of the row"]
    token: Annotated[str | None, "text of the token; null when no tokenizer lies beside the checkpoint"]
    cosine_distance: Annotated[float | None, "1 - cosine of old and new; null when either is 0"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖ of the row; null when ‖old‖ is 0"]


class EmbeddingFields(TypedDict):
    """embedding_analysis: one record an embedding."""

    role: Annotated[str, "what the table does, e.g. embedding, lm_head"]
    row_count: Annotated[int, "rows compared"]
    semantic_drift: Annotated[float | None, "mean of 1 - cosine over rows that are not 0 on either side"]
    relative_l2: Annotated[float | None, "‖delta‖ / ‖old‖ of the rows compared"]
    affected_rows: Annotated[int, "rows with 1 - cosine above the threshold"]
    threshold: Annotated[float, "that threshold"]
    identical_rows: Annotated[int, "rows without any change"]
    zero_rows: Annotated[int, "rows that are 0 in new"]
    added_rows: Annotated[int, "rows that only new has"]
    removed_rows: Annotated[int, "rows that only old has"]
    top_rows: Annotated[list[MovedRow], "rows by 1 - cosine, then relative_l2, largest first (--top)"]


class ClusteringFields(TypedDict):
    """clustering_change: one record an embedding."""

    k: Annotated[int, "clusters"]
    sample_count: Annotated[int, "rows looked at, chosen by a seed from the shape"]
    old_cluster_sizes: Annotated[list[int], "rows in each cluster, old"]
    new_cluster_sizes: Annotated[list[int], "rows in each cluster, new, the centroids started from the old ones"]
    adjusted_rand_index: Annotated[float, "1: the same clusters, 0: as by chance"]
    migrated_rows: Annotated[int, "rows of the sample whose cluster changed"]


class Alike(TypedDict):
    """A tensor of old and another one of new that are alike."""

    old: Annotated[str, "tensor of old"]
    new: Annotated[str, "tensor of new, not the one it is paired with"]
    cosine: Annotated[float, "of both, estimated from sketches"]
    standard_error: Annotated[float, "√((1+c²)/width); 0 where the sketch is the tensor itself"]


class SimilarityFields(TypedDict):
    """similarity_matrix: one record a role and shape that both sides have."""

    role: Annotated[str, "what the tensors do"]
    shape: Annotated[list[int], "of each of them"]
    old_count: Annotated[int, "tensors of old: rows of the matrix"]
    new_count: Annotated[int, "tensors of new: columns"]
    width: Annotated[int, "sums of a sketch"]
    standard_error: Annotated[float | None, "of a cosine off the diagonal, √((1 + mean c²)/width); null when there is none"]
    mean_diagonal: Annotated[float | None, "mean cosine of a tensor with itself, exact; null when none is paired"]
    min_diagonal: Annotated[float | None, "the least of them"]
    least_alike: Annotated[str | None, "its tensor"]
    max_off_diagonal: Annotated[float | None, "largest cosine of different tensors; null when there are none"]
    alike_above: Annotated[float, "cosine above which different tensors are called alike"]
    alike: Annotated[list[Alike], "copied or shifted layers, most alike first (--top)"]
    map: Annotated[str, "a line a tensor of old, a sign a tensor of new, from blank (cosine 0) to @ (1); pooled above 32"]
    old_tensors: NotRequired[Annotated[list[str], "names of the rows (--histograms)"]]
    new_tensors: NotRequired[Annotated[list[str], "names of the columns (--histograms)"]]
    matrix: NotRequired[Annotated[list[list[float]], "cosines, a list a row (--histograms)"]]
