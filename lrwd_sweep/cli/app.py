"""The application: its commands, and the exit code of every way to end."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from lrwd_sweep import __version__
from lrwd_sweep.cli.bench import bench
from lrwd_sweep.cli.convert import convert
from lrwd_sweep.cli.docs import docs
from lrwd_sweep.cli.options import Headed, group, option_text, show_help
from lrwd_sweep.cli.preset import presets
from lrwd_sweep.cli.report import report
from lrwd_sweep.cli.study import studies
from lrwd_sweep.cli.training import compare, grid, tpe
from lrwd_sweep.cli.transfer import transfer
from lrwd_sweep.cli.verify import verify
from lrwd_sweep.cli.worker import worker
from lrwd_sweep.errors import HostError, LrwdError, brief
from lrwd_sweep.report.view import consoles
from lrwd_sweep.runner.signals import Ended, Interrupted, asked, raised, told

OUR_BUG = 5
_NO_MEMORY = (  # in errors of the loader, of threads, of torch and of LLVM
    *("failed to map segment", "cannot allocate memory", "can't allocate memory", "not enough memory"),
    *("can't start new thread", "unable to allocate", "out of memory"),
)
_PASSWORD = re.compile(r"(?<!folder):[^\s/]+@(?=\D|\d+\.)")  # of user:password@host, not of folder:PATH@SIZE
_LONGEST = 1000  # characters of a message about arguments
_COMPLETE = "_LRWD_SWEEP_COMPLETE"  # set by the shells' completion scripts

app = group(
    "lrwd-sweep",
    """Train a lattice of learning rates and weight decays at once, and say whether they can be tuned apart.

    Begin with

    \b
      lrwd-sweep compare adam adamw   trains two lattices on handwritten digits
      lrwd-sweep report               shows them again, from the store
    """,
    completion=True,
)
app.command(cls=Headed, short_help="Train several optimizers' lattices and compare them.")(compare)
app.command(cls=Headed, short_help="Train one optimizer's lattice.")(grid)
app.command(cls=Headed, short_help="Search the lattice's box with Optuna's TPE.")(tpe)
app.command(cls=Headed, short_help="Train lattices along a scale, as epochs, and see what moves.")(transfer)
app.command(short_help="Show what the store holds, without training.")(report)
app.add_typer(studies)
app.add_typer(presets)
app.command(short_help="Convert a weight decay between conventions.")(convert)
app.command(short_help="Show that propositions and update rules hold in numbers.")(verify)
app.command(short_help="Measure the engine's speed against plain torch.")(bench)
app.command(short_help="Train packs of a Ray cluster on this machine.")(worker)
app.command(short_help="Show the user's guide.")(docs)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lrwd-sweep {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    show_help(context)


def main() -> None:
    """Run the command line and exit: 0, 2 usage, 3 host, 4 nothing to report, 5 our bug, 130, 141, 143."""
    gc.disable()  # libraries load a fifth faster; training enables it again, other commands are short
    consoles.prepare()
    code = HostError.exit_code
    try:
        with raised():
            code = run()
            sys.stderr.flush()
    except Ended as error:  # while `run` ended
        code = _ended(error.signal)
    except BrokenPipeError:
        _close_output()
        code = 128 + signal.SIGPIPE
    except OSError:  # stderr cannot be written
        _close_output()
    if asked():
        os._exit(code)  # without the seconds that an interpreter with torch takes to end
    sys.exit(code)


def run() -> int:  # noqa: PLR0911 - one return for each way to end
    """Run the command of `sys.argv` and return the exit code. Raises BrokenPipeError if stdout was closed."""
    command = typer.main.get_command(app)
    if instruction := os.environ.get(_COMPLETE):
        from typer.completion import shell_complete

        return shell_complete(command, {}, "lrwd-sweep", _COMPLETE, instruction)
    try:
        # Typer's own way to run it would make a broken pipe exit code 1.
        with command.make_context("lrwd-sweep", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except TyperException as error:
        at = getattr(error, "ctx", None)
        what = _cut(error.format_message().removesuffix("."))
        return _fail(f"{what}; see {at.command_path if at else 'lrwd-sweep'} --help", error.exit_code)
    except LrwdError as error:
        return _fail(error.spelled(option_text), error.exit_code)
    except Interrupted as error:
        return _fail(str(error), 128 + error.signal)
    except (KeyboardInterrupt, typer.Abort):
        return _ended(asked() or signal.SIGINT)
    except BrokenPipeError:
        raise
    except OSError as error:
        _close_output()
        where = "" if error.filename is None else f": {str(error.filename)!r}"
        return _fail(f"{error.strerror or error}{where}; make room, or write elsewhere", HostError.exit_code)
    except Exception as error:
        if asked():  # a library raised this on the signal
            return _ended(asked())
        if _is_out_of_memory(error):
            return _fail(
                f"out of memory ({brief(error)}); free memory, or raise the limit (ulimit -v)",
                HostError.exit_code,
            )
        if os.environ.get("LRWD_DEBUG"):
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        return _fail(f"this is a fault of lrwd-sweep: {what} (LRWD_DEBUG=1 shows where)", OUR_BUG)
    return 0


def _cut(text: str) -> str:
    """Cut a message that repeats a long argument."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _is_out_of_memory(error: Exception) -> bool:
    """Return True for an error of the system, a library's loader or an allocator for want of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


def _ended(number: int) -> int:
    return _fail(told(number), 128 + number)


def _close_output() -> None:
    """Discard unwritten buffers, which Python would complain about at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(null, stream.fileno())


def _fail(text: str, code: int) -> int:
    """Print `text` on stderr, control characters escaped and passwords hidden, and return the code."""
    from lrwd_sweep.report.view.notation import plain

    try:
        for line in text.splitlines() or [""]:
            consoles.stderr().print(f"lrwd-sweep: {_PASSWORD.sub(':…@', plain(line))}", soft_wrap=True)
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:  # disk full
        _close_output()
    return code
