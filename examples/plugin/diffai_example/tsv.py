"""The output: a line a tensor, its parts separated by tabs."""

from __future__ import annotations

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.figures import escaped
from diffai_stream.report.records import Record


class TsvWriter:
    """Prints each tensor as it comes; other records are left out."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._stream = stream
        self._stream.write(b"name\tstatus\trelative_l2\n")

    def write(self, record: Record) -> None:
        """Print a tensor; its name may hold anything, so that what would break a line is written out."""
        if record["type"] == "tensor":
            change = record["change"] or {}
            cells = [escaped(record["name"]), record["status"], str(change.get("relative_l2", ""))]
            self._stream.write("\t".join(cells).encode("utf-8", "backslashreplace") + b"\n")
            self._stream.flush()

    def close(self) -> None:
        """Every line is out already."""
        self._stream.flush()
