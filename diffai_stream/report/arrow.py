"""Arrow IPC stream and Parquet: the records as one table, in batches of bounded size, never the whole of it in memory."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import Any, Final

from diffai_stream.report.arrow_schema import arrow_schema, pyarrow, row_of
from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.records import Record

BATCH_ROWS: Final = 1024


class _Sink(io.RawIOBase):
    """A byte stream as the file object that pyarrow writes to; closing it leaves the stream open."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of `data`."""
        chunk = bytes(data)
        self._stream.write(chunk)
        return len(chunk)


class _TableWriter(ABC):
    """Gathers rows and passes them on a batch at a time; the subclass opens the file."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._arrow, self._schema = pyarrow(), arrow_schema()
        self._stream, self._options = stream, options
        self._rows: list[dict[str, Any]] = []
        self._closed = False
        self._file = self._open(_Sink(stream))

    @abstractmethod
    def _open(self, sink: _Sink) -> Any:
        """The file of pyarrow."""

    def write(self, record: Record) -> None:
        """Note the record as a row; every thousand rows are written."""
        self._rows.append(row_of(self._options.stamped(record)))
        if len(self._rows) >= BATCH_ROWS:
            self._write_batch()

    def _write_batch(self) -> None:
        if self._rows:
            self._file.write_batch(self._arrow.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows = []
        self._stream.flush()

    def close(self) -> None:
        """Write what is outstanding and the end of the file."""
        if not self._closed:
            self._closed = True
            self._write_batch()
            self._file.close()
        self._stream.flush()


class ArrowWriter(_TableWriter):
    """Writes an Arrow IPC stream; every batch can be read as soon as it is printed."""

    def _open(self, sink: _Sink) -> Any:
        ipc = self._arrow.ipc
        return ipc.new_stream(sink, self._schema, options=ipc.IpcWriteOptions(compression="zstd"))


class ParquetWriter(_TableWriter):
    """Writes a Parquet file; it can be read once its end is written."""

    def _open(self, sink: _Sink) -> Any:
        from pyarrow import parquet

        return parquet.ParquetWriter(sink, self._schema, compression="zstd")
