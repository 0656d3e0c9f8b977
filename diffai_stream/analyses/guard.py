"""The functions of a plug-in's analysis: what goes wrong in them is told, and the run goes on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from diffai_stream.errors import DiffaiError
from diffai_stream.plugins import is_broken, note, told

if TYPE_CHECKING:
    from diffai_stream.analyses.base import Analysis

FINDING = ("tensor", "layer", "model")
INSTEAD: dict[str, Any] = {"needs": (), "needs_in": lambda pair: (), "check": None}
"""What stands for the result of a function that failed before anything was read."""


class Guarded:
    """The module of a plug-in's analysis as the run sees it."""

    def __init__(self, row: Analysis, module: ModuleType) -> None:
        self._row, self._module = row, module

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        if name in FINDING:
            return _finding(self._row, name, function)
        return _planning(self._row, function, INSTEAD[name]) if name in INSTEAD else function


def _finding(row: Analysis, scope: str, function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """The function of a scope; when it fails the analysis is over for this run, and says so once."""

    @wraps(function)
    def guarded(evidence: Any, options: Any) -> Iterator[Any]:
        failed = evidence.run.memo.setdefault("failed", set())
        if row.name in failed or is_broken("analyses", row.name, row.plugin):
            return
        try:
            yield from function(evidence, options)
        except DiffaiError:
            raise
        except Exception as error:
            from diffai_stream.analyses.base import Skipped

            failed.add(row.name)
            skipped = Skipped("model", f"its plug-in {row.plugin} failed: {told(error)}")
            yield (0, skipped) if scope == "tensor" else skipped

    return guarded


def _planning(row: Analysis, function: Callable[..., Any], instead: Any) -> Callable[..., Any]:
    """A function that is called before anything is read; when it fails the analysis is left out."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except DiffaiError:
            raise
        except Exception as error:
            note("analyses", row.name, row.plugin, told(error))
            return instead

    return guarded
