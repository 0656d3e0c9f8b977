"""The plan in windows, handed to dask one after the other.

A dask scheduler given all of it would run it in reverse key order, and would hold every result until the last is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diffai_stream.plan.chunks import Batch

WINDOWS = (8, 8, 16, 32)  # batches a window; the last size repeats


def windows(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """The plan in windows: small ones first, so that the first records appear early."""
    window: list[Batch] = []
    number = 0
    for batch in batches:
        window.append(batch)
        if len(window) >= WINDOWS[min(number, len(WINDOWS) - 1)]:
            yield window
            window, number = [], number + 1
    if window:
        yield window
