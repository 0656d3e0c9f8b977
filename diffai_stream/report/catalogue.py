"""The rows of every output. A new one is a file with a writer class and a row here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from diffai_stream.errors import BrokenOutputError, DiffaiError, PluginError, UsageError
from diffai_stream.plugins import Catalogue, broken, told
from diffai_stream.report.base import ByteStream, Writer, WriterOptions
from diffai_stream.report.records import Record


@dataclass(frozen=True)
class WriterRow:
    """One output.

    `target` is `module:Class`, imported only when the output is used; `is_document` tells outputs that are complete only
    at the end from those whose every part can be used as soon as it is printed; `is_binary` ones are never printed on a
    terminal; `is_log` ones are events for a log store, which `--log-format` chooses from;
    `is_report` ones are the report themselves, and print no record that carries one.
    """

    name: str
    title: str
    target: str
    media_type: str
    is_document: bool = False
    is_binary: bool = False
    is_log: bool = False
    is_report: bool = False

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
        "markdown",
        "the report as Markdown, or the comment for a pull request with --review-friendly",
        "diffai_stream.report.documents:MarkdownWriter",
        "text/markdown",
        is_document=True,
        is_report=True,
    ),
    WriterRow(
        "html",
        "the report as one page that needs no network",
        "diffai_stream.report.documents:HtmlWriter",
        "text/html",
        is_document=True,
        is_report=True,
    ),
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
    WriterRow(
        "ecs",
        "one log event a line, in the Elastic Common Schema",
        "diffai_stream.report.log_events:EcsWriter",
        "application/x-ndjson",
        is_log=True,
    ),
    WriterRow(
        "otel",
        "one log event a line, in the OpenTelemetry log data model",
        "diffai_stream.report.log_events:OtelWriter",
        "application/x-ndjson",
        is_log=True,
    ),
)

WRITERS: Catalogue[WriterRow] = Catalogue("writers", WriterRow, _ROWS)


def writer_row(name: str) -> WriterRow:
    """The row called `name`; UsageError with the nearest name when there is none."""
    if name in WRITERS or name in WRITERS.complete():
        return WRITERS[name]
    for plugin in broken():
        if (plugin.kind, plugin.name) == ("writers", name):
            raise UsageError(plugin.message)
    near = get_close_matches(name, WRITERS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(WRITERS)}"
    raise UsageError(f"no output called {name!r}; {hint}")


def open_writer(name: str, stream: ByteStream, options: WriterOptions) -> Writer:
    """A writer of the output called `name` on `stream`.

    Raises UsageError when there is no such output, MissingExtraError without its library, PluginError for a plug-in that fails.
    """
    row = writer_row(name)
    if name not in WRITERS.origins:
        return row.open(stream, options)
    of_plugin = f"the output {name!r} of {WRITERS.origins[name].distribution}"
    with _told_as(of_plugin):
        return _PluginWriter(row.open(stream, options), of_plugin)


class _PluginWriter:
    """A plug-in's writer, whose failures are told as its own."""

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer, self._name = writer, name

    def write(self, record: Record) -> None:
        """Print one record."""
        with _told_as(self._name):
            self._writer.write(record)

    def close(self) -> None:
        """Print what is outstanding."""
        with _told_as(self._name):
            self._writer.close()


@contextmanager
def _told_as(name: str) -> Iterator[None]:
    """Raise PluginError for what goes wrong inside; errors of ours, and streams that break, stay what they are."""
    try:
        yield
    except (DiffaiError, BrokenOutputError, OSError):
        raise
    except Exception as error:
        raise PluginError(f"{name} failed: {told(error)}") from error
