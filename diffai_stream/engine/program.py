"""What every task is told: the statistics to compute and how to read. Small, picklable, equal for all tasks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from diffai_stream.statistics.finishing import Wants
from diffai_stream.statistics.scanner import Ask
from diffai_stream.storage.extent import FileStamp


class Program(NamedTuple):
    """The scan of a run: what to ask of the scanner, which columns to finish, how to read, and the files as indexed."""

    ask: Ask
    wants: Wants
    io: str
    chunk_nbytes: int
    stamps: Mapping[str, FileStamp]

    def elsewhere(self) -> Program:
        """The program for other machines, where equal files have other inodes."""
        return self._replace(stamps={path: stamp._replace(inode=(0, 0)) for path, stamp in self.stamps.items()})
