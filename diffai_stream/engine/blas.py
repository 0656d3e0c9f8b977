"""Keeps the library that multiplies matrices from starting threads of its own: those that scan are enough.

Two scanning threads that each wait for the threads of a product take ten times as long as two products on one thread each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffai_stream.plan.chunks import Batch


@contextmanager
def single_threaded_blas(batches: Sequence[Batch]) -> Iterator[None]:
    """One thread a product while these batches are scanned, if any of their statistics multiplies; free again afterwards."""
    asked = {statistic for batch in batches for piece in batch.slices for statistic in piece.statistics}
    if not any(statistic.uses_blas for statistic in asked):
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
