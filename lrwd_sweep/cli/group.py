"""A group of commands that shows its help when it is called alone."""

from __future__ import annotations

import typer


def group(name: str, summary: str) -> typer.Typer:
    """An empty group; `summary` is its help."""
    commands = typer.Typer(
        name=name,
        help=summary,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.callback()(show_help)
    return commands


def show_help(context: typer.Context) -> None:
    """Print the help of a group that was called without a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
