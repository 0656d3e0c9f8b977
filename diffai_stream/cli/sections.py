"""Commands whose help is ordered by subject, and the options that all of them share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from diffai_stream.cli.streams import StandardOutput

CONTEXT: dict[str, Any] = {"auto_envvar_prefix": "DIFFAI", "max_content_width": 110}


class SectionOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, declarations: Iterable[str], section: str, **settings: Any) -> None:
        super().__init__(list(declarations), **settings)
        self.section = section


def write_sections(context: click.Context, formatter: click.HelpFormatter, parameters: Iterable[click.Parameter]) -> None:
    """The options under their headings, in the order in which headings first occur; arguments stand in the usage line."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        if isinstance(parameter, click.Argument):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
    for section, records in sections.items():
        with formatter.section(section):
            formatter.write_dl(records)


class SectionCommand(click.Command):
    """A command with `-h`, `--help` and its options by section; its callback returns the exit status."""

    def __init__(self, name: str, *, params: Iterable[click.Parameter] = (), **settings: Any) -> None:
        settings.setdefault("context_settings", CONTEXT)
        super().__init__(name, params=[*params, help_option()], add_help_option=False, **settings)

    def extend(self) -> None:
        """Add the options that plug-ins bring; called when all have to be known."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        self.extend()
        write_sections(ctx, formatter, self.get_params(ctx))


def help_option() -> click.Option:
    """`--help`, printed like every result, so that a reader who goes away is noticed alike."""
    return eager_option(["-h", "--help"], "Show this text and exit.", lambda context: context.get_help())


def eager_option(declarations: list[str], help: str, text: Any) -> SectionOption:
    """An option that prints `text(context)` and ends the program."""

    def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            StandardOutput().print(text(context) + "\n")
            context.exit()

    settings: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": False, "allow_from_autoenv": False}
    return SectionOption(declarations, "Other", help=help, callback=show, **settings)
