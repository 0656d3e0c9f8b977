"""NDJSON: one record a line, flushed as soon as it is known; the first-class output."""

from __future__ import annotations

import json
from typing import Any

import orjson

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.plain import fitted, sanitised
from diffai_stream.report.records import Record


class NdjsonWriter:
    """Writes compact JSON, UTF-8, LF; NaN and Inf become null."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._stream = stream
        self._options = options

    def write(self, record: Record) -> None:
        """Print the record as one line and flush it."""
        self._stream.write(encode(self._options.stamped(record)) + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Flush; every record is already out."""
        self._stream.flush()


def encode(record: Record) -> bytes:
    """Compact JSON of one record, without the line end."""
    return encode_value(fitted(record))


def encode_value(value: Any) -> bytes:
    """Compact JSON of anything that records are made of."""
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, integers beyond 64 bits, NumPy scalars: rare, so only then a copy is made
        return json.dumps(sanitised(value), ensure_ascii=False, separators=(",", ":")).encode()
