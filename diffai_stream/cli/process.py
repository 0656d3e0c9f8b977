"""One run of the program: arguments in, exit status out, every failure said in one line on stderr."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import click

from diffai_stream.cli.signals import Signals
from diffai_stream.cli.streams import StandardOutput, complain, tell_broken_plugins
from diffai_stream.errors import BrokenOutputError, DiffaiError

TROUBLE = 2
BROKEN_PIPE = 141
COLLECTED_OBJECTS = 100_000  # records and indexes hold no cycles: looking for some every 700 objects takes a tenth of a run


def run(arguments: Sequence[str], name: str = "diffai") -> int:
    """Do what the arguments say and return the exit status.

    click's own `main` is not used: it exits with 1, which means "different" here, when the reader of a pipe goes away.
    """
    gc.set_threshold(COLLECTED_OBJECTS, 10, 100)
    signals = Signals()
    with signals.caught():
        try:
            return _invoke(list(arguments), name, signals)
        except click.exceptions.Exit as done:
            return done.exit_code
        except click.ClickException as error:
            tell_broken_plugins()
            complain(_advice(error, name))
        except DiffaiError as error:
            tell_broken_plugins()
            complain(str(error))
        except BrokenOutputError:
            return BROKEN_PIPE
        except KeyboardInterrupt:
            return signals.exit_status
        except MemoryError:
            complain("not enough memory; try fewer --workers or a smaller --chunk-size")
        except Exception as error:
            _report(error)
        return TROUBLE


def _invoke(arguments: list[str], name: str, signals: Signals) -> int:
    from diffai_stream.cli.app import app

    StandardOutput()  # fails now, not after an hour, when there is none
    with app.make_context(name, arguments, obj=signals) as context:
        status = app.invoke(context)
    return int(status or 0)


def _advice(error: click.ClickException, name: str) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else name
    return f"{message}; see {path} --help"


def _report(error: Exception) -> None:
    """Say that this is our fault; the traceback is for those who ask for it."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    complain(f"internal error: {what}; please report with the output of diffai doctor (DIFFAI_DEBUG=1 shows the traceback)")
    if os.environ.get("DIFFAI_DEBUG") == "1" and sys.stderr is not None:
        import traceback

        traceback.print_exception(error)
