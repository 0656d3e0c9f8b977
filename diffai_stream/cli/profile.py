"""`diffai profile CHECKPOINT --store P.zarr`: keep the figures of one checkpoint, to compare others with it later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from diffai_stream.cli.inspect import open_writer_of_one
from diffai_stream.cli.options import chosen_options, printing, record_options
from diffai_stream.cli.parameters import CheckpointPath
from diffai_stream.cli.sections import SectionCommand
from diffai_stream.cli.streams import StandardOutput
from diffai_stream.errors import UsageError

if TYPE_CHECKING:
    from diffai_stream.report.progress import Progress

HELP = """Keep the figures of one checkpoint in the directory behind --store.

diffai P.zarr NEW then compares NEW with it, and the weights need not be there. The records are those of inspect --stats.
Profiles of disjoint shards, made on different machines, are joined by: diffai profile merge A.zarr B.zarr --store C.zarr
"""
FIELDS = (
    *("include", "exclude", "io", "memory_limit", "chunk_size", "workers"),
    *("executor", "scheduler", "scheduler_file", "path_maps", "tls_ca_file", "tls_cert", "tls_key", "store"),
)
MERGE = "merge"


def _profile(paths: tuple[str, ...], **values: Any) -> int:
    from diffai_stream import pipeline

    if paths[0] == MERGE:
        return _merge(paths[1:], values["store"])
    if len(paths) > 1:
        raise UsageError(f"one checkpoint makes a profile, not {len(paths)}; diffai profile merge joins profiles")
    options, how = chosen_options({**values, "top": 0}), printing(values)
    from diffai_stream.cli.printing import print_records

    def records(progress: Progress) -> Any:
        return pipeline.profile(paths[0], options, progress=progress)

    return print_records(records, how, 0, open_writer_of_one)


def _merge(paths: tuple[str, ...], store: str | None) -> int:
    from diffai_stream import pipeline

    if not paths or not store:
        raise UsageError("profiles are joined by: diffai profile merge A.zarr B.zarr --store C.zarr")
    count = pipeline.merge_profiles(paths, store)
    StandardOutput().print(f"{store}: {count} tensors of {len(paths)} profiles\n")
    return 0


profile = SectionCommand(
    "profile",
    callback=_profile,
    help=HELP,
    short_help="Keep the figures of a checkpoint, to compare with later.",
    params=[
        click.Argument(["paths"], metavar="CHECKPOINT", type=CheckpointPath(), nargs=-1, required=True),
        *record_options(FIELDS),
    ],
)
