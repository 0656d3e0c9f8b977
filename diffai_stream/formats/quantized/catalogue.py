"""The rows of every family: which endings of names it looks at, in the order in which they are asked."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, Protocol, cast

from diffai_stream.formats.quantized.base import Folded, Found


class Family(Protocol):
    """A module of this package with one function."""

    def fold(self, found: Found) -> Folded | None:
        """The logical tensor, None when the stored tensor is not of this family. Raises Refused when it does not fit."""


class FamilyRow(NamedTuple):
    """One family: `triggers` are endings of the names of its telling tensors; `module` is imported when one is met."""

    name: str
    title: str
    triggers: tuple[str, ...]

    def load(self) -> Family:
        """The module of the family."""
        return cast(Family, import_module(f"diffai_stream.formats.quantized.{self.name}"))


FAMILIES: tuple[FamilyRow, ...] = (
    FamilyRow("fp8", "8-bit floats with scales per tensor, row or block", ("_scale_inv", "_scale", ".scale_weight", ".scale")),
)
