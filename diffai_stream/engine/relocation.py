"""`--path-map LOCAL=REMOTE`: the same files under another path on the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diffai_stream.engine.program import Program
from diffai_stream.errors import DiffaiError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.plan.chunks import Batch, Slice

Maps = Sequence[tuple[str, str]]


class Relocation(NamedTuple):
    """Path on this machine -> path on the workers, for every file of a run that lies elsewhere there."""

    remote: Mapping[str, str]

    @classmethod
    def of(cls, paths: Sequence[str], maps: Maps) -> Relocation:
        """Where these paths are found: by the longest LOCAL that is the path or a folder above it."""
        return cls({path: there for path in paths if (there := _mapped(path, maps)) != path})

    def program(self, program: Program) -> Program:
        """The program with the stamps as the workers see the files."""
        elsewhere = program.elsewhere()
        stamps = [stamp._replace(path=self.remote.get(path, path)) for path, stamp in elsewhere.stamps.items()]
        return elsewhere._replace(stamps={stamp.path: stamp for stamp in stamps})

    def batch(self, batch: Batch) -> Batch:
        """The batch with the paths of the workers."""
        return batch._replace(slices=tuple(map(self._slice, batch.slices))) if self.remote else batch

    def error(self, error: DiffaiError) -> DiffaiError:
        """The error with the path of this machine."""
        back = {there: path for path, there in self.remote.items()}
        if error.path not in back:
            return error
        return type(error)(error.message, path=back[error.path], tensor=error.tensor, offset=error.offset)

    def _slice(self, piece: Slice) -> Slice:
        old = self._entry(piece.old)
        return piece._replace(old=old, new=old if piece.new is piece.old else self._entry(piece.new))

    def _entry(self, entry: TensorEntry) -> TensorEntry:
        components: dict[str, Any] = {}
        for name, component in entry.components.items():
            extents = [extent._replace(path=self.remote.get(extent.path, extent.path)) for extent in component.extents]
            components[name] = component._replace(extents=tuple(extents))
        return entry._replace(components=components)


def _mapped(path: str, maps: Maps) -> str:
    """The path on a worker; relative ones are made absolute first, as a worker starts in a folder of its own."""
    whole = path if "://" in path else os.path.abspath(path)
    for local, remote in sorted(maps, key=lambda pair: -len(pair[0])):
        start = os.path.abspath(local)
        if whole == start or whole.startswith(start.rstrip("/") + "/"):
            return remote.rstrip("/") + whole[len(start.rstrip("/")) :]
    return whole
