"""What a writer is: something that takes records one by one and leaves bytes on a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from diffai_stream.report.records import Record


class ByteStream(Protocol):
    """The part of a binary file that writers use; `sys.stdout.buffer` and `io.BytesIO` are such."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""
        ...

    def flush(self) -> object:
        """Pass on what is buffered."""
        ...


class Writer(Protocol):
    """Prints records as they come and keeps only what its output cannot do without."""

    def write(self, record: Record) -> None:
        """Print one record, or note it for later; the record is not changed and not kept."""
        ...

    def close(self) -> None:
        """Print what is outstanding; the stream stays open. Works after any number of records, and twice."""
        ...


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class WriterOptions:
    """How to print. Every writer takes all of them and uses those that mean something to it.

    `width` in columns, None when the output is no terminal: then nothing is ever shortened; `unicode` False restricts
    decoration to ASCII; `top` rows of the ranked tables (0 = all); `timestamps` adds the time of printing to each record,
    read from `clock`. `charts` puts charts into documents, `review` makes them the comment for a pull request.
    """

    color: bool = False
    width: int | None = None
    unicode: bool = True
    top: int = 20
    timestamps: bool = False
    charts: bool = False
    review: bool = False
    clock: Callable[[], str] = _utc_now

    def stamped(self, record: Record) -> Record:
        """The record, with the time of printing when time stamps are asked for and it has none."""
        if not self.timestamps or "timestamp" in record:
            return record
        return {**record, "timestamp": self.clock()}
