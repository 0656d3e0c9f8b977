"""From records to bytes on stdout: the loop around the pipeline, and what happens when it is cut short."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import click

from diffai_stream.cli.options import Printing
from diffai_stream.cli.signals import Signals
from diffai_stream.cli.streams import OutputError, StandardOutput, SteadyProgress, complain
from diffai_stream.errors import BrokenOutputError, UsageError

if TYPE_CHECKING:
    from diffai_stream.report.base import ByteStream, Writer, WriterOptions
    from diffai_stream.report.progress import Progress
    from diffai_stream.report.records import Record

Records: TypeAlias = "Generator[Record, None, None]"
OpenWriter: TypeAlias = "Callable[[str, ByteStream, WriterOptions], Writer]"

NO_SUMMARY = 2


def print_records(
    source: Callable[[Progress], Any], printing: Printing, top: int, open_writer: OpenWriter | None = None
) -> int:
    """Print the records that `source` yields when it is told where to report progress; the exit status of the summary.

    `open_writer` opens the output by name; without it those of the catalogue are opened.
    """
    from diffai_stream.report import catalogue
    from diffai_stream.report.colors import stream_options

    progress = SteadyProgress(_progress(printing))
    _announce_compiling(progress)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    stream = StandardOutput(progress.clear) if is_terminal else StandardOutput()
    options = stream_options(sys.stdout, printing.color, top=top, timestamps=printing.timestamps)
    options = replace(options, charts=printing.charts, review=printing.review)
    name = printing.output or ("text" if is_terminal else "ndjson")
    if is_terminal and name in catalogue.WRITERS and catalogue.WRITERS[name].is_binary:
        raise UsageError(f"{name} is no text for a terminal; redirect it: diffai ... -o {name} > report.{name}")
    writer = (open_writer or catalogue.open_writer)(name, stream, options)
    records = cast(Records, source(progress))
    try:
        status = _Session(records, writer, stream, progress, _signals()).run()
        progress.stop()
        stream.flush()
        return status
    finally:
        records.close()
        progress.stop()


def _announce_compiling(progress: SteadyProgress) -> None:
    """Say on stderr, once, why the very first run waits."""
    from diffai_stream.native import Entry

    def announce(name: str) -> None:
        Entry.on_compile = None
        progress.clear()
        complain("compiling kernels; this happens once (`diffai warmup` does it ahead)", label="note")

    Entry.on_compile = announce


def _progress(printing: Printing) -> Progress:
    from diffai_stream.report.progress import open_progress

    if sys.stderr is None:
        return open_progress("none", io.StringIO())
    return open_progress(printing.progress, sys.stderr)


def _signals() -> Signals:
    context = click.get_current_context(silent=True)
    return (context.find_object(Signals) if context else None) or Signals()


class _Session:
    """One run: each record is taken from the pipeline, where a signal may stop it, and printed, where it may not."""

    def __init__(
        self, records: Records, writer: Writer, stream: StandardOutput, progress: SteadyProgress, signals: Signals
    ) -> None:
        self._records = records
        self._writer, self._stream = writer, stream
        self._progress = progress
        self._signals = signals
        self._status: int | None = None
        self._is_printed = False

    def run(self) -> int:
        """Print all records and return the exit status; what was begun is ended also when the pipeline fails."""
        with self._signals.held():
            try:
                while (record := self._next()) is not None:
                    self._print(record)
            except (BrokenOutputError, OutputError):
                raise
            except BaseException:
                if self._is_printed:
                    self._close()
                raise
            self._close()
        return NO_SUMMARY if self._status is None else self._status

    def _close(self) -> None:
        self._stream.holds = False
        try:
            self._writer.close()
        finally:
            self._stream.flush()

    def _next(self) -> Record | None:
        try:
            with self._signals.released():
                return next(self._records, None)
        except KeyboardInterrupt as interrupt:
            try:
                # when the signal came between two records the pipeline has not seen it: it ends there with its summary
                return self._records.throw(interrupt)
            except StopIteration:
                return None

    def _print(self, record: Record) -> None:
        if record["type"] == "summary":
            record = self._settled(record)
            self._status = max(self._status or 0, record["exit_status"])
        self._is_printed = True
        self._stream.holds = self._progress.follows
        self._writer.write(record)

    def _settled(self, summary: Record) -> Record:
        """The summary with the status that the signal asks for: the pipeline cannot tell SIGTERM from Ctrl-C."""
        if summary.get("status") == "interrupted" and self._signals.is_caught:
            return {**summary, "exit_status": self._signals.exit_status}
        return summary
