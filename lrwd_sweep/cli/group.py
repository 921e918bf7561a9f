"""Groups of commands, and commands whose help has headings."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from lrwd_sweep.spec.field import HEADINGS

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_OPTIONS = 28  # columns of the longest option on a line with its help


class Headed(TyperCommand):
    """A command that lists its options under the headings of their `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by heading; those without one come last."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *HEADINGS)}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                on, _, off = record[0].partition(" / ")  # the help shows one end of a switch, and names both
                record = (off if off.startswith("--no-decay") else on), record[1]
                argument = parameter.param_type_name == "argument"
                heading = "Arguments" if argument else getattr(parameter, "rich_help_panel", None)
                sections.setdefault(heading or "Other", []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=_OPTIONS)


def group(name: str, summary: str, *, completion: bool = False) -> typer.Typer:
    """Make an empty group that shows its help, `summary` first, when it is called without a command."""
    commands = typer.Typer(
        name=name,
        help=summary,
        add_completion=completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings=CONTEXT,
    )
    commands.callback()(show_help)
    return commands


def show_help(context: typer.Context) -> None:
    """Print the help of a group that was called without a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
