"""Pairs of 8-bit codes: a tensor's part is one run of (pair of codes, count), from which everything follows at its end.

Which tensors go this way depends on encodings and size alone, never on how they are cut into chunks; counts are integers,
so neither does a figure.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding
from diffai_stream.statistics.entries import finish_pairs, moments_of_runs, scan_pairs
from diffai_stream.statistics.layout import BLOCK, KEYS, ROW_WIDTH, View
from diffai_stream.statistics.scanner import Ask, Bytes, Domain, Part, Runs, key_domain

JOINT_NUMEL = 65_536  # smaller tensors have hardly more elements than there may be pairs
VIEWS = 4  # old, new and delta, then the pairs
FEW = 8  # as in the kernel
_threads = threading.local()


def is_joint(encodings: tuple[Encoding, Encoding], numel: int) -> bool:
    """Whether a tensor of so many elements is counted by pairs of codes."""
    return numel >= JOINT_NUMEL and all(encoding.pattern_bits == 8 for encoding in encodings)


def _buffers() -> tuple[NDArray[Any], ...]:
    """This thread's two tables, room for the pairs of a block, flags of pairs, a short list of pairs."""
    if not hasattr(_threads, "buffers"):
        tables = np.zeros(2 * KEYS, np.uint32), np.zeros(2 * KEYS, np.uint32)
        _threads.buffers = *tables, np.zeros(BLOCK, np.uint16), np.zeros(KEYS, np.uint8), np.zeros(FEW, np.uint16)
    return _threads.buffers  # type: ignore[no-any-return]


def scan_joint(old: Bytes, new: Bytes, encodings: tuple[Encoding, Encoding], segments: NDArray[np.int64]) -> Part:
    """The pairs of every segment, with the largest change and its place; arguments as of `Scanner.scan`."""
    first, second = encodings
    room = int(np.minimum(segments[:, 2], KEYS).sum()) + 1
    keys, counts = np.empty(room, np.uint16), np.empty(room, np.int64)
    rows, ends = np.empty((len(segments), ROW_WIDTH)), np.zeros((len(segments), VIEWS), np.int64)
    values = first.table(), second.table()
    scan_pairs(segments, rows, old, new, *values, first is second, _buffers(), keys, counts, ends)
    used = int(ends[-1, 3]) if len(ends) else 0
    return Part(rows, (Runs.none(), Runs.none(), Runs.none(), Runs(keys[:used], counts[:used])), ends)


def completed(part: Part, domains: tuple[Domain, Domain], ask: Ask) -> Part:
    """Whole tensors with the pairs turned into rows and the runs of both sides and of the delta; others as they are."""
    pairs = part.runs[3]
    if not pairs.keys.size:
        return part
    orders = [domain.order for domain in (*domains, key_domain())]
    room = [min(order.size * len(part.rows), pairs.keys.size) for order in orders]
    runs = [Runs(np.empty(n, np.uint16), np.empty(n, np.int64)) for n in room]
    tables = [np.zeros(order.size, np.int64) for order in orders]
    ends, values = np.zeros((len(part.rows), VIEWS), np.int64), [domain.values for domain in domains]
    tolerances = float(ask.absolute), float(ask.relative)
    finish_pairs(part.ends, *pairs, *values, *tolerances, part.rows, *tables, *orders, *runs, ends)
    runs = [Runs(run.keys[:n], run.counts[:n]) for run, n in zip(runs, ends[-1], strict=False)]
    if ask.histograms:
        return Part(part.rows, (runs[0], runs[1], runs[2], Runs.none()), ends)
    for view, domain in zip((View.OLD, View.NEW), domains, strict=True):
        moments_of_runs(ends, int(view), *runs[view], domain.values, part.rows)
    none = Runs.none()
    return Part(part.rows, (none, none, none, none), np.zeros_like(ends))
