"""Running the fused scan as the engine does: whole, in chunks along the tree, and its figures by name."""

from __future__ import annotations

from functools import cache

import numpy as np

from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.finishing import Finished, Wants, finish
from diffai_stream.statistics.joint import completed, scan_joint
from diffai_stream.statistics.layout import AGREEMENT, COUNTS, EXTREMA, MOMENTS, View, column
from diffai_stream.statistics.scanner import Ask, Part, Scanner, complete_rows, domain_of, merge_parts
from tests.statistics.strategies import frozen

Encodings = tuple[Encoding, Encoding]
DEFAULT = Ask()
ALL = Wants(quantiles=True, distances=True, bins=True)


@cache
def scanner() -> Scanner:
    return Scanner()


def pair_of(old: str, new: str) -> Encodings:
    return ENCODINGS[old], ENCODINGS[new]


def domains(encodings: Encodings) -> tuple:
    return domain_of(encodings[0]), domain_of(encodings[1])


def scan(
    old: np.ndarray,
    new: np.ndarray,
    encodings: Encodings,
    leaf: int = 32_768,
    first: int = 0,
    ask: Ask = DEFAULT,
    joint: bool = False,
) -> Part:
    """One segment as it leaves a task; `joint`: counted by pairs of codes, whatever its size."""
    numel = old.size // encodings[0].itemsize
    segments = np.array([[0, 0, numel, leaf, first]], np.int64)
    if joint:
        return scan_joint(frozen(old), frozen(new), encodings, segments)
    return scanner().scan(frozen(old), frozen(new), encodings, segments, ask)


def scan_chunks(old, new, encodings, leaf, ranges, ask: Ask = DEFAULT, joint: bool = False) -> Part:
    """Chunks scanned apart, siblings merged as soon as both are there, the rest at the end (engine/reduce.py)."""
    a, b = (encoding.itemsize for encoding in encodings)
    stack: list[tuple[int, int, Part]] = []
    for number, (start, stop) in enumerate(ranges):
        part = scan(old[start * a : stop * a], new[start * b : stop * b], encodings, leaf, start, ask, joint)
        stack.append((number, number + 1, part))
        while len(stack) > 1 and siblings(stack[-2], stack[-1], len(ranges)):
            join(stack, encodings)
    while len(stack) > 1:
        join(stack, encodings)
    return stack[0][2]


def siblings(left, right, count: int) -> bool:
    size = left[1] - left[0]
    return right[1] - right[0] == size and left[0] % (2 * size) == 0 and right[1] < count


def join(stack, encodings: Encodings) -> None:
    right, left = stack.pop(), stack.pop()
    stack.append((left[0], right[1], merge_parts([left[2], right[2]], domains(encodings))))


def finished(part: Part, encodings: Encodings, ask: Ask = DEFAULT, wants: Wants = ALL) -> Finished:
    return finish(part, domains(encodings), [()] * len(part.rows), ask, wants)


def row_of(old: np.ndarray, new: np.ndarray, encodings: Encodings, ask: Ask = DEFAULT, joint: bool = False) -> np.ndarray:
    """The completed state row of a pair."""
    part = completed(scan(old, new, encodings, ask=ask, joint=joint), domains(encodings), ask)
    complete_rows(part, domains(encodings), ask)
    return part.rows[0]


def side_of(row: np.ndarray, view: View) -> dict[str, float]:
    return {name: float(row[column(view, name)]) for name in MOMENTS + EXTREMA + COUNTS}


def pair_figures(row: np.ndarray) -> dict[str, float]:
    return {name: float(row[column(View.PAIR, name)]) for name in AGREEMENT}
