"""numba, set up once: where compiled kernels are kept, and the one decorator every kernel uses.

Kernels run without the GIL (dask brings the threads), without bounds checks, and never in parallel inside (numba's
`parallel=True` is unsafe under a thread pool, numba #8563). `fastmath` stays off: sums are written as explicit lanes, so
that every CPU gives the same bits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def _candidates() -> list[Path]:
    """Folders for compiled kernels, best first: the user's choice, the package, the user's cache, a temporary folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    package = Path(__file__).parent / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    user = f"diffai_stream-{os.getuid() if hasattr(os, 'getuid') else os.environ.get('USERNAME', 'user')}"
    rest = [package, Path(home) / "diffai_stream", Path(tempfile.gettempdir()) / user]
    return [Path(chosen), *rest] if chosen else rest


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid not in (os.getuid(), 0):
            return False  # a folder that someone else may write into could hold someone else's code
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, AttributeError):
        return False


def cache_folder() -> Path | None:
    """The first writable candidate, or None: then kernels are compiled in every process."""
    return next((folder for folder in _candidates() if _writable(folder)), None)


CACHE_FOLDER = cache_folder()
if CACHE_FOLDER is not None and CACHE_FOLDER.name != "__pycache__":
    os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE_FOLDER))

import numba  # noqa: E402 - it reads NUMBA_CACHE_DIR when imported
from numba import types  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba.extending import intrinsic, overload  # noqa: E402

__all__ = ["CACHE_FOLDER", "cache_folder", "inlined", "kernel", "overload", "part", "prefetch", "types"]

if CACHE_FOLDER is not None and CACHE_FOLDER.name != "__pycache__":
    numba.config.CACHE_DIR = str(CACHE_FOLDER)  # in case someone imported numba before us


OPTIONS = {"nogil": True, "parallel": False, "boundscheck": False, "error_model": "numpy"}


def kernel(function: F) -> F:
    """Compile a loop on first use and keep it on disk when a folder is writable."""
    return numba.njit(cache=CACHE_FOLDER is not None, **OPTIONS)(function)  # type: ignore[no-any-return]


def part(function: F) -> F:
    """Compile a loop that only kernels call: it is kept inside them, not by itself."""
    return numba.njit(**OPTIONS)(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """A piece of a kernel that takes many buffers: put into its caller, because passing them costs more than the work."""
    return numba.njit(inline="always", **OPTIONS)(function)  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask the processor to load the cache line of array[index], which may lie past the end; never faults."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        items = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = ir.IntType(8).as_pointer()
        address = builder.bitcast(builder.gep(items.data, [arguments[1]]), byte)
        flag = ir.IntType(32)
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]))
        builder.call(function, [address, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
