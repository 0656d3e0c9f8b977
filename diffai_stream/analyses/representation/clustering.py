"""clustering_change: clusters of sampled rows before and after, the new ones started from the old centroids.

Lloyd's algorithm to the end, which a sample of 1,024 rows affords: mini-batches stop anywhere, and would call an embedding
that hardly moved another one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffai_stream.analyses.base import Finding, PlacedFindings, Skipped, Table
from diffai_stream.analyses.representation.embedding import ROLES, is_table
from diffai_stream.options import Options

CLUSTERS, SEED = 16, 0
MISSING = "scikit-learn is not installed: pip install 'diffai-stream[clustering]'"


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """A sample of the rows of embeddings, where the library that clusters them is there."""
    if "clustering_change" not in options.analyses or not is_table(pair) or not _installed():
        return ()
    from diffai_stream.statistics.row_samples import RowSamples

    return (RowSamples(),)


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def model(evidence: Any, options: Options) -> Any:
    """Why there is nothing, when there is nothing."""
    if not any(pair.role in ROLES for pair in evidence.run.pairs):
        yield Skipped("model", "no tensor has the role of an embedding")
    elif not _installed():
        yield Skipped("model", MISSING)


def tensor(table: Table, options: Options) -> PlacedFindings:
    """One record for each embedding."""
    for place, evidence in enumerate(table.evidence):
        for statistic, columns in evidence.extras.items():
            if type(statistic).__name__ == "RowSamples":
                yield place, _judged(evidence.pair.name, columns["old"], columns["new"])


def _judged(name: str, old: Any, new: Any) -> Finding | Skipped:
    finite = np.isfinite(old).all(axis=1) & np.isfinite(new).all(axis=1)
    old, new = old[finite], new[finite]
    k = min(CLUSTERS, len(old) // 2)
    if k < 2:
        return Skipped(name, f"{len(old)} rows with finite values are too few to cluster")
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the same result whatever the machine
        before = KMeans(k, random_state=SEED, n_init=3, tol=0.0).fit(old)
        first = before.labels_
        after = KMeans(k, random_state=SEED, n_init=1, tol=0.0, init=before.cluster_centers_).fit(new)
        second = after.labels_
    fields = {
        "k": k,
        "sample_count": len(old),
        "old_cluster_sizes": np.bincount(first, minlength=k).tolist(),
        "new_cluster_sizes": np.bincount(second, minlength=k).tolist(),
        "adjusted_rand_index": float(adjusted_rand_score(first, second)),
        "migrated_rows": int((first != second).sum()),
    }
    return Finding("tensor", name, "measured", fields)
