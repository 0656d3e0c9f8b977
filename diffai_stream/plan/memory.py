"""The memory of a run as a formula: printed in the header, refused above the limit, asserted by a test.

    process + workers x (windows + scanner + histograms) + results waiting + other statistics + index

Nothing in it depends on the size of the checkpoint or of its largest tensor; only the index grows, by the tensor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from diffai_stream.errors import MemoryLimitError
from diffai_stream.plan.chunks import Batch, Slice, real_shape
from diffai_stream.statistics.base import Statistic

MIB = 1 << 20
PROCESS_NBYTES = 190 * MIB  # interpreter, numpy, numba with its compiled kernels, dask
SCANNER_NBYTES = 3 * MIB  # tables, tiles and buffers of one thread
HISTOGRAMS_NBYTES = 3 * MIB  # emitted runs of three views before they are cut to their length
RESULT_NBYTES = 256 << 10  # one result: rows and sparse histograms
RESULTS_WAITING = 96  # two windows finished, one in flight
PAIRS_NBYTES = 640 << 10  # and 65,536 pairs of 8-bit codes with their counts, in a result and in a thread's tables
REMOTE_NBYTES = 256 * MIB  # obstore, and what of remote objects is on its way or waits
TENSOR_NBYTES = 3200  # index entries of both sides, pair, digest


def projected_nbytes(
    workers: int,
    chunk_nbytes: int,
    tensor_count: int,
    largest_gather_nbytes: int = 0,
    counts_pairs: bool = False,
    other_nbytes: int = 0,
) -> int:
    """Bytes a run will have resident at most; a chunk counts once a side, and once more where bytes must be gathered.

    `counts_pairs`: some tensors are counted by pairs of 8-bit codes; `other_nbytes`: see `statistics_nbytes`.
    """
    worker = 2 * chunk_nbytes + largest_gather_nbytes + SCANNER_NBYTES + HISTOGRAMS_NBYTES
    pairs = PAIRS_NBYTES * (3 * workers + RESULTS_WAITING) if counts_pairs else 0
    waiting = RESULTS_WAITING * RESULT_NBYTES + pairs
    return PROCESS_NBYTES + workers * worker + waiting + other_nbytes + tensor_count * TENSOR_NBYTES


def statistics_nbytes(batches: Iterable[Batch]) -> int:
    """Bytes of the states of other statistics: of as many neighbouring results as may wait, and of all that are kept."""
    waiting: deque[int] = deque(maxlen=RESULTS_WAITING)
    most = kept = 0
    for batch in batches:
        sizes = [(statistic, _result_nbytes(statistic, piece)) for piece in batch.slices for statistic in piece.statistics]
        waiting.append(sum(nbytes for _, nbytes in sizes))
        most = max(most, sum(waiting))
        kept += sum(nbytes for statistic, nbytes in sizes if statistic.kept)
    return most + kept


def _result_nbytes(statistic: Statistic[Any], piece: Slice) -> int:
    return statistic.result_nbytes(real_shape(piece.old), piece.stop - piece.start)


def check_limit(projected: int, limit: int | None, chunk_nbytes: int, workers: int) -> None:
    """Raise MemoryLimitError when the plan needs more than allowed."""
    if limit is not None and projected > limit:
        raise MemoryLimitError(
            f"the plan needs {projected / MIB:.0f} MiB and --memory-limit allows {limit / MIB:.0f} MiB; "
            f"try a smaller --chunk-size than {chunk_nbytes / MIB:.3g} MiB or fewer --workers than {workers}"
        )
