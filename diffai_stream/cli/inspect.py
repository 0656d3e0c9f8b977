"""`diffai inspect FILE`: what one checkpoint holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from diffai_stream.cli.options import chosen_options, printing, record_options
from diffai_stream.cli.parameters import CheckpointPath, Whole
from diffai_stream.cli.sections import SectionCommand, SectionOption

if TYPE_CHECKING:
    from diffai_stream.report.base import ByteStream, Writer, WriterOptions
    from diffai_stream.report.progress import Progress

HELP = """List the tensors of one checkpoint: names, shapes, encodings, bytes.

Only headers are read; --stats reads the values too.
"""
FIELDS = (
    *("include", "exclude", "stats", "histograms", "fast", "io", "memory_limit", "chunk_size", "workers"),
    *("executor", "scheduler", "scheduler_file", "path_maps", "tls_ca_file", "tls_cert", "tls_key", "store"),
)


def _inspect(path: str, top: int, **values: Any) -> int:
    options, how = chosen_options({**values, "top": top}), printing(values)
    from diffai_stream import pipeline
    from diffai_stream.cli.printing import print_records

    def records(progress: Progress) -> Any:
        return pipeline.inspect(path, options, progress=progress)

    return print_records(records, how, top, open_writer_of_one)


def open_writer_of_one(name: str, stream: ByteStream, options: WriterOptions) -> Writer:
    """The text of a comparison has columns that one checkpoint cannot fill, so it has its own."""
    from diffai_stream.cli.inspect_text import InspectTextWriter
    from diffai_stream.report.catalogue import open_writer

    return InspectTextWriter(stream, options) if name == "text" else open_writer(name, stream, options)


def _top() -> click.Option:
    settings: dict[str, Any] = {"type": Whole(), "default": 0, "metavar": "N"}
    help = "List only the first N tensors; 0 is all.  [default: 0]"
    return SectionOption(["--top"], "What is printed", help=help, **settings)


inspect = SectionCommand(
    "inspect",
    callback=_inspect,
    help=HELP,
    short_help="List the tensors of one checkpoint.",
    params=[click.Argument(["path"], metavar="FILE", type=CheckpointPath()), *record_options(FIELDS), _top()],
)
