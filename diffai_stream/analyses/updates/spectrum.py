"""spectrum: the directions of a change, its ranks, and what adapters of the usual ranks could hold of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import median
from typing import Any

import numpy as np

from diffai_stream.analyses.base import Finding, ModelEvidence, PlacedFindings, Skipped, Table
from diffai_stream.options import Options
from diffai_stream.plan.parts import WEIGHTS
from diffai_stream.statistics.delta_spectrum import WIDTH, DeltaSpectrum
from diffai_stream.statistics.describe import field, finite, sum_of_squares, total
from diffai_stream.statistics.layout import View

NAME = "spectrum"
ENERGY_SHARE = 0.9
RANKS = (1, 4, 8, 16, 32, 64)
SHOWN = 8


def needs(pair: Any, options: Options) -> tuple[Any, ...]:
    """A sketch of the change of every matrix."""
    is_compared = pair.status == "paired" and pair.part == WEIGHTS and not pair.identical
    return (DeltaSpectrum(),) if NAME in options.analyses and is_compared and len(pair.old.shape) == 2 else ()


def tensor(table: Table, options: Options) -> PlacedFindings:
    """One record a matrix that changed."""
    squares = sum_of_squares(table.rows, View.DELTA) * (field(table.rows, View.DELTA, "n") > 0)
    for place, evidence in enumerate(table.evidence):
        columns = evidence.extras.get(DeltaSpectrum())
        whole = float(squares[place])
        if columns is not None and np.isfinite(whole) and whole > 0:
            yield place, Finding("tensor", evidence.pair.name, "measured", _fields(columns, whole, evidence.pair.old.shape))


def _fields(columns: dict[str, Any], whole: float, shape: Sequence[int]) -> dict[str, Any]:
    squares = columns["squares"]
    held = np.minimum(np.cumsum(squares) / whole, 1.0)
    enough = np.flatnonzero(held >= ENERGY_SHARE)
    energies = [{"rank": rank, "energy_ratio": float(held[rank - 1])} for rank in RANKS if rank <= len(held)]
    lora = next((row["rank"] for row in energies if row["energy_ratio"] >= ENERGY_SHARE), None)
    top = float(squares[0])
    return {
        "delta_l2_norm": finite(sqrt(whole)),
        "stable_rank": whole / top if top > 0 else None,
        "effective_rank": _effective_rank(squares, columns["fourth"], whole, min(shape)),
        "energy_rank": int(enough[0]) + 1 if enough.size else None,
        "energy_share": ENERGY_SHARE,
        "rank_limit": len(squares),
        "captured_ratio": float(held[-1]),
        "rank_energies": energies,
        "lora_rank": lora,
        "lora_parameter_ratio": lora * sum(shape) / (shape[0] * shape[1]) if lora else None,
        "singular_values": [sqrt(value) for value in squares[:SHOWN].tolist() if value > 0],
    }


def _effective_rank(squares: Any, fourth: float, whole: float, most: int) -> float | None:
    """(Σσ²)²/Σσ⁴: from the directions themselves where they hold all of the change, else from the estimate of Σσ⁴."""
    own = float((squares**2).sum())
    fourth = own if squares.sum() >= 0.99 * whole else max(fourth, own)
    return min(whole * whole / fourth, float(most)) if fourth > 0 else None


def model(evidence: ModelEvidence, options: Options) -> Iterator[Finding | Skipped]:
    """The matrices together; why there is nothing, when there is nothing."""
    found = [f for f in evidence.findings.get(NAME, ()) if f.scope == "tensor"]
    if not found:
        yield Skipped("model", "no matrix changed")
        return
    squares = {tensor.name: tensor.delta_squares for tensor in evidence.tensors}
    whole = total(squares[f.subject] for f in found)
    energies = []
    for rank in RANKS:
        held = total(squares[f.subject] * _held(f, rank) for f in found)
        energies.append({"rank": rank, "energy_ratio": min(held / whole, 1.0)})
    numels = {tensor.name: tensor.compared_count for tensor in evidence.tensors}
    fields = {
        "delta_l2_norm": finite(sqrt(whole)),
        "stable_rank": _median(found, "stable_rank"),
        "effective_rank": _median(found, "effective_rank"),
        "energy_share": ENERGY_SHARE,
        "rank_limit": WIDTH,
        "captured_ratio": min(total(squares[f.subject] * f.fields["captured_ratio"] for f in found) / whole, 1.0),
        "rank_energies": energies,
        "lora_rank": next((row["rank"] for row in energies if row["energy_ratio"] >= ENERGY_SHARE), None),
        "matrix_count": len(found),
        "lora_matrix_count": sum(f.fields["lora_rank"] is not None for f in found),
        "operation_count": sum(4 * f.fields["rank_limit"] * numels[f.subject] for f in found),
    }
    yield Finding("model", "model", "measured", fields)


def _held(found: Finding, rank: int) -> float:
    """What `rank` directions hold; a smaller sketch is the whole matrix."""
    told = {row["rank"]: row["energy_ratio"] for row in found.fields["rank_energies"]}
    return float(told.get(rank, found.fields["captured_ratio"]))


def _median(found: Sequence[Finding], name: str) -> float | None:
    values = [f.fields[name] for f in found if f.fields[name] is not None]
    return float(median(values)) if values else None
