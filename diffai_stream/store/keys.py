"""What a finished tensor is known by: the files it was read from, how they were read, what was computed, and by which code."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from sys import modules
from typing import Any

from diffai_stream._version import __version__
from diffai_stream.engine.program import Program
from diffai_stream.formats.base import TensorEntry
from diffai_stream.native import PACKAGE, key_of
from diffai_stream.plan.chunks import Slice
from diffai_stream.plugins import is_ours
from diffai_stream.storage.extent import Extent, FileStamp

COMPUTING = ("encodings", "engine", "plan", "statistics", "storage")
ELSEWHERE = ("zarr:", "ocdbt:")  # codecs whose data lies in files that no extent names
TICK_SECONDS = 0.02  # a file can change twice within a tick of the clock of its file system, with one time
LOOKS = 3  # at a file that young: the clock may stand still


class Keys:
    """The keys of the tensors of a run; None for what cannot be told from its files alone."""

    def __init__(self, program: Program) -> None:
        self._stamps = program.stamps
        self._asked = repr((program.ask, program.wants, computed_by()))
        self._files: dict[str, tuple[Any, ...] | None] = {}

    def of(self, piece: Slice) -> bytes | None:
        """16 bytes that are equal only for equal bytes read in the same way for the same figures."""
        sides = (piece.old,) if piece.new is piece.old else (piece.old, piece.new)
        try:
            told = (self._asked, piece.side, [self._told(side) for side in sides], [self._told(s) for s in piece.statistics])
        except OSError:
            return None
        return blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _told(self, value: Any) -> Any:
        """Entries by their files and places, statistics by their parameters and, those of plug-ins, their source."""
        if isinstance(value, TensorEntry):
            components = [(name, part[1:], [self._extent(e) for e in part.extents]) for name, part in value.components.items()]
            return value.shape, value.encoding, components, sorted(value.metadata.items()), value.region
        if is_dataclass(value) and not isinstance(value, type):
            parts = [(f.name, self._told(getattr(value, f.name))) for f in fields(value) if f.compare]
            return (
                type(value).__module__,
                type(value).__name__,
                parts,
                "" if is_ours(value) else _source(type(value).__module__),
            )
        return value

    def _extent(self, extent: Extent) -> tuple[Any, ...]:
        """Where and what; raises OSError for what no stamp covers."""
        if any(word in extent.codec for word in ELSEWHERE):
            raise FileNotFoundError(extent.path)
        return (extent[1:], *(self._file(path) for path in _paths(extent)))

    def _file(self, path: str) -> tuple[Any, ...]:
        if path not in self._files:
            self._files[path] = fingerprint(path, self._stamps)
        found = self._files[path]
        if found is None:
            raise FileNotFoundError(path)
        return found


def fingerprint(path: str, stamps: Mapping[str, FileStamp]) -> tuple[Any, ...] | None:
    """What tells a file from what it was before; None when nothing does, or when it is not the one that was indexed."""
    stamp = stamps.get(path)
    if "://" in path:
        return tuple(stamp) if stamp is not None and stamp.mtime_ns else None  # 0: its server tells no version
    for _ in range(LOOKS):
        status = os.stat(path)
        if stamp is not None and (status.st_size, status.st_mtime_ns) != (stamp.nbytes, stamp.mtime_ns):
            return None
        if not 0 <= (age := time.time() - status.st_ctime) < TICK_SECONDS:
            return os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        time.sleep(TICK_SECONDS - age)
    return None


def _paths(extent: Extent) -> Iterator[str]:
    """The files of an extent: boxes lie in several, which their codec names."""
    yield extent.path
    _, found, boxes = extent.codec.partition("boxes:")
    if found:
        yield from (str(file[0]) for file in json.loads(boxes)["files"])


@lru_cache(maxsize=1)
def computed_by() -> str:
    """The code that finishes tensors, and the processor: its name changes whenever a figure might."""
    digest = blake2b(f"{__version__} {key_of('diffai_stream.engine.scan')}".encode(), digest_size=16)
    for room in COMPUTING:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{__version__}-{digest.hexdigest()}"


@lru_cache(maxsize=64)
def _source(module: str) -> str:
    """Hash of the source of a plug-in's module; raises FileNotFoundError when it has none."""
    path = getattr(modules.get(module), "__file__", None)
    if path is None:
        raise FileNotFoundError(module)
    return blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
