"""Count-sketch of a run of leaves: every element, with a sign of its own, is added to one of WIDTH sums.

Which sum and which sign follow from the element's index alone. Blocks of WIDTH elements are laid over the sums one to one,
each turned by a random amount: elements of different blocks meet with probability 1/WIDTH, elements of one block never,
and neighbours stay neighbours, so that the loop runs over whole vectors. Block 0 is not turned: a tensor of at most WIDTH
elements is its own sketch, but for signs. Signs are the bits of a random word for every 64 elements.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, number, part, vector

WIDTH = 4096
GROUP = 64
SIGNS, TURNS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
i4, i8, f4, f8, u4, u8 = np.int32, np.int64, np.float32, np.float64, np.uint32, np.uint64


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


@part
def add_side(x, word, sums):
    """A whole group of one side."""
    low, high = u4(word & u8(0xFFFFFFFF)), u4(word >> u8(32))
    for i in range(32):
        sign = f4(1) - f4(i4(u4(u4(low >> u4(i)) << u4(1)) & u4(2)))
        sums[i] += f8(sign * x[i] if x[i] - x[i] == 0 else f4(0))
    for i in range(32):
        sign = f4(1) - f4(i4(u4(u4(high >> u4(i)) << u4(1)) & u4(2)))
        sums[32 + i] += f8(sign * x[32 + i] if x[32 + i] - x[32 + i] == 0 else f4(0))


@part
def add_delta(x, y, word, sums):
    """A whole group of new - old."""
    low, high = u4(word & u8(0xFFFFFFFF)), u4(word >> u8(32))
    for i in range(32):
        d = y[i] - x[i]
        sign = f4(1) - f4(i4(u4(u4(low >> u4(i)) << u4(1)) & u4(2)))
        sums[i] += f8(sign * d if d - d == 0 else f4(0))
    for i in range(32):
        d = y[32 + i] - x[32 + i]
        sign = f4(1) - f4(i4(u4(u4(high >> u4(i)) << u4(1)) & u4(2)))
        sums[32 + i] += f8(sign * d if d - d == 0 else f4(0))


@part
def sketch(x, y, is_delta, first, leaf, sums, out):
    """out[leaves, width]: the sums of each leaf of a run that begins at element `first`; `sums` is scratch."""
    for row in range(out.shape[0]):
        sums[:] = 0.0
        at, end = row * leaf, min((row + 1) * leaf, x.size)
        while at < end:
            index = first + at
            if index % GROUP or end - at < GROUP:
                add_alone(y[at] - x[at] if is_delta else x[at], index, sums)
                at += 1
                continue
            place, word = place_of(index), mixed(index // GROUP, SIGNS)
            if is_delta:
                add_delta(x[at : at + GROUP], y[at : at + GROUP], word, sums[place : place + GROUP])
            else:
                add_side(x[at : at + GROUP], word, sums[place : place + GROUP])
            at += GROUP
        width = out.shape[1]
        for i in range(width):
            out[row, i] = sums[i] + (sums[WIDTH + i] if width == WIDTH and i < GROUP else 0.0)


def sketch32(b):
    """sketch of float32: x, y, is_delta, first, leaf, sums, out."""
    flag, first, leaf = number(b, 2) != 0, number(b, 3), number(b, 4)
    sketch(vector(b, 0, f4), vector(b, 1, f4), flag, first, leaf, vector(b, 5, f8), matrix(b, 6, f8))


def sketch64(b):
    """sketch of float64."""
    flag, first, leaf = number(b, 2) != 0, number(b, 3), number(b, 4)
    sketch(vector(b, 0, f8), vector(b, 1, f8), flag, first, leaf, vector(b, 5, f8), matrix(b, 6, f8))
