"""The application: its commands, and what becomes of every way to end."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from lrwd_sweep import __version__
from lrwd_sweep.cli.bench import bench
from lrwd_sweep.cli.compare import compare
from lrwd_sweep.cli.grid import grid
from lrwd_sweep.cli.preset import presets
from lrwd_sweep.cli.report import report
from lrwd_sweep.cli.signals import Interrupted
from lrwd_sweep.cli.study import studies
from lrwd_sweep.cli.tpe import tpe
from lrwd_sweep.errors import LrwdError
from lrwd_sweep.view import consoles

OUR_BUG = 5

app = typer.Typer(
    name="lrwd-sweep",
    help="Train a lattice of learning rates and weight decays at once, and say whether they can be tuned apart.",
    epilog="Begin with:  lrwd-sweep compare adam adamw",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (grid, compare, tpe, report):
    app.command()(command)
app.add_typer(studies)
app.add_typer(presets)
app.command()(bench)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lrwd-sweep {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line and exit: 0, 2 usage, 3 host, 4 nothing to report, 5 our bug, 130, 141, 143."""
    sys.exit(_run())


def _run() -> int:  # noqa: PLR0911 - one return for each way to end
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f" See {context.command_path} --help" if context is not None else ""
        return _fail(error.format_message() + hint, error.exit_code)
    except LrwdError as error:
        return _fail(str(error), error.exit_code)
    except Interrupted as error:
        return _fail(str(error), 128 + error.signal)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        # What is left in the buffer has no reader; without this, Python would complain while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if os.environ.get("LRWD_DEBUG"):
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        return _fail(f"this is a fault of lrwd-sweep: {what} (LRWD_DEBUG=1 shows where)", OUR_BUG)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    """Every line of `text` on stderr, harmless whatever names are in it."""
    from lrwd_sweep.view.plain import plain

    for line in text.splitlines() or [""]:
        consoles.stderr().print(f"lrwd-sweep: {plain(line)}", soft_wrap=True)
    return code
