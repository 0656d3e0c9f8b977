"""The compiled scan checks no bounds: nothing beside its buffers may change, whatever the elements are."""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.statistics import scanner
from diffai_stream.statistics.layout import ROW_WIDTH
from tests.statistics.fused import pair_of
from tests.statistics.strategies import codes_of, frozen

FENCE, MARK = 256, 0xA5  # bytes on either side of a buffer
PAIRS = [
    ("BF16", "BF16"),
    ("F16", "BF16"),
    ("F32", "F32"),
    ("F64", "F64"),
    ("I64", "U8"),
    ("F8_E4M3", "F8_E4M3"),
    ("F32", "BF16"),
]


class Fenced:
    """Buffers with marked bytes around each."""

    def __init__(self) -> None:
        self.rooms: list[tuple[np.ndarray, int]] = []

    def aligned(self, size: int, dtype: type) -> np.ndarray:
        nbytes = size * np.dtype(dtype).itemsize
        room = np.full(nbytes + 2 * FENCE + scanner.CACHE_LINE, MARK, np.uint8)
        start = FENCE + -(room.ctypes.data + FENCE) % scanner.CACHE_LINE
        room[start : start + nbytes] = 0
        self.rooms.append((room[:start], 0))
        self.rooms.append((room[start + nbytes :], nbytes))
        return room[start : start + nbytes].view(dtype)

    def check(self) -> None:
        for fence, nbytes in self.rooms:
            assert (fence == MARK).all(), f"{'after' if nbytes else 'before'} a buffer of {nbytes} bytes"


@pytest.fixture
def fenced(monkeypatch):
    buffers = Fenced()
    monkeypatch.setattr(scanner, "aligned", buffers.aligned)
    return buffers


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_nothing_beside_the_buffers_changes(names, fenced):
    encodings = pair_of(*names)
    scan = scanner.Scanner()
    for numel in (1, 15, 16, 17, 2047, 2048, 2049, 70_001):
        for mode in ("any", "usual", "constant", "specials"):  # a constant has a mean that takes the second pass over a block
            old, new = (frozen(codes_of(e, numel, mode, seed)) for seed, e in enumerate(encodings))
            segments = np.array([[0, 0, numel, 32_768, 0]] * 2, np.int64)
            for ask in (
                scanner.Ask(),
                scanner.Ask(histograms=False),
                scanner.Ask(histograms=False, fourth=False, absolute=1e-3),
            ):
                part = scan.scan(old, new, encodings, segments, ask)
                assert part.rows.shape == (2, ROW_WIDTH)
                assert part.rows[0].tobytes() == part.rows[1].tobytes()
    fenced.check()
    assert fenced.rooms
