"""The commands, and the rule that `diffai OLD NEW` means `diffai compare OLD NEW`."""

from __future__ import annotations

import os
from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem

from diffai_stream._version import __version__
from diffai_stream.cli.catalogues import analyses, formats, schema
from diffai_stream.cli.compare import EPILOG, compare
from diffai_stream.cli.completion import completion
from diffai_stream.cli.doctor import doctor
from diffai_stream.cli.inspect import inspect
from diffai_stream.cli.profile import profile
from diffai_stream.cli.sections import CONTEXT, eager_option, help_option, write_sections
from diffai_stream.cli.streams import StandardOutput
from diffai_stream.cli.warmup import warmup
from diffai_stream.report.records import SCHEMA_VERSION

HELP = """What changed between these two models?

Compares checkpoints of any size without holding them in memory. Records go to standard output as they become known,
everything else to standard error. The exit status is 0 when the weights are equal, 1 when they differ, 2 in trouble.
A path that is called like a command is written ./compare.
"""
EXAMPLES = """What changed between these two models? For example:

  diffai old.safetensors new.safetensors        what changed, as a table
  diffai base/ finetuned/ --stats | jq -c .     every figure, one record a line
  diffai inspect model.safetensors              what is in there

diffai --help lists all options; diffai analyses what can be asked,
diffai formats what can be read.
"""


class DefaultGroup(click.Group):
    """A group whose first argument may be left out when it is `compare`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `compare` in front of everything that is neither a command nor an option of the group."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            if not ctx.resilient_parsing:
                self._doubt(ctx, args[0])
            args = ["compare", *args]
        return super().parse_args(ctx, args)

    def _doubt(self, ctx: click.Context, word: str) -> None:
        """A bare word that is no file and nearly a command was meant as one."""
        near = get_close_matches(word, self.commands, n=1, cutoff=0.7) if word.isalpha() else []
        if near and not os.path.lexists(word):
            raise click.UsageError(f"{word!r} is neither a file nor a command; did you mean {near[0]!r}?", ctx)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and, because it is the default, the options of `compare`."""
        formatter.write_usage(ctx.command_path, "OLD NEW ... [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND ...", prefix="       ")
        self.format_help_text(ctx, formatter)
        self.format_commands(ctx, formatter)
        compare.extend()
        write_sections(ctx, formatter, [*compare.params[:-1], *self.get_params(ctx)])
        self.format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, files to compare, and options of both."""
        items = [*super().shell_complete(ctx, incomplete), *compare.shell_complete(ctx, incomplete)]
        found = {item.value: item for item in items}
        if not incomplete.startswith("-"):
            found[incomplete] = CompletionItem(incomplete, type="file")
        return list(found.values())


def _version(context: click.Context) -> str:
    return f"diffai_stream {__version__}, record schema {SCHEMA_VERSION}"


def _examples() -> int:
    if click.get_current_context().invoked_subcommand is None:
        StandardOutput().print(EXAMPLES)
    return 0


app = DefaultGroup(
    "diffai",
    callback=_examples,
    commands=[compare, inspect, profile, analyses, formats, schema, doctor, warmup, completion],
    params=[eager_option(["--version"], "Print the version and exit.", _version), help_option()],
    add_help_option=False,
    invoke_without_command=True,
    help=HELP,
    epilog=EPILOG,
    context_settings=CONTEXT,
)
