"""`diffai compare OLD NEW`, the default command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from diffai_stream.cli.options import (
    analysis_options,
    chosen_options,
    output_help,
    plugin_options,
    printing,
    record_options,
)
from diffai_stream.cli.parameters import CheckpointPath
from diffai_stream.cli.sections import SectionCommand
from diffai_stream.report.catalogue import WRITERS
from diffai_stream.storage.read_ahead import start_early
from diffai_stream.trajectory import expanded

if TYPE_CHECKING:
    from diffai_stream.report.progress import Progress

HELP = """Compare two checkpoints, reading each byte once and holding none.

OLD and NEW are files or directories. Of more than two, or of a directory of checkpoint-<step>, each is compared with the
one before it. Records go to standard output as they become known, everything else to standard
error. The exit status is 0 when the weights are equal, 1 when they differ, 2 in trouble.
"""
OTHER_VARIABLES = frozenset({"DIFFAI_DEBUG"})
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


class ComparisonCommand(SectionCommand):
    """The command whose flags are the analyses; those of plug-ins are looked for when a flag is not known."""

    _is_extended = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the options of plug-ins where the others are not enough."""
        flags = {flag for parameter in self.params for flag in parameter.opts}
        mirrors = {f"DIFFAI_{parameter.name}".upper() for parameter in self.params} | OTHER_VARIABLES
        asked = {argument.partition("=")[0] for argument in args if argument.startswith("--")} - flags - {"--"}
        if asked or {name for name in os.environ if name.startswith("DIFFAI_")} - mirrors:
            self.extend()
        return super().parse_args(ctx, args)

    def extend(self) -> None:
        """Put the flags of plug-ins behind those of this package, and name all outputs."""
        if self._is_extended:
            return
        self._is_extended = True
        place = 1 + max(index for index, option in enumerate(self.params) if getattr(option, "section", "") == "Analyses")
        self.params[place:place] = plugin_options(self.params)
        WRITERS.complete()
        for option in self.params:
            if option.name == "output" and isinstance(option, click.Option):
                option.help = output_help()

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The options, those of plug-ins too."""
        if incomplete.startswith("-"):
            self.extend()
        return super().shell_complete(ctx, incomplete)


compare = ComparisonCommand(
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
