"""The layer heat map: a row a layer, a column a role, glyphs by the logarithm of the relative change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from diffai_stream.report.figures import aligned, finite, number, percent
from diffai_stream.report.layers_kept import ChangeScale, Layer, LayerList, ordered_roles
from diffai_stream.report.page import Page

_STYLES: Final = ("color(31)", "color(36)", "color(178)", "color(196)")
_ABOVE_STYLE: Final = "bold red"
_CELL_WIDTH: Final = 4
_RANKED: Final = 3


class HeatMap(LayerList):
    """Collects `layer_impact` records and prints them as a map."""

    def render(self, page: Page) -> None:
        """Print the map, its legend and the layers that changed most; nothing when no layer changed."""
        layers = self.layers()
        scale = _Scale.of(layers)
        if scale is None:
            return
        page.heading("Change by layer and role")
        self._render_map(page, layers, scale)
        page.flow(scale.legend(page))
        if len(layers) < self.total:
            page.paragraph(f"  {len(layers)} of {self.total:,} layers shown, evenly sampled", style="dim", indent=4)
        self._render_ranking(page)

    def _render_map(self, page: Page, layers: Sequence[Layer], scale: _Scale) -> None:
        roles = ordered_roles(layers)
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
        if not self.ranking:
            return
        parts = []
        for place in self.ranking[:_RANKED]:
            energy = place.get("energy_ratio")
            share = f", {percent(energy)} of all change" if isinstance(energy, float) else ""
            parts.append(f"{page.name(str(place.get('layer')))} ({number(finite(place.get('relative_l2')))}{share})")
        page.paragraph("  most changed: ", "; ".join(parts), indent=4)


@dataclass(frozen=True)
class _Scale(ChangeScale):
    """The classes as glyphs and colours."""

    def style(self, level: int) -> str:
        """The colour of a level."""
        return _ABOVE_STYLE if self.above and level == len(_STYLES) - 1 else _STYLES[level]

    def cell(self, page: Page, layer: Layer, role: str) -> tuple[str, str]:
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


def _key(glyph: str, style: str, text: str) -> Text:
    return Text.assemble((glyph * 2, style), (f" {text}", "dim"))


def _roles_that_fit(roles: Sequence[str], titles: Mapping[str, str], room: int) -> list[str]:
    shown: list[str] = []
    for role in roles:
        room -= cell_len(titles[role]) + 1
        if room < 0:
            break
        shown.append(role)
    return shown
