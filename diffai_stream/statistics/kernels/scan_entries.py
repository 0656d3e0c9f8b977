"""The entry points of the scan, for `native.py` to compile: each takes its arguments out of the block."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, matrix, number, real, vector
from diffai_stream.statistics.buffers import Histograms, Rules, Side, Work
from diffai_stream.statistics.kernels.scan import scan_pair

f4, f8, i8, u1, u2, u4 = np.float32, np.float64, np.int64, np.uint8, np.uint16, np.uint32


@inlined
def side(block, k):
    """Seven arguments from k on as a Side."""
    kind, counted = number(block, k + 1), number(block, k + 3)
    moments, fourth = number(block, k + 4) != 0, number(block, k + 5) != 0
    return Side(vector(block, k, u1), kind, vector(block, k + 2, f4), counted, moments, fourth, vector(block, k + 6, u2))


@inlined
def rules(block, k):
    """Six arguments from k on as Rules."""
    same, count = number(block, k) != 0, number(block, k + 1) != 0
    fourth, tolerant = number(block, k + 2) != 0, number(block, k + 3) != 0
    return Rules(same, count, fourth, tolerant, real(block, k + 4), real(block, k + 5))


@inlined
def work(block, k, dtype):
    """Twenty-one arguments from k on as Work with tiles of a dtype."""
    return Work(
        vector(block, k, dtype),
        vector(block, k + 1, dtype),
        vector(block, k + 2, dtype),
        vector(block, k + 3, dtype),
        vector(block, k + 4, f8),
        vector(block, k + 5, f8),
        vector(block, k + 6, f8),
        vector(block, k + 7, f8),
        vector(block, k + 8, f8),
        vector(block, k + 9, f8),
        vector(block, k + 10, f8),
        matrix(block, k + 11, f8),
        vector(block, k + 12, u4),
        vector(block, k + 13, u4),
        vector(block, k + 14, u4),
        vector(block, k + 15, u4),
        vector(block, k + 16, u1),
        vector(block, k + 17, u1),
        vector(block, k + 18, u1),
        vector(block, k + 19, u2),
        vector(block, k + 20, u1),
    )


@inlined
def histograms(block, k):
    """Seven arguments from k on as Histograms."""
    return Histograms(
        vector(block, k, u2),
        vector(block, k + 1, i8),
        vector(block, k + 2, u2),
        vector(block, k + 3, i8),
        vector(block, k + 4, u2),
        vector(block, k + 5, i8),
        matrix(block, k + 6, i8),
    )


def scan_pair32(b):
    """scan_pair over float32 tiles: segments, rows, old, new, rules, work, histograms."""
    scan_pair(matrix(b, 0, i8), matrix(b, 1, f8), side(b, 2), side(b, 9), rules(b, 16), work(b, 22, f4), histograms(b, 43))


def scan_pair64(b):
    """scan_pair over float64 tiles."""
    scan_pair(matrix(b, 0, i8), matrix(b, 1, f8), side(b, 2), side(b, 9), rules(b, 16), work(b, 22, f8), histograms(b, 43))
