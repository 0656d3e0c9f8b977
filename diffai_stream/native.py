"""Compiled entry points: numba compiles each once, later processes load its machine code without numba.

Importing numba and loading a cached kernel through it costs half a second; placing an object file in memory (`linker.py`)
costs a millisecond. An entry is a function of one argument, the address of a block of int64: every array takes three
places (address and up to two sizes), every number one of three. The object files lie in the first folder that is
writable and our own, each under a key of everything it depends on: the module of the entry and all that this imports of
the package, numba, llvmlite, the processor. So a change to one kernel compiles anew what uses it, and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from diffai_stream.linker import load

PLACES = 3  # int64 of an argument in the block
PACKAGE = Path(__file__).parent
_IMPORT = re.compile(r"^[ \t]*(?:from (diffai_stream[.\w]*) import (\([^)]*\)|.*)|import (diffai_stream[.\w]*))", re.MULTILINE)
_DECLARES = re.compile(r"^from diffai_stream\.native import .*\bEntry\b", re.MULTILINE)
_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features")  # lines of /proc/cpuinfo
# What compiled code would call to raise or to free: never reached, since entries own no memory and check no bounds.
UNREACHED = (
    "NRT_Allocate",
    "NRT_Free",
    "NRT_MemInfo_alloc",
    "NRT_MemInfo_alloc_aligned",
    "NRT_MemInfo_call_dtor",
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)


def _candidates() -> Iterator[Path]:
    """Folders for compiled code, best first: the user's choice, the package, the user's cache, a temporary folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen)
    yield PACKAGE / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "diffai_stream"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"diffai_stream-{user}"


def _usable(folder: Path) -> bool:
    """Whether the folder is writable and belongs to us or root: in another's folder could lie another's code."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return not hasattr(os, "getuid") or folder.stat().st_uid in (os.getuid(), 0)
    except OSError:
        return False


@lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """Where compiled code is kept, or None: then every process compiles anew."""
    root = next((folder for folder in _candidates() if _usable(folder)), None)
    if root is None:
        return None
    folder = root / "kernels"
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError:
        return None
    return folder


@lru_cache(maxsize=64)
def key_of(module: str) -> str:
    """Hash of all that the machine code of a module's functions depends on: its sources, compiler, processor."""
    from xxhash import xxh3_64

    digest = xxh3_64(_environment())
    for path in sorted(_path_of(name) for name in sources_of(module)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _environment() -> bytes:
    """Versions of compiler and interpreter, and the processor."""
    return repr((_version_of("numba"), _version_of("llvmlite"), sys.version_info[:2], _processor())).encode()


def _version_of(package: str) -> str:
    """The text that tells a package's version; it is not imported, that takes longer than loading all machine code."""
    found = find_spec(package)
    return Path(found.origin).with_name("_version.py").read_text() if found is not None and found.origin else ""


def _processor() -> str:
    """What tells processors apart that run different code: as Linux tells it, else as the compiler sees it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = list(takewhile(str.strip, file))
    except OSError:
        first = []
    told = [line for line in first if line.startswith(_PROCESSOR)]
    if told:
        return "".join(told)
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


def sources_of(module: str) -> frozenset[str]:
    """The module and all modules of this package that it imports, directly or not, as far as the text of imports tells."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports_of(name)
    return frozenset(found)


@lru_cache(maxsize=256)
def _imports_of(module: str) -> tuple[str, ...]:
    """Modules of this package that a module's text imports, wherever it does so."""
    names: list[str] = []
    for base, imported, plain in _IMPORT.findall(_path_of(module).read_text("utf-8")):
        names += [base or plain, *(f"{base}.{word}" for word in re.findall(r"\w+", imported) if base)]
    return tuple(name for name in names if _path_of(name).is_file())


def _path_of(module: str) -> Path:
    return PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")


def all_entries() -> dict[str, Entry]:
    """Every entry of the package by name: the modules that declare some are found by their text, then imported."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if _DECLARES.search(path.read_text("utf-8")):
            import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    return Entry.registry


class Entry:
    """A compiled function, loaded or compiled when it is first called; calling it releases the GIL.

    `module` is where the function `name` lies; a name is used once in the whole package.
    """

    registry: dict[str, Entry] = {}  # noqa: RUF012 - filled by the constructor, read by warm-up and doctor
    on_compile: Callable[[str], None] | None = None
    _lock = threading.Lock()

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self._call: Callable[[int], None] | None = None
        self._address = 0
        Entry.registry[name] = self

    def __call__(self, *arguments: Any) -> None:
        """Call with arrays, numbers, tuples of them, or `Packed` blocks, in the order the entry unpacks them."""
        if self._call is None:
            self.load()
        assert self._call is not None
        block = np.array(pack(arguments), np.int64)
        self._call(block.ctypes.data)

    def address(self) -> int:
        """The address of the function, loaded."""
        self.load()
        return self._address

    @property
    def is_cached(self) -> bool:
        """Whether its machine code is on disk."""
        path = self._path()
        return path is not None and path.exists()

    def load(self) -> None:
        """Load the machine code, compiling it first when no process has."""
        with Entry._lock:
            if self._call is not None:
                return
            path = self._path()
            stored = _stored(path)
            if stored is None:
                with _only_process(path):
                    stored = _stored(path) or self._compile(path)
            self._address = _linked(*stored)
            self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._address)

    def _path(self) -> Path | None:
        folder = cache_folder()
        return folder / f"{self.name}-{key_of(self.module)}.o" if folder is not None else None

    def _compile(self, path: Path | None) -> tuple[str, bytes]:
        if Entry.on_compile is not None:
            Entry.on_compile(self.name)
        from diffai_stream.jit import compile_object

        symbol, code = compile_object(getattr(import_module(self.module), self.name))
        if path is not None:
            _store(path, symbol, code)
        return symbol, code


class Packed(list[int]):
    """Arguments already packed: for buffers that every call of an entry gets."""


def pack(arguments: Iterable[Any]) -> list[int]:
    """int64 places of arguments: address and sizes of arrays, numbers as they are, floats by their bits."""
    block: list[int] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            shape = argument.shape
            block += (argument.__array_interface__["data"][0], shape[0], shape[1] if len(shape) > 1 else 0)
        elif isinstance(argument, Packed):
            block += argument
        elif isinstance(argument, tuple):
            block += pack(argument)
        elif isinstance(argument, float):
            block += (int(np.float64(argument).view(np.int64)), 0, 0)
        else:
            block += (int(argument), 0, 0)
    return block


def _stored(path: Path | None) -> tuple[str, bytes] | None:
    """(symbol, object code) of a file, or None when it is missing or damaged."""
    from xxhash import xxh3_64

    try:
        data = path.read_bytes() if path is not None else b""
    except OSError:
        return None
    head, _, code = data.partition(b"\n")
    symbol, _, checksum = head.decode("ascii", "replace").partition(" ")
    return (symbol, code) if code and checksum == xxh3_64(code).hexdigest() else None


def _store(path: Path, symbol: str, code: bytes) -> None:
    """Write the file whole or not at all; a full disk only means compiling again."""
    from xxhash import xxh3_64

    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(f"{symbol} {xxh3_64(code).hexdigest()}\n".encode() + code)
        os.replace(file.name, path)
    except OSError:
        return


@contextmanager
def _only_process(path: Path | None) -> Iterator[None]:
    """Hold a lock file, so that of several processes one compiles and the others wait for it."""
    try:
        import fcntl
    except ImportError:
        path = None
    if path is None:
        yield
        return
    with open(path.with_suffix(".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@lru_cache(maxsize=1)
def _engine() -> Any:
    """The linker of the compiler, for systems and object files that `linker.py` does not know."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    for symbol in UNREACHED:
        if llvm.address_of_symbol(symbol) is None:
            llvm.add_symbol(symbol, abort)
    target = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)


def _linked(symbol: str, code: bytes) -> int:
    """The address of a function, its object file placed in memory."""
    address = load(symbol, code, UNREACHED)
    if address is not None:
        return address
    import llvmlite.binding as llvm

    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return int(engine.get_function_address(symbol))
