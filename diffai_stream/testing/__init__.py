"""The contracts: classes of checks that this project runs on its own rows, and authors of plug-ins on theirs.

Inherit in a test module and let pytest run it; `docs/development/write-a-plugin.md` shows how.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffai_stream.testing.analyses import AnalysisContract
    from diffai_stream.testing.encodings import EncodingContract, Sample
    from diffai_stream.testing.formats import FormatContract
    from diffai_stream.testing.statistics import StatisticLaws
    from diffai_stream.testing.writers import WriterContract

__all__ = ["AnalysisContract", "EncodingContract", "FormatContract", "Sample", "StatisticLaws", "WriterContract"]

_HOMES = {
    "AnalysisContract": "analyses",
    "EncodingContract": "encodings",
    "FormatContract": "formats",
    "Sample": "encodings",
    "StatisticLaws": "statistics",
    "WriterContract": "writers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
