"""What is installed, writable and usable here, and what to do where something is not. Nothing optional is imported."""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from diffai_stream._version import __version__
from diffai_stream.plugins import Catalogue, broken
from diffai_stream.report.colors import terminal_width, wants_color, wants_unicode
from diffai_stream.report.figures import size
from diffai_stream.report.records import SCHEMA_VERSION

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "distributed": ("distributed",),
    "arrow": ("pyarrow",),
    "charts": ("vl-convert-python",),
    "orbax": ("tensorstore", "zarr"),
    "zarr": ("zarr",),
    "formats": ("h5py", "gguf"),
    "clustering": ("scipy",),
    "remote": ("obstore",),
}
"""The libraries of each pip extra."""

MODULES = {"vl-convert-python": "vl_convert"}
"""What a library is imported as, where that is not its name."""

_CORE = ("numpy", "numba", "dask", "safetensors", "orjson", "click", "rich", "PyYAML", "threadpoolctl", "xxhash")
_MIN_OPEN_FILES = 256
_MIN_MEMORY_NBYTES = 1 << 30


class Check(NamedTuple):
    """One thing looked at; one that is not `required` may be missing without harm, `hint` says what to do about it."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
    required: bool = True


def checks() -> list[Check]:
    """All checks, the most basic ones first."""
    return [
        _python(),
        _versions(),
        *_libraries(),
        _kernels(),
        _cores(),
        _memory(),
        _open_files(),
        _temporary_folder(),
        _terminal(),
        *_extras(),
        *_plugins(),
    ]


def missing_libraries(extra: str) -> tuple[str, ...]:
    """The libraries of a pip extra that are not installed; none for no extra."""
    return tuple(name for name in EXTRAS.get(extra, ()) if find_spec(MODULES.get(name, name)) is None)


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", sys.version_info >= (3, 11), detail, "" if sys.version_info >= (3, 11) else "install Python 3.11")


def _versions() -> Check:
    return Check("diffai_stream", True, f"{__version__}, record schema {SCHEMA_VERSION}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _libraries() -> Iterator[Check]:
    versions = {name: _version(name) for name in _CORE}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = [name for name, version in versions.items() if not version]
    yield Check("libraries", not missing, found, f"pip install {' '.join(missing)}" if missing else "")


def _kernels() -> Check:
    """Where compiled kernels are kept and whether they are."""
    try:
        from diffai_stream.native import all_entries, cache_folder

        entries = all_entries().values()
    except ImportError as error:
        return Check("compiled kernels", False, f"{error.name} cannot be imported", "pip install --force-reinstall numba")
    folder = cache_folder()
    if folder is None:
        hint = "set NUMBA_CACHE_DIR to a writable folder: until then every run compiles for a while"
        return Check("compiled kernels", False, "no folder to keep them in is writable", hint, required=False)
    kept, total = sum(entry.is_cached for entry in entries), len(entries)
    hint = "" if kept == total else "diffai warmup"
    return Check("compiled kernels", kept == total, f"{kept} of {total} kept in {folder}", hint, required=False)


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", True, f"{usable} usable of {os.cpu_count() or usable}")


def _memory() -> Check:
    total, free = _memory_nbytes()
    if total is None:
        return Check("memory", True, "unknown on this system")
    enough = free is None or free >= _MIN_MEMORY_NBYTES
    detail = f"{size(free)} available of {size(total)}" if free is not None else size(total)
    hint = "" if enough else "fewer --workers or a smaller --chunk-size"
    return Check("memory", enough, detail, hint, required=False)


def _memory_nbytes() -> tuple[int | None, int | None]:
    """Total and available bytes, the limit of a container taken into account."""
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    known = {name: int(text.split()[0]) * 1024 for name, text in fields.items() if text.split()[:1]}
    total, free = known.get("MemTotal"), known.get("MemAvailable")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdecimal() and total is not None and int(limit) < total:
        used = _read("/sys/fs/cgroup/memory.current").strip()
        left = int(limit) - int(used) if used.isdecimal() else int(limit)
        return int(limit), max(left, 0)
    return total, free


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _MIN_OPEN_FILES
    shown = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    return Check("open files", enough, shown, "" if enough else f"ulimit -n {max(hard, _MIN_OPEN_FILES)}", required=False)


def _temporary_folder() -> Check:
    try:
        with tempfile.TemporaryFile():
            return Check("temporary folder", True, f"{tempfile.gettempdir()} is writable")
    except OSError as error:
        return Check("temporary folder", False, str(error), "set TMPDIR to a writable folder", required=False)


def _terminal() -> Check:
    stream: TextIO | None = sys.stdout
    if stream is None:
        return Check("standard output", False, "closed", "redirect it to a file or a pipe")
    width = terminal_width(stream, os.environ)
    kind = f"a terminal of {width} columns" if width else "no terminal: output is ndjson unless -o says otherwise"
    color = "colour" if wants_color("auto", os.environ, stream.isatty()) else "no colour"
    unicode = wants_unicode(stream.encoding, os.environ)
    hint = "" if unicode else "LANG=C.UTF-8 for finer bars"
    return Check("standard output", True, f"{kind}; {color}; {'Unicode' if unicode else 'ASCII only'}", hint)


def _extras() -> Iterator[Check]:
    from diffai_stream.formats.catalogue import FORMATS

    for extra, libraries in EXTRAS.items():
        missing = missing_libraries(extra)
        found = [f"{name} {_version(name) or '(version unknown)'}" for name in libraries if name not in missing]
        absent = [f"{name} missing" for name in missing]
        titles = [row.title for row in FORMATS.values() if row.extra == extra]
        opens = f"; opens {', '.join(titles)}" if titles else ""
        hint = f"pip install 'diffai-stream[{extra}]'" if missing else ""
        yield Check(f"extra {extra}", not missing, f"{', '.join([*found, *absent])}{opens}", hint, required=False)


def _plugins() -> Iterator[Check]:
    """What other packages bring, all of it imported: this is where to look when something of it is missing."""
    from diffai_stream.analyses.catalogue import ANALYSES
    from diffai_stream.encodings.catalogue import ENCODINGS
    from diffai_stream.formats.catalogue import FORMATS
    from diffai_stream.report.catalogue import WRITERS
    from diffai_stream.statistics.catalogue import STATISTICS

    catalogues: tuple[Catalogue[Any], ...] = (FORMATS, ENCODINGS, STATISTICS, ANALYSES, WRITERS)
    for catalogue in catalogues:
        for name, point in catalogue.complete().origins.items():
            yield Check(f"plug-in {name}", True, f"{catalogue.kind} of {point.distribution}", required=False)
    for plugin in broken():
        hint = f"pip install --upgrade {plugin.distribution.partition(' ')[0]}, or uninstall it"
        detail = f"{plugin.kind} of {plugin.distribution}: {plugin.reason}"
        yield Check(f"plug-in {plugin.name}", False, detail, hint, required=False)
