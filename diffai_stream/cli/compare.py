"""`diffai compare OLD NEW`, the default command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from diffai_stream.cli.options import analysis_options, chosen_options, printing, record_options
from diffai_stream.cli.parameters import CheckpointPath
from diffai_stream.cli.sections import SectionCommand
from diffai_stream.storage.read_ahead import start_early
from diffai_stream.trajectory import expanded

if TYPE_CHECKING:
    from diffai_stream.report.progress import Progress

HELP = """Compare two checkpoints, reading each byte once and holding none.

OLD and NEW are files or directories. Of more than two, or of a directory of checkpoint-<step>, each is compared with the
one before it. Records go to standard output as they become known, everything else to standard
error. The exit status is 0 when the weights are equal, 1 when they differ, 2 in trouble.
"""
EPILOG = "Each option has a mirror in the environment: DIFFAI_OUTPUT=json is --output json."


def _compare(checkpoints: tuple[str, ...], **values: Any) -> int:
    options, how = chosen_options(values), printing(values)
    paths = expanded(checkpoints)
    start_early(paths[:2])
    from diffai_stream import pipeline
    from diffai_stream.cli.printing import print_records

    def records(progress: Progress) -> Any:
        return pipeline.compare(*paths, options=options, progress=progress)

    return print_records(records, how, options.top)


compare = SectionCommand(
    "compare",
    callback=_compare,
    help=HELP,
    epilog=EPILOG,
    short_help="Compare two checkpoints, or several in a row (the default).",
    params=[
        click.Argument(["checkpoints"], type=CheckpointPath(), nargs=-1, required=True, metavar="OLD NEW ..."),
        *analysis_options(),
        *record_options(),
    ],
)
