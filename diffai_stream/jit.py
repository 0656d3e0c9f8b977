"""numba, set up once: the decorators of kernels, and how an entry is compiled to machine code.

Kernels run without the GIL (dask brings the threads), without bounds checks, and never in parallel inside (numba's
`parallel=True` is unsafe under a thread pool, numba #8563). `fastmath` stays off: sums are written as explicit lanes, so
that every CPU gives the same bits. Nothing on the way to a comparison imports this module unless something has to be
compiled: see `native.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime.context import NRTContext
from numba.extending import intrinsic, overload

from diffai_stream.native import PLACES

__all__ = [
    "carray",
    "compile_object",
    "inlined",
    "matrix",
    "number",
    "overload",
    "part",
    "prefetch",
    "real",
    "types",
    "vector",
]

F = TypeVar("F", bound=Callable[..., Any])
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
OPTIONS = {"nogil": True, "parallel": False, "boundscheck": False, "error_model": "numpy"}


def part(function: F) -> F:
    """Compile a loop that only kernels and entries call: it is kept inside them, and cannot be called from Python."""
    return numba.njit(**OPTIONS, **INNER)(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """A piece of a loop, put into its caller by the compiler."""
    return numba.njit(forceinline=True, **OPTIONS, **INNER)(function)  # type: ignore[no-any-return]


def compile_object(function: Callable[..., None]) -> tuple[str, bytes]:
    """(symbol, object code) of an entry: a function of a pointer to int64, unless its `signature` says otherwise."""
    signature = getattr(function, "signature", types.void(types.CPointer(types.int64)))
    with _once():
        compiled = numba.cfunc(signature, nopython=True, error_model="numpy")(function)
        library = compiled._library
        library._ensure_finalized()  # links what it calls
    for inner in library._final_module.functions:
        if not inner.is_declaration and inner.name != compiled.native_name:
            inner.linkage = "internal"  # nobody else calls it: it loses the arguments that it does not use, or is inlined
    library._optimize_final_module()
    return compiled.native_name, library.codegen._tm.emit_object(library._final_module)


@contextmanager
def _once() -> Iterator[None]:
    """Optimize and emit nothing meanwhile: numba would do it for each function and again with all that call it.

    Nothing is counted as referenced either: the arrays of an entry belong to its caller.
    """

    def collect(library: Any) -> None:
        library._finalize_dynamic_globals()
        library._finalized = True

    replaced: dict[tuple[type, str], Any] = {
        (JITCodeLibrary, "_optimize_final_module"): lambda library: None,
        (JITCodeLibrary, "_finalize_final_module"): collect,
        (JITCodeLibrary, "get_pointer_to_function"): lambda library, name: 0,
        (JITCPUCodegen, "set_env"): lambda codegen, name, environment: None,
        (NRTContext, "_call_incref_decref"): lambda context, builder, kind, value, name: None,
    }
    with global_compiler_lock:
        kept = {place: getattr(*place) for place in replaced}
        try:
            for (owner, name), method in replaced.items():
                setattr(owner, name, method)
            yield
        finally:
            for (owner, name), method in kept.items():
                setattr(owner, name, method)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing_context: Any, address: Any) -> Any:
    """An address as a pointer that carray takes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask the processor to load the cache line of array[index], which may lie past the end; never faults."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        items = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(items.data, [arguments[1]]), byte)
        shape = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [byte], shape), [address, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@inlined
def vector(block, k, dtype):  # type: ignore[no-untyped-def]
    """Argument k of an entry as a one-dimensional array."""
    return carray(pointer(block[PLACES * k]), (block[PLACES * k + 1],), dtype)


@inlined
def matrix(block, k, dtype):  # type: ignore[no-untyped-def]
    """Argument k of an entry as a two-dimensional array."""
    return carray(pointer(block[PLACES * k]), (block[PLACES * k + 1], block[PLACES * k + 2]), dtype)


@inlined
def number(block, k):  # type: ignore[no-untyped-def]
    """Argument k of an entry as an integer."""
    return block[PLACES * k]


@inlined
def real(block, k):  # type: ignore[no-untyped-def]
    """Argument k of an entry as a float64, passed by its bits."""
    return np.int64(block[PLACES * k]).view(np.float64)
