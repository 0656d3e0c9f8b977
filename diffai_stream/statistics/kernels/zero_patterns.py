"""Where the zeros of rows lie: groups of four with two or more, runs of 32 that hold nothing else."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import number, part, vector
from diffai_stream.statistics.kernels.lanes import eight, one
from diffai_stream.vectors import any_set, splat, where

u1, i4, i8, f4, f8 = np.uint8, np.int32, np.int64, np.float32, np.float64
GROUP, ZEROS, RUN, LANES = 4, 2, 32, 8


@part
def any_zero(raw, x, kind, start):
    """Whether any of the 32 elements from `start` on is zero."""
    none, one_bit = splat(i4(0), LANES), splat(i4(1), LANES)
    found = none
    for k in range(start, start + RUN, LANES):
        found = found | where(eight(raw, x, k, kind) == 0, one_bit, none)
    return any_set(found)


@part
def zeros_of_group(raw, x, kind, start):
    """How many of the four elements from `start` on are zero."""
    count = 0
    for i in range(start, start + GROUP):
        count += one(raw, x, i, kind) == 0
    return count


@part
def patterns(raw, x, kind, numel, columns, out):
    """out[0:2] += groups with two zeros or more, runs of zeros; what is left over at the end of a row is in none."""
    groups, runs = 0, 0
    for row in range(0, numel, columns):
        end = row + columns // GROUP * GROUP
        at = row
        while at < end:
            is_run = at + RUN <= row + columns
            stop = at + RUN if is_run else end
            if not is_run or any_zero(raw, x, kind, at):
                zeros = 0
                for start in range(at, stop, GROUP):
                    here = zeros_of_group(raw, x, kind, start)
                    zeros += here
                    groups += here >= ZEROS
                runs += is_run and zeros == RUN
            at = stop
    out[0] += groups
    out[1] += runs


def patterns32(b):
    """patterns in float32: bytes, tile, kind, numel, columns, out."""
    patterns(vector(b, 0, u1), vector(b, 1, f4), number(b, 2), number(b, 3), number(b, 4), vector(b, 5, i8))


def patterns64(b):
    """patterns in float64."""
    patterns(vector(b, 0, u1), vector(b, 1, f8), number(b, 2), number(b, 3), number(b, 4), vector(b, 5, i8))
