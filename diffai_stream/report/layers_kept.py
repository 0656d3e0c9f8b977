"""What is kept of the layers: an even sample of them with their change by role, and the classes their changes fall into."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from statistics import quantiles
from typing import Any, Final, Generic, Self, TypeVar

from diffai_stream.report.figures import finite, number
from diffai_stream.report.records import Record

T = TypeVar("T")
MAX_LAYERS: Final = 48
LEVELS: Final = 4
_ROLE_ORDER: Final = (
    *("embed", "qkv", "q", "k", "v", "o", "x.qkv", "x.q", "x.k", "x.v", "x.o", "gate_up", "gate", "up", "down"),
    *("router", "e.gate_up", "e.gate", "e.up", "e.down", "s.gate_up", "s.gate", "s.up", "s.down", "conv", "norm"),
    *("lm_head", "bias"),
)
_PREFIXES: Final = {"attention": "", "mlp": "", "cross_attention": "x.", "experts": "e.", "shared_expert": "s."}
_MAX_DECADES: Final = 4.0
_WHISKER: Final = 1.5  # of the range of the middle half
_MIN_REACH: Final = 0.5  # decades: what lies within a factor of three of the middle half is none of the few


@dataclass(frozen=True)
class Layer:
    """One layer: its relative change, that of each role, and the merged figures of old, new and delta."""

    name: str
    relative_l2: float | None
    roles: Mapping[str, float | None]
    stats: Mapping[str, Any]


class EvenSample(Generic[T]):
    """Keeps at most `2 * limit` of any number of items, evenly spaced, without knowing how many will come."""

    def __init__(self, limit: int = MAX_LAYERS) -> None:
        self.seen = 0
        self._limit = limit
        self._stride = 1
        self._kept: list[T] = []

    def add(self, item: T) -> None:
        """Keep the item if it lies on the current stride."""
        if self.seen % self._stride == 0:
            self._kept.append(item)
        self.seen += 1
        if len(self._kept) > 2 * self._limit:
            self._kept = self._kept[::2]
            self._stride *= 2

    def items(self) -> list[T]:
        """At most `limit` of the kept items, first and last included."""
        total = len(self._kept)
        if total <= self._limit:
            return self._kept
        return [self._kept[round(i * (total - 1) / (self._limit - 1))] for i in range(self._limit)]


class LayerList:
    """Collects `layer_impact` records: an even sample of the layers, and the ranking."""

    def __init__(self, limit: int = MAX_LAYERS) -> None:
        self._sample = EvenSample[Layer](limit)
        self.ranking: Sequence[Mapping[str, Any]] = ()

    def add(self, record: Record) -> None:
        """Note one layer, or the ranking of the model record."""
        if record.get("scope") == "layer":
            by_role = _by_role(record.get("roles") or ())
            self._sample.add(Layer(record["subject"], record.get("relative_l2"), by_role, record.get("stats") or {}))
        elif record.get("ranking"):
            self.ranking = record["ranking"]

    @property
    def total(self) -> int:
        """How many layers there were."""
        return self._sample.seen

    def layers(self) -> list[Layer]:
        """Those to show, in the order of the model."""
        return self._sample.items()


@dataclass(frozen=True)
class ChangeScale:
    """Classes of relative change: class i reaches from the bound before it up to and with `bounds[i]`.

    The bounds are spaced evenly in the logarithm over the bulk of the values, and are the numbers that the legend shows.
    Few layers far above the bulk, an exploded one say, have a class of their own `above` the last bound: they do not push all
    others into one class.
    """

    bounds: tuple[float, ...]
    above: bool
    undefined: bool

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> Self | None:
        """The scale of these layers; None when nothing changed."""
        cells = [cell for layer in layers for cell in layer.roles.values()]
        positive = sorted(cell for cell in cells if cell is not None and cell > 0)
        if not positive:
            return None
        low, high = _bulk([math.log10(cell) for cell in positive])
        top = _rounded_up(max(cell for cell in positive if math.log10(cell) <= high))
        above = positive[-1] > top
        steps = LEVELS - above
        inner = (float(number(10 ** (low + (high - low) * step / steps))) for step in range(1, steps))
        return cls(tuple(sorted({*inner, top})), above, None in cells)

    def level(self, relative_l2: float) -> int:
        """Level 0..3 of a positive relative change; a map of fewer classes has no use for the lightest."""
        return LEVELS - len(self.bounds) - self.above + bisect_left(self.bounds, relative_l2)


def _bulk(logs: Sequence[float]) -> tuple[float, float]:
    """From and to of ascending values without those far from the middle half, as the whiskers of a box plot."""
    first, _, third = quantiles(logs, n=4, method="inclusive") if len(logs) > 1 else (logs[0], logs[0], logs[0])
    reach = max(_WHISKER * (third - first), _MIN_REACH)
    high = max(log for log in logs if log <= third + reach)
    low = min(log for log in logs if log >= first - reach)
    return max(low, high - _MAX_DECADES), high


def _rounded_up(positive: float) -> float:
    """The least number of three significant digits that is not below this one."""
    return float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(repr(positive)))


def short_role(role: str) -> str:
    """The title of the column a role belongs to: all norms share one, and all biases; `x.` cross attention, `e.` experts."""
    family, *rest = role.split(".")
    if rest and rest[-1] == "bias":
        return "bias"
    if role == "embedding":
        return "embed"
    if family in ("norm", "final_norm", "batch_norm"):
        return "norm"
    if family not in _PREFIXES or not rest:
        return role
    return _PREFIXES[family] + ".".join(rest).removesuffix("_proj")


def _by_role(roles: Sequence[Mapping[str, object]]) -> dict[str, float | None]:
    """Relative change by role, the greatest where several share a column."""
    found: dict[str, float | None] = {}
    for entry in roles:
        role, relative_l2 = short_role(str(entry.get("role") or "other")), entry.get("relative_l2")
        earlier = found.get(role)
        current = finite(relative_l2)
        found[role] = current if earlier is None else max(earlier, current or 0.0)
    return found


def ordered_roles(layers: Sequence[Layer]) -> list[str]:
    """All roles, the known ones in the order in which data flows through a block, then the others as they came."""
    present = dict.fromkeys(role for layer in layers for role in layer.roles)
    order = {role: place for place, role in enumerate(_ROLE_ORDER)}
    return sorted(present, key=lambda role: order.get(role, len(order)))
