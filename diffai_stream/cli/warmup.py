"""`diffai warmup`: compile the kernels now, so that the first comparison need not."""

from __future__ import annotations

from diffai_stream.cli.listing import listing_options, print_columns, print_json_lines
from diffai_stream.cli.sections import SectionCommand


def _warmup(is_json: bool, color: str) -> int:
    from diffai_stream.native import cache_folder
    from diffai_stream.warmup import warm

    seconds = warm()
    if is_json:
        print_json_lines({"kernel": name, "elapsed_seconds": elapsed} for name, elapsed in seconds.items())
        return 0
    rows = [[name, f"{elapsed:.2f} s"] for name, elapsed in seconds.items()]
    rows.append(["all", f"{sum(seconds.values()):.2f} s"])
    folder = cache_folder()
    kept = f"kept in {folder}" if folder else "not kept: no folder is writable (see diffai doctor)"
    print_columns(["kernel", "time"], rows, color, kept)
    return 0


warmup = SectionCommand(
    "warmup",
    callback=_warmup,
    params=listing_options(),
    help="Compile the kernels and keep them, so that the first comparison starts at once.",
    short_help="Compile the kernels ahead of the first run.",
)
