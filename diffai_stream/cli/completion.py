"""`diffai completion SHELL`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from diffai_stream.cli.parameters import OneOf
from diffai_stream.cli.sections import SectionCommand
from diffai_stream.cli.streams import StandardOutput
from diffai_stream.errors import UsageError

SHELLS = ("bash", "zsh", "fish")
HELP = """Print the completion script of a shell.

\b
bash:  eval "$(diffai completion bash)"                         in ~/.bashrc
zsh:   eval "$(diffai completion zsh)"                          in ~/.zshrc
fish:  diffai completion fish > ~/.config/fish/completions/diffai.fish
"""


def _completion(shell: str) -> int:
    found = get_completion_class(shell)
    root = click.get_current_context().find_root()
    if found is None:
        raise UsageError(f"this version of click completes nothing for {shell}")
    name = root.info_name or "diffai"
    script = found(root.command, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE").source()
    StandardOutput().print(script)
    return 0


completion = SectionCommand(
    "completion",
    callback=_completion,
    params=[click.Argument(["shell"], type=OneOf(SHELLS), metavar="|".join(SHELLS))],
    help=HELP,
    short_help="Print the completion script of a shell.",
)
