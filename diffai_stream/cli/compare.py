"""`diffai compare OLD NEW`, the default command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from diffai_stream.cli.options import analysis_options, chosen_options, printing, record_options
from diffai_stream.cli.parameters import CheckpointPath
from diffai_stream.cli.sections import SectionCommand
from diffai_stream.errors import UsageError
from diffai_stream.storage.read_ahead import start_early

if TYPE_CHECKING:
    from diffai_stream.report.progress import Progress

HELP = """Compare two checkpoints, reading each byte once and holding none.

OLD and NEW are files or directories. Records go to standard output as they become known, everything else to standard
error. The exit status is 0 when the weights are equal, 1 when they differ, 2 in trouble.
"""
EPILOG = "Each option has a mirror in the environment: DIFFAI_OUTPUT=json is --output json."


def _compare(old: str, new: str | None, **values: Any) -> int:
    if new is None:
        raise UsageError(f"a comparison needs two checkpoints; diffai inspect {old} shows what is in one")
    options, how = chosen_options(values), printing(values)
    start_early((old, new))
    from diffai_stream import pipeline
    from diffai_stream.cli.printing import print_records

    def records(progress: Progress) -> Any:
        return pipeline.compare(old, new, options, progress=progress)

    return print_records(records, how, options.top)


compare = SectionCommand(
    "compare",
    callback=_compare,
    help=HELP,
    epilog=EPILOG,
    short_help="Compare two checkpoints (the default).",
    params=[
        click.Argument(["old"], type=CheckpointPath()),
        click.Argument(["new"], type=CheckpointPath(), required=False, metavar="NEW"),
        *analysis_options(),
        *record_options(),
    ],
)
