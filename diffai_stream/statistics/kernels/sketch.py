"""Count-sketch of a run of leaves: every element, with a sign of its own, is added to one of WIDTH sums.

Which sum and which sign follow from the element's index alone. Blocks of WIDTH elements are laid over the sums one to one,
each turned by a random amount: elements of different blocks meet with probability 1/WIDTH, elements of one block never,
and neighbours stay neighbours, so that the loop runs over whole vectors. Block 0 is not turned: a tensor of at most WIDTH
elements is its own sketch, but for signs. Signs are the bits of a random word for every 64 elements.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, matrix, number, part, vector
from diffai_stream.statistics.kernels.lanes import eight, one
from diffai_stream.statistics.kernels.siblings import add_siblings
from diffai_stream.vectors import converted, counting, load, splat, store, viewed, where

WIDTH = 4096
GROUP, LANES = 64, 8
SIGNS, TURNS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
u1, i8, f4, f8, u8 = np.uint8, np.int64, np.float32, np.float64, np.uint64
SIGN = i8(-(2**63))


@part
def mixed(number, seed):
    """A random 64-bit word for a number (splitmix64, Steele, Lea & Flood 2014)."""
    z = u8(u8(number + 1) * seed)
    z = u8((z ^ (z >> u8(30))) * u8(0xBF58476D1CE4E5B9))
    z = u8((z ^ (z >> u8(27))) * u8(0x94D049BB133111EB))
    return u8(z ^ (z >> u8(31)))


@part
def place_of(index):
    """The sum that an element belongs to, WIDTH and beyond standing for those from 0 on."""
    block, inside = index // WIDTH, index % WIDTH
    turn = i8(0) if block == 0 else i8(mixed(block, TURNS) % u8(WIDTH))
    group = inside - inside % GROUP
    return (group + turn) % WIDTH + inside % GROUP


@part
def add_alone(value, index, sums):
    """One element."""
    if value - value == 0:  # NaN for NaN and infinities
        is_negative = (mixed(index // GROUP, SIGNS) >> u8(index % GROUP)) & u8(1)
        sums[place_of(index)] += -f8(value) if is_negative else f8(value)


@inlined
def add_signed(values, word, first, sums, place):
    """sums[place : place + 8] += values, each with the sign of its bit of the word, which begin at bit `first`."""
    is_finite = (values - values) == 0
    wide = where(is_finite, converted(values, f8), splat(0.0, LANES))
    signs = (splat(i8(word), LANES) << (splat(i8(GROUP - 1 - first), LANES) - counting(LANES))) & SIGN
    store(sums, place, load(sums, place, LANES) + viewed(viewed(wide, i8) ^ signs, f8))


@part
def add_group(a, b, x, y, kinds, is_delta, at, word, place, sums):
    """A whole group of one side, or of new - old."""
    for k in range(0, GROUP, LANES):
        values = eight(a, x, at + k, kinds[0])
        if is_delta:
            values = eight(b, y, at + k, kinds[1]) - values
        add_signed(values, word, k, sums, place + k)


@part
def sketch_leaf(a, b, x, y, kinds, is_delta, first, at, end, sums, out):
    """out[width]: the sums of elements [at, end) of a run that begins at element `first`; `sums` is scratch."""
    sums[:] = 0.0
    while at < end:
        index = first + at
        if index % GROUP or end - at < GROUP:
            value = one(a, x, at, kinds[0])
            add_alone(one(b, y, at, kinds[1]) - value if is_delta else value, index, sums)
            at += 1
        else:
            add_group(a, b, x, y, kinds, is_delta, at, mixed(index // GROUP, SIGNS), place_of(index), sums)
            at += GROUP
    width = out.size
    for i in range(width):
        out[i] = sums[i] + (sums[WIDTH + i] if width == WIDTH and i < GROUP else 0.0)


@part
def sketch(a, b, x, y, kinds, is_delta, first, leaf, at, stop, sums, stack):
    """stack[0] of the 2^k leaves of elements [at, stop) of a run that begins at element `first`; stack[k + 1, width]."""
    top = number = 0
    while at < stop:
        sketch_leaf(a, b, x, y, kinds, is_delta, first, at, min(at + leaf, stop), sums, stack[top])
        at += leaf
        number += 1
        top = add_siblings(stack, top, number) + 1


def sketch32(b):
    """sketch in float32: bytes, tile and kind of both sides; is_delta, first, leaf, at, stop, sums, stack."""
    raw, tiles = (vector(b, 0, u1), vector(b, 3, u1)), (vector(b, 1, f4), vector(b, 4, f4))
    kinds, numbers = (number(b, 2), number(b, 5)), (number(b, 7), number(b, 8), number(b, 9), number(b, 10))
    sketch(raw[0], raw[1], tiles[0], tiles[1], kinds, number(b, 6) != 0, *numbers, vector(b, 11, f8), matrix(b, 12, f8))


def sketch64(b):
    """sketch in float64."""
    raw, tiles = (vector(b, 0, u1), vector(b, 3, u1)), (vector(b, 1, f8), vector(b, 4, f8))
    kinds, numbers = (number(b, 2), number(b, 5)), (number(b, 7), number(b, 8), number(b, 9), number(b, 10))
    sketch(raw[0], raw[1], tiles[0], tiles[1], kinds, number(b, 6) != 0, *numbers, vector(b, 11, f8), matrix(b, 12, f8))
