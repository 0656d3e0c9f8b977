"""JSON: one array of the records, one a line, so that it streams and still is a single document."""

from __future__ import annotations

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.ndjson import encode
from diffai_stream.report.records import Record


class JsonWriter:
    """Writes `[`, the records parted by commas, `]`."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._stream = stream
        self._options = options
        self._separator = b"[\n"
        self._closed = False

    def write(self, record: Record) -> None:
        """Print the record as one element of the array."""
        self._stream.write(self._separator + encode(self._options.stamped(record)))
        self._separator = b",\n"

    def close(self) -> None:
        """End the array; without it the document is not complete."""
        if not self._closed:
            self._stream.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")
            self._closed = True
        self._stream.flush()
