"""Compile all kernels ahead of the first comparison, so that no one waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator


def warm() -> dict[str, float]:
    """Seconds that each entry took to load, or to compile where no process had: every kernel that is an entry."""
    return dict(warm_each())


def warm_each() -> Iterator[tuple[str, float]]:
    """Like warm(), one entry after the other as each is ready."""
    from diffai_stream.native import all_entries

    for name, entry in all_entries().items():
        started = time.perf_counter()
        entry.load()
        yield name, time.perf_counter() - started
