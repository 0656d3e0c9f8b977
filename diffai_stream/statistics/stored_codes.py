"""Codes and scales of a quantized side as they are stored: how much of the range of codes is used, which scales are broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffai_stream.statistics.base import OneSided, Tile
from diffai_stream.statistics.layout import View

if TYPE_CHECKING:
    from diffai_stream.encodings.inspection import Inspection


class CodeState(NamedTuple):
    """What was found, by whoever held the first element of the tensor."""

    found: Inspection | None


@dataclass(frozen=True)
class StoredCodes(OneSided[CodeState]):
    """Entropy and saturation of the codes, count and range of the scales; all of the tensor at once, with its first tile."""

    view: View = View.NEW

    @property
    def positional(self) -> bool:
        """Yes: the first tile looks at the whole tensor."""
        return True

    def empty(self) -> CodeState:
        """Nothing found."""
        return CodeState(None)

    def update(self, state: CodeState, tile: Tile) -> CodeState:
        """Look at the tensor when this is its first tile."""
        side = tile.stored[self.view]
        return CodeState(side.inspect()) if tile.first == 0 and side is not None else state

    def merge(self, left: CodeState, right: CodeState) -> CodeState:
        """What either part found."""
        return left if left.found is not None else right

    def finalize(self, state: CodeState) -> dict[str, Any]:
        """Figures by name, None where there are no such codes or scales."""
        found = state.found
        entropy, saturation = _code_figures(found) if found is not None else (None, None)
        return {
            "code_entropy_bits": entropy,
            "saturation_ratio": saturation,
            "scale_count": found.scale_count if found is not None else None,
            "nonfinite_scales": found.nonfinite_scales if found is not None else None,
            "zero_scales": found.zero_scales if found is not None else None,
            "smallest_scale": found.smallest_scale if found is not None else None,
            "largest_scale": found.largest_scale if found is not None else None,
        }


def _code_figures(found: Inspection) -> tuple[float | None, float | None]:
    """(Shannon entropy in bits, share of the codes at the limits)."""
    if found.codes is None or not found.codes.sum():
        return None, None
    share = found.codes / found.codes.sum()
    used = share[share > 0]
    return float(-(used * np.log2(used)).sum()) + 0.0, float(share[list(found.limits)].sum())
