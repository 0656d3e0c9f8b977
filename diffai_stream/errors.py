"""The errors of the package. Each names what was read and where, so that a message alone is enough to act on.

DiffaiError
├── UsageError              the call itself is wrong (exit 2 before any byte is read)
│   └── MemoryLimitError    the plan needs more memory than allowed
├── MissingExtraError       a library that an input needs is not installed
├── ClusterError            a dask cluster is out of reach, or sees other files (exit 2)
├── PluginError             an installed plug-in that was asked for does not work
└── CheckpointError         something in the input cannot be read
    ├── FormatError         the container: unknown, damaged, refused
    ├── TensorError         one tensor: bad extent, unknown encoding
    └── ChangedFileError    the file changed or shrank while it was read
"""

from __future__ import annotations


class DiffaiError(Exception):
    """Base of all errors raised on purpose. The message is one line and ends with what to try, where that is known."""

    def __init__(self, message: str, *, path: str | None = None, tensor: str | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.tensor = tensor
        self.offset = offset

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.path, self.tensor, self.offset)

    def __str__(self) -> str:
        where = [f"{self.path}" if self.path else "", f"tensor {self.tensor!r}" if self.tensor else ""]
        where.append(f"offset {self.offset}" if self.offset is not None else "")
        place = ", ".join(part for part in where if part)
        return f"{place}: {self.message}" if place else self.message


def _rebuild(kind: type[DiffaiError], message: str, path: str | None, tensor: str | None, offset: int | None) -> DiffaiError:
    return kind(message, path=path, tensor=tensor, offset=offset)


class UsageError(DiffaiError):
    """The options or arguments contradict each other or name something that does not exist."""


class MemoryLimitError(UsageError):
    """The planned memory exceeds `--memory-limit`; the message names both numbers."""


class MissingExtraError(DiffaiError):
    """An optional library is needed; the message holds the `pip install` line."""


class ClusterError(DiffaiError):
    """A dask cluster does not answer, went away, or has workers that see other files or have other versions."""


class PluginError(DiffaiError):
    """An installed plug-in that was asked for does not work; `diffai doctor` lists all of them."""


class CheckpointError(DiffaiError):
    """The input cannot be read, wholly or in part."""


class FormatError(CheckpointError):
    """The container is of no known format, damaged, or refused."""


class TensorError(CheckpointError):
    """One tensor cannot be read; the others still can."""


class ChangedFileError(CheckpointError):
    """The file is not the one that was indexed: its size or modification time changed."""


class BrokenOutputError(Exception):
    """Whoever read our standard output went away, as `head` does; nothing to complain about."""
