"""The command line: parses, asks the pipeline, picks the writer, sets the exit status."""

from __future__ import annotations

import gc
import os
import sys

__all__ = ["main"]

NAMES = ("diffai", "diffai-stream")


def main() -> None:
    """Entry point of the `diffai` command."""
    called = os.path.basename(sys.argv[0])
    name = called if called in NAMES else NAMES[0]
    completing = f"_{name.replace('-', '_').upper()}_COMPLETE"
    if completing in os.environ:
        from diffai_stream.cli.app import app

        app.main(prog_name=name, complete_var=completing)
    from diffai_stream.cli.process import run

    status = run(sys.argv[1:], name)
    gc.freeze()  # the interpreter would look through all objects for cycles once more before it ends
    sys.exit(status)
