"""Groups of commands, and the options of grid, compare and tpe, made from `Task` and `Request`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lrwd_sweep.cli.parse import fraction, margin, number, one_of, pair, whole
from lrwd_sweep.report.view.notation import AxisStyle, labelled_axes
from lrwd_sweep.science.lattice import Timescales
from lrwd_sweep.science.optimizer import users_of
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.field import HEADINGS, OPTIMIZER, STORE, TRAIN, WHERE, Field
from lrwd_sweep.spec.job import CHECKPOINT_SECONDS, EXECUTORS, ExecutorChoice
from lrwd_sweep.spec.preset import DEFAULT
from lrwd_sweep.spec.request import DEFAULT_OPTIMIZER, REQUEST_FIELDS, Request
from lrwd_sweep.spec.run_options import RUN_FIELDS
from lrwd_sweep.spec.shard import Shard
from lrwd_sweep.spec.task import FIELDS

ALL_FIELDS = REQUEST_FIELDS | RUN_FIELDS | FIELDS
# In the order of `Place`.
_TO = ("storage", "retrain_damaged", "checkpoint_every", "quiet", "margin", "full", "dry_run", "shard")
_PLURAL = {"beta1": "betas"}  # one option sets two fields
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_OPTIONS = 28  # columns of the longest option on a line with its help
_CHOICES = 12  # characters of choices that --help lists beside the option


class TextFormat(StrEnum):
    """Output of a command for a reader or for a program."""

    TEXT = "text"
    JSON = "json"


Format = Annotated[
    TextFormat,
    typer.Option("--format", metavar="NAME", parser=one_of("format", TextFormat), help="text or json."),
]
OldJson = Annotated[bool, typer.Option("--json", hidden=True, help="Same as --format json.")]
OptimizerName = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help=f"FAMILY[w][:RULE], as adamw:lr-scaled [{DEFAULT_OPTIMIZER}]",
        rich_help_panel=OPTIMIZER,
    ),
]
PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME|FILE.toml",
        help=f"Default task and axes; see preset list [{DEFAULT}]",
        rich_help_panel=TRAIN,
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="cpu, cuda (all GPUs), cuda:N; auto: GPUs if any [auto]",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help=f"Where packs train: {', '.join(EXECUTORS[1:])} [auto]",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Head of a Ray cluster [$RAY_ADDRESS or this machine]",
        rich_help_panel=WHERE,
    ),
]
Spool = Annotated[
    str | None,
    typer.Option(
        "--spool",
        metavar="DIR",
        help="Finished packs go here; all nodes see it [none]",
        rich_help_panel=WHERE,
    ),
]
MaxLanes = Annotated[
    int | None,
    typer.Option(
        "--max-lanes",
        metavar="N",
        parser=whole("--max-lanes"),
        help="Most lanes in one pack [as cache and memory allow]",
        rich_help_panel=WHERE,
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="PATH",
        help="Folder of data sets [$LRWD_DATA or ~/.cache/lrwd-sweep]",
        rich_help_panel=WHERE,
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Download missing files [list them and stop]", rich_help_panel=WHERE),
]
ShardPart = Annotated[
    Shard | None,
    typer.Option(
        "--shard",
        metavar="K/N",
        parser=Shard.of,
        help="Train part K of N; study merge joins them [all]",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        "--checkpoint-every",
        metavar="SECONDS",
        parser=number("--checkpoint-every", 0),
        help="Save packs in training this often; 0: never [60]",
        rich_help_panel=STORE,
        show_default=False,
    ),
]
RetrainDamaged = Annotated[
    bool,
    typer.Option(
        "--retrain-damaged",
        help="Train damaged lanes again [refuse the study]",
        rich_help_panel=STORE,
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study-name",
        metavar="NAME",
        help="Name in the store [made of task and optimizer]",
        rich_help_panel=STORE,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PATH|URL",
        help="SQLite file [$LRWD_STORAGE or ./lrwd-sweep.db]",
        rich_help_panel=STORE,
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin",
        metavar="M",
        parser=margin,
        help="Slopes within ±M count as separable [0.25]",
        rich_help_panel=STORE,
        show_default=False,
    ),
]
AxisName = Annotated[
    AxisStyle | None,
    typer.Option(
        "--axis",
        metavar="NAME",
        parser=one_of("axis", AxisStyle),
        help="Axis labels: powers (of two), decimal, or tau of decay [powers]",
        rich_help_panel=STORE,
        show_default=False,
    ),
]
Full = Annotated[
    bool, typer.Option("--full", help="Print every number before the answer", rich_help_panel=STORE)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print runs, memory, time, names; write nothing", rich_help_panel=STORE),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No progress and no notes on stderr, only errors", rich_help_panel=STORE
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """The device, files and store of a command, and how it reports."""

    device: str
    max_lanes: int | None
    choice: ExecutorChoice
    files: DataFiles
    storage: str | None
    retrain_damaged: bool
    checkpoint_every: float
    quiet: bool
    margin: float | None
    full: bool
    dry_run: bool
    shard: Shard | None = None


def trains(**own: tuple[Any, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function of a request, a place and its `own` options a command with all their options.

    `own` holds annotation and default by parameter. Typer reads the options from the signature made here.
    """
    options = {
        **own,
        "preset": (PresetName, DEFAULT),
        **{_PLURAL.get(name, name): _option(field) for name, field in ALL_FIELDS.items() if field.help},
        "device": (Device, "auto"),
        "max_lanes": (MaxLanes, None),
        "executor": (Executor, EXECUTORS[0]),
        "ray_address": (RayAddress, None),
        "spool": (Spool, None),
        "data_dir": (DataDir, None),
        "download": (Download, False),
        "shard": (ShardPart, None),
        "storage": (Storage, None),
        "retrain_damaged": (RetrainDamaged, False),
        "checkpoint_every": (CheckpointEvery, CHECKPOINT_SECONDS),
        "quiet": (Quiet, False),
        "margin": (Margin, None),
        "full": (Full, False),
        "dry_run": (DryRun, False),
        "axis": (AxisName, None),
    }

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            mine = {name: given.pop(name) for name in own}
            axis = given.pop("axis")
            where = [given.pop(name) for name in ("device", "max_lanes", "data_dir", "download")]
            choice = ExecutorChoice(*(given.pop(name) for name in ("executor", "ray_address", "spool")))
            to = [given.pop(name) for name in _TO]
            given["beta1"], given["beta2"] = given.pop("betas") or (None, None)
            place = Place(where[0], where[1], choice, DataFiles(*where[2:]), *to)
            request = replace(Request.of(**given), margin=place.margin)
            usual = AxisStyle.TAU if isinstance(request.weight_decay, Timescales) else AxisStyle.POWERS
            with labelled_axes(axis or usual):
                function(request, place, **mine)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__annotations__ = {name: kind for name, (kind, _) in options.items()}
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
                for name, (kind, default) in options.items()
            ]
        )
        return command

    return decorate


def _option(field: Field) -> tuple[Any, None]:
    """Return the option of a field as an annotation; it is None unless given."""
    name, kind = field.option, field.kind
    parser: Callable[..., Any] | None = None
    metavar: str | None = field.metavar
    if name == "--betas":
        kind, parser = str, pair(name)
    elif name in ("--cap", "--diverged-above"):
        parser = number(name)
    elif name == "--run":
        found = typer.Option(name, metavar=metavar, help=field.help, rich_help_panel=field.panel)
        return Annotated[list[str] | None, found], None
    elif kind is int:
        parser, metavar = whole(name, int(field.least), field.most), "N"
    elif kind is float:
        parser = fraction(name, field.below, "1e-8" if name == "--eps" else "0.9")
        metavar = "X" if metavar == "NAME" else metavar
    elif kind is bool:
        name, metavar = f"{name}/{field.off}", None
    else:  # text, a choice, or an axis
        kind, choices = str, "|".join(field.choices)
        metavar = choices if 0 < len(choices) < _CHOICES else metavar
    found = typer.Option(
        name, metavar=metavar, parser=parser, help=field.help + _default(field), rich_help_panel=field.panel
    )
    return Annotated[kind | None, found], None


def _default(field: Field) -> str:
    """Return a field's default in brackets, unless its help has one."""
    if field.help.endswith("]"):
        return ""
    if field.name == "beta1":
        return f" [{_usual('beta1')},{_usual('beta2')}]"
    if field.default is None and users_of(field.name):
        return f" [{_usual(field.name)}]"
    default = (
        {True: "all", False: "no"}.get(field.default, field.default) if field.kind is bool else field.default
    )
    return f" [{default:g}]" if field.kind is float else f" [{default}]"


def _usual(name: str) -> str:
    """Return the default of an optimizer's hyperparameter, and the families with another."""
    users: dict[object, list[str]] = {}
    for family in users_of(name):
        users.setdefault(family.hyperparameters[name], []).append(family)
    first, *others = (f"{', '.join(families)}: {value:g}" for value, families in users.items())
    return "; ".join([first.split(": ")[1], *others])


def option_text(name: str, value: str | None = None, _: str = "") -> str:
    """Spell an argument of an error's message as an option with its value."""
    field = ALL_FIELDS.get(name)
    option = field.option if field else f"--{name.replace('_', '-')}"
    if value in ("True", "False"):
        return field.off if field and value == "False" else option
    return option if value is None else f"{option} {value}"


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
