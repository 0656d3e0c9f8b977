"""What the attention analyses share: which statistics they ask for, what is skipped and why, products head by head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.analyses.attention.heads import LayerHeads, Place, attentions
from diffai_stream.analyses.base import LayerEvidence, RunContext, Skipped
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.statistics.head_grams import HeadGrams

NOT_A_TRANSFORMER = "no layer has projections of queries, keys and values: not a transformer"
Grams = NDArray[np.float64]
Needs = Callable[[Any], Sequence[Any]]


class Products(NamedTuple):
    """float64[heads, d, d] of the heads of a projection: old·oldᵀ, new·newᵀ, old·newᵀ."""

    old: Grams
    new: Grams
    cross: Grams


def needs_for(name: str, letters: str, run: RunContext, options: Options, extra: Callable[[Place], Any] | None = None) -> Needs:
    """The products that an analysis needs of the projections `letters`, and what `extra` tells for each of all four.

    Raises UsageError where the analysis was asked for by name and what is told of heads contradicts every layer.
    """
    if name not in options.analyses:
        return lambda pair: ()
    found = attentions(run)
    if found.contradictions and not found.known and not options.all_analyses:
        layer, reason = next(iter(found.contradictions.items()))
        raise UsageError(f"{_flag(name)} cannot tell the heads of {layer}: {reason}")
    wanted: dict[str, list[Any]] = {}
    for heads in (heads for layer in found.known.values() for heads in layer):
        for letter, place in heads.places.items():
            asked = wanted.setdefault(place.tensor, [])
            asked += [HeadGrams(size=heads.size, axis=place.axis)] if letter in letters else []
            asked += [extra(place)] if extra else []
    return lambda pair: tuple(dict.fromkeys(wanted.get(pair.name, ())))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def reasons(run: RunContext) -> Iterator[Skipped]:
    """Why there are no records, or none of some layers: once for each reason."""
    found = attentions(run)
    told = Counter[str]()
    first: dict[str, str] = {}
    for layer, reason in (*found.unknown.items(), *found.contradictions.items()):
        told[reason] += 1
        first.setdefault(reason, layer)
    for reason, count in told.items():
        others = f" (and {count - 1:,} more layers)" if count > 1 else ""
        yield Skipped(first[reason] if found.known else "model", reason + (others if found.known else ""))
    if not found.known and not told:
        yield Skipped("model", NOT_A_TRANSFORMER)


def of_layer(evidence: LayerEvidence) -> tuple[LayerHeads, ...]:
    """The attentions of a layer, none where it has none."""
    return attentions(evidence.run).known.get(evidence.name, ())


def products(evidence: LayerEvidence, heads: LayerHeads, letters: Iterable[str]) -> dict[str, Products] | Skipped:
    """The products of projections by letter, or why one is not there."""
    found: dict[str, Products] = {}
    for letter in letters:
        place = heads.places.get(letter)
        if place is None:
            return Skipped(evidence.name, f"{letter}_proj is not a matrix on both sides")
        columns = evidence.extras.get(place.tensor, {}).get(HeadGrams(size=heads.size, axis=place.axis))
        if columns is None:
            return Skipped(evidence.name, f"{place.tensor} was not read, or its rows are too long")
        numbers = run_of(place.numbers)
        found[letter] = Products(*(columns[side][numbers] for side in ("old", "new", "cross")))
    return found


def run_of(numbers: Sequence[int]) -> slice | list[int]:
    """Neighbouring heads as a slice, which copies nothing."""
    first, count = (numbers[0] if numbers else 0), len(numbers)
    return slice(first, first + count) if list(numbers) == list(range(first, first + count)) else list(numbers)


def shared(values: Grams, heads: LayerHeads) -> Grams:
    """Of key and value heads one for each attention head that uses it."""
    return np.repeat(values, heads.heads // heads.kv_heads, axis=0)


def kv_head(head: int, heads: LayerHeads) -> int:
    """The key and value head that an attention head uses."""
    return head // (heads.heads // heads.kv_heads)


def inner(left: Grams, right: Grams) -> Grams:
    """⟨left, right⟩ of each head, not below 0 by rounding."""
    return np.asarray(np.einsum("hij,hij->h", left, right))


def head_fields(heads: LayerHeads) -> dict[str, Any]:
    """The fields that say which heads these are."""
    return {
        "attention": heads.kind,
        "head_count": heads.heads,
        "kv_head_count": heads.kv_heads,
        "heads_from": heads.source,
    }


def top(rows: list[dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    """The first rows, as many as asked for; all with `--histograms`."""
    return rows if options.histograms or not options.top else rows[: options.top]


def ratio(above: Grams, below: Grams) -> Grams:
    """above / below, NaN where below is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan))


def known(value: float) -> float | None:
    """A number, None for NaN and infinities."""
    return float(value) + 0.0 if np.isfinite(value) else None
