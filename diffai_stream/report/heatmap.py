"""The layer heat map: a row a layer, a column a role, glyphs by the logarithm of the relative change."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from itertools import pairwise
from statistics import quantiles
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from diffai_stream.report.figures import aligned, finite, number, percent
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record

MAX_LAYERS: Final = 48
_ROLE_ORDER: Final = (
    *("embed", "qkv", "q", "k", "v", "o", "x.qkv", "x.q", "x.k", "x.v", "x.o", "gate_up", "gate", "up", "down"),
    *("router", "e.gate_up", "e.gate", "e.up", "e.down", "s.gate_up", "s.gate", "s.up", "s.down", "conv", "norm"),
    *("lm_head", "bias"),
)
_STYLES: Final = ("color(31)", "color(36)", "color(178)", "color(196)")
_PREFIXES: Final = {"attention": "", "mlp": "", "cross_attention": "x.", "experts": "e.", "shared_expert": "s."}
_ABOVE_STYLE: Final = "bold red"
_MAX_DECADES: Final = 4.0
_WHISKER: Final = 1.5  # of the range of the middle half
_MIN_REACH: Final = 0.5  # decades: what lies within a factor of three of the middle half is none of the few
_RANKED: Final = 3
_CELL_WIDTH: Final = 4


@dataclass(frozen=True)
class _Layer:
    name: str
    relative_l2: float | None
    roles: Mapping[str, float | None]


class EvenSample:
    """Keeps at most `2 * limit` of any number of items, evenly spaced, without knowing how many will come."""

    def __init__(self, limit: int = MAX_LAYERS) -> None:
        self.seen = 0
        self._limit = limit
        self._stride = 1
        self._kept: list[_Layer] = []

    def add(self, item: _Layer) -> None:
        """Keep the item if it lies on the current stride."""
        if self.seen % self._stride == 0:
            self._kept.append(item)
        self.seen += 1
        if len(self._kept) > 2 * self._limit:
            self._kept = self._kept[::2]
            self._stride *= 2

    def items(self) -> list[_Layer]:
        """At most `limit` of the kept items, first and last included."""
        total = len(self._kept)
        if total <= self._limit:
            return self._kept
        return [self._kept[round(i * (total - 1) / (self._limit - 1))] for i in range(self._limit)]


class HeatMap:
    """Collects `layer_impact` records and prints them as a map."""

    def __init__(self) -> None:
        self._layers = EvenSample()
        self._ranking: Sequence[Mapping[str, float | str | None]] = ()

    def add(self, record: Record) -> None:
        """Note one layer, or the ranking of the model record."""
        if record.get("scope") == "layer":
            self._layers.add(_Layer(record["subject"], record.get("relative_l2"), _by_role(record.get("roles") or ())))
        elif record.get("ranking"):
            self._ranking = record["ranking"][:_RANKED]

    def render(self, page: Page) -> None:
        """Print the map, its legend and the layers that changed most; nothing when no layer changed."""
        layers = self._layers.items()
        scale = _Scale.of(layers)
        if scale is None:
            return
        page.heading("Change by layer and role")
        self._render_map(page, layers, scale)
        page.flow(scale.legend(page))
        if len(layers) < self._layers.seen:
            page.paragraph(f"  {len(layers)} of {self._layers.seen:,} layers shown, evenly sampled", style="dim", indent=4)
        self._render_ranking(page)

    def _render_map(self, page: Page, layers: Sequence[_Layer], scale: _Scale) -> None:
        roles = _ordered_roles(layers)
        names = [page.name(layer.name) for layer in layers]
        titles = {role: f"{page.shortened(page.name(role), 12):<{_CELL_WIDTH}}" for role in roles}
        name_width = max(1, min(max(cell_len(name) for name in names), max(page.width // 2 - 6, 8)))
        shown = _roles_that_fit(roles, titles, page.width - name_width - 13)
        header = "".join(" " + titles[role] for role in shown)
        page.line(f"  {'':<{name_width}} {header}  {'rel l2':>8}", style="dim")
        for layer, name in zip(layers, names, strict=True):
            short = page.shortened(name, name_width)
            line = Text("  " + short + " " * (name_width - cell_len(short) + 1))
            for role in shown:
                cell, style = scale.cell(page, layer, role)
                line.append(" ").append(cell * cell_len(titles[role]), style=style)
            page.line(line, f"  {aligned(layer.relative_l2):>8}")
        if len(shown) < len(roles):
            hidden = ", ".join(titles[role].strip() for role in roles if role not in shown)
            page.paragraph(f"  roles not shown: {hidden}", style="dim", indent=4)

    def _render_ranking(self, page: Page) -> None:
        if not self._ranking:
            return
        parts = []
        for place in self._ranking:
            energy = place.get("energy_ratio")
            share = f", {percent(energy)} of all change" if isinstance(energy, float) else ""
            parts.append(f"{page.name(str(place.get('layer')))} ({number(finite(place.get('relative_l2')))}{share})")
        page.paragraph("  most changed: ", "; ".join(parts), indent=4)


@dataclass(frozen=True)
class _Scale:
    """Classes of relative change: class i reaches from the bound before it up to and with `bounds[i]`.

    The bounds are spaced evenly in the logarithm over the bulk of the values, and are the numbers that the legend shows.
    Few layers far above the bulk, an exploded one say, have a class of their own `above` the last bound: they do not push all
    others into one class.
    """

    bounds: tuple[float, ...]
    above: bool
    undefined: bool

    @classmethod
    def of(cls, layers: Sequence[_Layer]) -> _Scale | None:
        """The scale of these layers; None when nothing changed."""
        cells = [cell for layer in layers for cell in layer.roles.values()]
        positive = sorted(cell for cell in cells if cell is not None and cell > 0)
        if not positive:
            return None
        low, high = _bulk([math.log10(cell) for cell in positive])
        top = _rounded_up(max(cell for cell in positive if math.log10(cell) <= high))
        above = positive[-1] > top
        steps = len(_STYLES) - above
        inner = (float(number(10 ** (low + (high - low) * step / steps))) for step in range(1, steps))
        return cls(tuple(sorted({*inner, top})), above, None in cells)

    def level(self, relative_l2: float) -> int:
        """Level 0..3 of a positive relative change; a map of fewer classes has no use for the lightest."""
        return len(_STYLES) - len(self.bounds) - self.above + bisect_left(self.bounds, relative_l2)

    def style(self, level: int) -> str:
        """The colour of a level."""
        return _ABOVE_STYLE if self.above and level == len(_STYLES) - 1 else _STYLES[level]

    def cell(self, page: Page, layer: _Layer, role: str) -> tuple[str, str]:
        """Glyph and style of one role of one layer; a blank where the layer has no such role."""
        if role not in layer.roles:
            return " ", ""
        relative_l2 = layer.roles[role]
        if relative_l2 is None:
            return "?", "dim"
        if relative_l2 == 0:
            return page.symbols.none, "dim"
        level = self.level(relative_l2)
        return page.symbols.levels[level], self.style(level)

    def legend(self, page: Page) -> list[Text]:
        """What the glyphs say, with the bounds."""
        texts = [f"up to {number(self.bounds[0])}"]
        texts += [f"{number(low)} to {number(high)}" for low, high in pairwise(self.bounds)]
        texts += [f"above {number(self.bounds[-1])}"] if self.above else []
        levels = range(len(_STYLES) - len(texts), len(_STYLES))
        keys = [_key(page.symbols.levels[level], self.style(level), text) for level, text in zip(levels, texts, strict=True)]
        parts = [Text("relative l2, log scale:", style="dim"), *keys, _key(page.symbols.none, "dim", "unchanged")]
        return [*parts, _key("?", "dim", "undefined, old is 0")] if self.undefined else parts


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


def _key(glyph: str, style: str, text: str) -> Text:
    return Text.assemble((glyph * 2, style), (f" {text}", "dim"))


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


def _ordered_roles(layers: Sequence[_Layer]) -> list[str]:
    """All roles, the known ones in the order in which data flows through a block, then the others as they came."""
    present = dict.fromkeys(role for layer in layers for role in layer.roles)
    order = {role: place for place, role in enumerate(_ROLE_ORDER)}
    return sorted(present, key=lambda role: order.get(role, len(order)))


def _roles_that_fit(roles: Sequence[str], titles: Mapping[str, str], room: int) -> list[str]:
    shown: list[str] = []
    for role in roles:
        room -= cell_len(titles[role]) + 1
        if room < 0:
            break
        shown.append(role)
    return shown
