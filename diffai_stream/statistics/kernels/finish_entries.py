"""The entry points of merging and finishing, for `native.py` to compile: each takes its arguments out of the block."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, number, real, vector
from diffai_stream.statistics.kernels import finish
from diffai_stream.statistics.kernels.rows import merge_rows as merge_two

f8, i8, u2 = np.float64, np.int64, np.uint16


def merge_rows(b):
    """merge_rows: into, other."""
    merge_two(vector(b, 0, f8), vector(b, 1, f8))


def moments_of_runs(b):
    """moments_of_runs: ends, view, keys, counts, values, rows."""
    finish.moments_of_runs(
        matrix(b, 0, i8), number(b, 1), vector(b, 2, u2), vector(b, 3, i8), vector(b, 4, f8), matrix(b, 5, f8)
    )


def coarsen(b):
    """coarsen: ends, view, keys, counts, values, exact, coarse keys, coarse counts, coarse ends."""
    inputs = matrix(b, 0, i8), number(b, 1), vector(b, 2, u2), vector(b, 3, i8), vector(b, 4, f8), number(b, 5) != 0
    finish.coarsen(*inputs, vector(b, 6, u2), vector(b, 7, i8), vector(b, 8, i8))


def quantiles_of_runs(b):
    """quantiles_of_runs: ends, view, keys, counts, values, exact, rows, probabilities, out."""
    inputs = matrix(b, 0, i8), number(b, 1), vector(b, 2, u2), vector(b, 3, i8), vector(b, 4, f8), number(b, 5) != 0
    finish.quantiles_of_runs(*inputs, matrix(b, 6, f8), vector(b, 7, f8), matrix(b, 8, f8))


def distances_of_runs(b):
    """distances_of_runs: ends, then keys, counts, values of both sides, same, out."""
    first = vector(b, 1, u2), vector(b, 2, i8), vector(b, 3, f8)
    second = vector(b, 4, u2), vector(b, 5, i8), vector(b, 6, f8)
    finish.distances_of_runs(matrix(b, 0, i8), *first, *second, number(b, 7) != 0, matrix(b, 8, f8))


def law_distance(b):
    """law_distance: keys, counts, values, exact, sigma, uniform, out[1]."""
    inputs = vector(b, 0, u2), vector(b, 1, i8), vector(b, 2, f8), number(b, 3) != 0
    vector(b, 6, f8)[0] = finish.law_distance(*inputs, real(b, 4), number(b, 5) != 0)


def bin_run(b):
    """bin_run: keys, counts, values, exact, low, high, out."""
    inputs = vector(b, 0, u2), vector(b, 1, i8), vector(b, 2, f8), number(b, 3) != 0
    finish.bin_run(*inputs, real(b, 4), real(b, 5), vector(b, 6, i8))


def codes_of_runs(b):
    """codes_of_runs: ends, view, keys, counts, values, low, high, small, out."""
    inputs = matrix(b, 0, i8), number(b, 1), vector(b, 2, u2), vector(b, 3, i8), vector(b, 4, f8)
    finish.codes_of_runs(*inputs, real(b, 5), real(b, 6), vector(b, 7, f8), matrix(b, 8, f8))


def fold_rows(b):
    """fold_rows: rows, ends, out."""
    finish.fold_rows(matrix(b, 0, f8), vector(b, 1, i8), matrix(b, 2, f8))
