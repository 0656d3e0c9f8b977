"""What changed between these two models? A streaming comparison of checkpoints of any size.

    from diffai_stream import compare
    for record in compare("base.safetensors", "finetuned.safetensors"):
        ...

Importing the package loads neither numpy nor numba, dask or torch; the names below are loaded when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from diffai_stream._version import __version__

if TYPE_CHECKING:
    from diffai_stream.comparison import Comparison
    from diffai_stream.formats.catalogue import open_checkpoint
    from diffai_stream.options import Options
    from diffai_stream.pipeline import compare, inspect, merge_profiles, profile

__all__ = ["Comparison", "Options", "__version__", "compare", "inspect", "merge_profiles", "open_checkpoint", "profile"]

_HOMES = {
    "Comparison": "diffai_stream.comparison",
    "compare": "diffai_stream.pipeline",
    "inspect": "diffai_stream.pipeline",
    "merge_profiles": "diffai_stream.pipeline",
    "profile": "diffai_stream.pipeline",
    "open_checkpoint": "diffai_stream.formats.catalogue",
    "Options": "diffai_stream.options",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
