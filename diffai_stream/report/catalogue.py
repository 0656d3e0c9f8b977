"""The rows of every output. A new one is a file with a writer class and a row here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from diffai_stream.errors import UsageError
from diffai_stream.report.base import ByteStream, Writer, WriterOptions


@dataclass(frozen=True)
class WriterRow:
    """One output.

    `target` is `module:Class`, imported only when the output is used; `is_document` tells outputs that are complete only
    at the end from those whose every part can be used as soon as it is printed; `is_binary` ones are never printed on a
    terminal.
    """

    name: str
    title: str
    target: str
    media_type: str
    is_document: bool = False
    is_binary: bool = False

    def open(self, stream: ByteStream, options: WriterOptions) -> Writer:
        """A writer of this output on `stream`."""
        module, _, attribute = self.target.partition(":")
        return cast(Writer, getattr(import_module(module), attribute)(stream, options))


_ROWS = (
    WriterRow("text", "tables and a verdict, for people", "diffai_stream.report.text:TextWriter", "text/plain"),
    WriterRow("ndjson", "one JSON record a line", "diffai_stream.report.ndjson:NdjsonWriter", "application/x-ndjson"),
    WriterRow(
        "json",
        "one JSON array of the records",
        "diffai_stream.report.json_array:JsonWriter",
        "application/json",
        is_document=True,
    ),
    WriterRow(
        "junit-xml",
        "gates and alerts as test cases, for CI",
        "diffai_stream.report.junit:JunitWriter",
        "application/xml",
        is_document=True,
    ),
    WriterRow("yaml", "one YAML sequence of the records", "diffai_stream.report.yaml_stream:YamlWriter", "application/yaml"),
    WriterRow(
        "arrow",
        "one Arrow table of the records, as an IPC stream",
        "diffai_stream.report.arrow:ArrowWriter",
        "application/vnd.apache.arrow.stream",
        is_binary=True,
    ),
    WriterRow(
        "parquet",
        "the same table as a Parquet file",
        "diffai_stream.report.arrow:ParquetWriter",
        "application/vnd.apache.parquet",
        is_document=True,
        is_binary=True,
    ),
)

WRITERS: dict[str, WriterRow] = {row.name: row for row in _ROWS}


def writer_row(name: str, rows: Iterable[WriterRow] = _ROWS) -> WriterRow:
    """The row called `name`; UsageError with the nearest name when there is none."""
    by_name = {row.name: row for row in rows}
    if name in by_name:
        return by_name[name]
    near = get_close_matches(name, by_name, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(by_name)}"
    raise UsageError(f"no output called {name!r}; {hint}")


def open_writer(name: str, stream: ByteStream, options: WriterOptions) -> Writer:
    """A writer of the output called `name` on `stream`; UsageError when there is no such output."""
    return writer_row(name).open(stream, options)
