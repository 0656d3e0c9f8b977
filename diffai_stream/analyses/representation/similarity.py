"""similarity_matrix: which tensors of old are like which of new, role by role: the diagonal exactly, the rest by sketches."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.base import Digest, Finding, ModelEvidence, Skipped
from diffai_stream.options import Options
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.sketch import WIDTH, Sketch

NAME = "similarity_matrix"
MAX_TENSORS = 2048  # of a role and shape: a matrix of four million
ALIKE = 0.9
MAP_CELLS, SHADES = 32, " .:-=+*#%@"
DUPLICATE_BELOW = 1e-4  # of 1 - cosine
Matrix = NDArray[np.float64]


class Group(NamedTuple):
    """The tensors of a role with one shape, a side each, in plan order, with their sketches and norms."""

    role: str
    old: tuple[Digest, ...]
    new: tuple[Digest, ...]
    old_sketches: Matrix
    new_sketches: Matrix
    is_exact: bool


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """Sketches of the sides of weights that are more than vectors."""
    if NAME not in options.analyses or pair.part != WEIGHTS or len(pair.entries[0].shape) < 2:
        return ()
    return tuple(Sketch(view) for view, entry in ((View.OLD, pair.old), (View.NEW, pair.new)) if entry is not None)


def norm(digest: Digest, side: int) -> float:
    """‖x‖ over the finite elements of a side."""
    rms, nonfinite = ((digest.old_rms, digest.old_nonfinite), (digest.new_rms, digest.new_nonfinite))[side]
    return (rms or 0.0) * sqrt(max(0, digest.numel - nonfinite))


def groups(evidence: ModelEvidence) -> Iterator[Group]:
    """Every role and shape that has sketches."""
    found: dict[tuple[str, tuple[int, ...]], tuple[list[tuple[Digest, Any]], list[tuple[Digest, Any]]]] = {}
    for digest in evidence.tensors:
        extras = evidence.extras.get(digest.name, {})
        for side, view in enumerate((View.OLD, View.NEW)):
            columns = extras.get(Sketch(view))
            if columns is not None and norm(digest, side) > 0:
                found.setdefault((digest.role, digest.shape), ([], []))[side].append((digest, columns))
    for (role, _), sides in found.items():
        sketches = [np.array([c["sketch"] for _, c in side], np.float64) if side else np.zeros((0, 1)) for side in sides]
        is_exact = any(columns["is_exact"] for side in sides for _, columns in side)
        digests = [tuple(digest for digest, _ in side) for side in sides]
        yield Group(role, digests[0], digests[1], sketches[0], sketches[1], is_exact)


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """One record a role and shape that both sides have."""
    told = False
    for group in groups(evidence):
        if not group.old or not group.new:
            continue
        told = True
        if max(len(group.old), len(group.new)) > MAX_TENSORS:
            yield Skipped(group.role, f"has {len(group.old):,} tensors of one shape, more than {MAX_TENSORS:,}")
        else:
            yield Finding("model", group.role, "measured", _fields(group, options))
    if not told:
        yield Skipped("model", "no weights of two or more axes were read on both sides")


def cosines(left: Matrix, right: Matrix, left_norms: Matrix, right_norms: Matrix) -> Matrix:
    """Cosines of all pairs from sketches and exact norms, within [-1, 1]."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = left @ right.T / left_norms[:, None] / right_norms[None, :]
    return np.clip(found, -1.0, 1.0)


def exact_cosine(digest: Digest) -> float:
    """Of old and new of one tensor, from Σd² and the norms: 1 - (Σd² - (‖n‖ - ‖o‖)²) / (2‖o‖‖n‖)."""
    old, new = norm(digest, 0), norm(digest, 1)
    return float(np.clip(1 - (digest.delta_squares - (new - old) ** 2) / (2 * old * new), -1.0, 1.0))


def _fields(group: Group, options: Options) -> dict[str, Any]:
    sides = [np.array([norm(digest, side) for digest in digests]) for side, digests in enumerate((group.old, group.new))]
    matrix = cosines(group.old_sketches, group.new_sketches, *sides)
    columns = {digest.name: column for column, digest in enumerate(group.new)}
    diagonal = [(row, columns[digest.name], digest) for row, digest in enumerate(group.old) if digest.name in columns]
    is_own = np.zeros(matrix.shape, np.bool_)
    own: dict[str, float] = {}
    for row, column, digest in diagonal:
        is_own[row, column] = True
        if digest.compared_count and not (digest.old_nonfinite or digest.new_nonfinite):
            own[digest.name] = matrix[row, column] = exact_cosine(digest)
    least = min(own, key=lambda name: own[name]) if own else None
    away = np.where(is_own, -np.inf, matrix)
    others = away[np.isfinite(away)]
    fields: dict[str, Any] = {
        "role": group.role,
        "shape": list(group.old[0].shape),
        "old_count": len(group.old),
        "new_count": len(group.new),
        "width": WIDTH,
        "standard_error": 0.0 if group.is_exact else sqrt((1 + float((others**2).mean())) / WIDTH) if others.size else None,
        "mean_diagonal": float(np.mean(list(own.values()))) if own else None,
        "min_diagonal": own[least] if least is not None else None,
        "least_alike": least,
        "max_off_diagonal": float(others.max()) if others.size else None,
        "alike_above": ALIKE,
        "alike": _alike(group, away, options),
        "map": _map(matrix),
    }
    if options.histograms:
        fields |= {
            "old_tensors": [d.name for d in group.old],
            "new_tensors": [d.name for d in group.new],
            "matrix": matrix.tolist(),
        }
    return fields


def _alike(group: Group, away: Matrix, options: Options) -> list[dict[str, Any]]:
    """Tensors of old that new holds elsewhere, most alike first."""
    rows, columns = np.nonzero(away > ALIKE)
    order = np.lexsort((columns, rows, -away[rows, columns]))
    return [
        {
            "old": group.old[rows[i]].name,
            "new": group.new[columns[i]].name,
            "cosine": float(away[rows[i], columns[i]]),
            "standard_error": 0.0 if group.is_exact else sqrt((1 + float(away[rows[i], columns[i]]) ** 2) / WIDTH),
        }
        for i in (order[: options.top] if options.top else order)
    ]


def _map(matrix: Matrix) -> str:
    """A line a tensor of old, a sign a tensor of new, darker the larger |cosine|; the largest of neighbours in a larger one."""
    cuts = [np.unique(np.linspace(0, count, min(count, MAP_CELLS) + 1).astype(int))[:-1] for count in matrix.shape]
    small = np.maximum.reduceat(np.maximum.reduceat(abs(matrix), cuts[0], axis=0), cuts[1], axis=1)
    shades = np.minimum((small * len(SHADES)).astype(int), len(SHADES) - 1)
    return "\n".join("|" + "".join(SHADES[shade] for shade in line) + "|" for line in shades) + "\n"


class Duplicate(NamedTuple):
    """Two tensors of one side (0 or 1), and 1 - cosine from the difference of their sketches."""

    side: int
    first: str
    second: str
    distance: float


def duplicates(evidence: ModelEvidence, constant: Collection[str]) -> Iterator[Duplicate]:
    """Tensors of one side with 1 - cosine below DUPLICATE_BELOW; constant ones are left out.

    Cosines of sketches err by 1/64, the difference of two by 2 % of itself: ‖s_x/‖x‖ - s_y/‖y‖‖²/2, of unit vectors so that a
    scaled copy is told as well as one of the same size.
    """
    for group in groups(evidence):
        for side, (digests, sketches) in enumerate(((group.old, group.old_sketches), (group.new, group.new_sketches))):
            if digests and len(digests) <= MAX_TENSORS and digests[0].numel >= WIDTH:
                names = [digest.name for digest in digests]
                unit = sketches / np.array([norm(digest, side) for digest in digests])[:, None]
                for i, j, distance in _near(unit):
                    if not {names[i], names[j]} & set(constant):
                        yield Duplicate(side, names[i], names[j], distance)


def _near(unit: Matrix) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows whose 1 - cosine is below DUPLICATE_BELOW."""
    rows, columns = np.nonzero(np.triu(unit @ unit.T > ALIKE, 1))
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        distance = float(((unit[i] - unit[j]) ** 2).sum()) / 2
        if distance < DUPLICATE_BELOW:
            yield i, j, distance
