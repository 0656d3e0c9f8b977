"""clustering_change: clusters of sampled rows before and after, the new ones started from the old centroids.

Lloyd's algorithm to the end, which a sample of 1,024 rows affords: mini-batches stop anywhere, and would call an embedding
that hardly moved another one.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib import import_module
from threading import Thread
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Finding, PlacedFindings, Skipped, Table
from diffai_stream.analyses.representation.embedding import ROLES, is_table
from diffai_stream.options import Options

CLUSTERS, SEED, STARTS, ROUNDS = 16, 0, 3, 300
SEEDED_ROWS = 256  # rows that k-means++ chooses among; the steps after it see all
Rows: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[Any]
MISSING = "scipy is not installed: pip install 'diffai-stream[clustering]'"


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """A sample of the rows of embeddings, where the library that clusters them is there."""
    if "clustering_change" not in options.analyses or not is_table(pair) or not _installed():
        return ()
    from diffai_stream.statistics.row_samples import RowSamples

    _import_ahead()
    return (RowSamples(),)


@lru_cache(maxsize=1)
def _import_ahead() -> None:
    """Begin to import the library: a quarter of a second that passes while tensors are read, instead of after them."""
    Thread(target=import_module, args=("scipy.cluster.vq",), daemon=True).start()


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("scipy") is not None


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
    if not finite.all():
        old, new = old[finite], new[finite]
    k = min(CLUSTERS, len(old) // 2)
    if k < 2:
        return Skipped(name, f"{len(old)} rows with finite values are too few to cluster")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the same result whatever the machine
        tried = [_clustered(old, _seeded(old, k, SEED + place)) for place in range(STARTS)]
        centroids, first = min(tried, key=lambda found: _spread(old, *found))
        _, second = _clustered(new, centroids)
    fields = {
        "k": k,
        "sample_count": len(old),
        "old_cluster_sizes": np.bincount(first, minlength=k).tolist(),
        "new_cluster_sizes": np.bincount(second, minlength=k).tolist(),
        "adjusted_rand_index": adjusted_rand_index(first, second),
        "migrated_rows": int((first != second).sum()),
    }
    return Finding("tensor", name, "measured", fields)


def _spread(rows: Rows, centroids: Rows, labels: Labels) -> float:
    """The sum of squared distances to the centroids, which the best of several starts has least of."""
    apart = rows - centroids[labels]
    return float(np.einsum("ij,ij->i", apart, apart).sum(dtype=np.float64))


def _seeded(rows: Rows, k: int, seed: int) -> Rows:
    """float32[k, columns]: seeded centroids, by k-means++ over some of the rows and one step over all."""
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows that are equal leave clusters empty
        chosen = kmeans2(rows[:: max(1, len(rows) // SEEDED_ROWS)], k, iter=1, minit="++", rng=seed)[0]
        return np.asarray(kmeans2(rows, chosen, iter=1, minit="matrix")[0])


def _clustered(rows: Rows, centroids: Rows) -> tuple[Rows, Labels]:
    """The centroids and the cluster of each row, by Lloyd's steps until no row changes its cluster."""
    from scipy.cluster.vq import kmeans2

    labels: Labels = np.full(len(rows), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a cluster that lost its rows stays where it is
        for _ in range(ROUNDS):
            centroids, found = kmeans2(rows, centroids, iter=1, minit="matrix")
            if np.array_equal(found, labels):
                break
            labels = found
    return centroids, labels


def adjusted_rand_index(first: Labels, second: Labels) -> float:
    """How far two clusterings agree: 1 is equal, 0 is chance (Hubert and Arabie 1985, https://doi.org/10.1007/BF01908075)."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    both, one, other = (float((sums * (sums - 1) / 2).sum()) for sums in (table, table.sum(1), table.sum(0)))
    pairs = len(first) * (len(first) - 1) / 2
    expected, most = one * other / pairs, (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
