"""Groups of commands, and the options of grid, compare, tpe and transfer, made from declared fields."""

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
from lrwd_sweep.spec.field import HEADINGS, OPTIMIZER, STORE, TRAIN, WHERE, Field, declared, fields_of
from lrwd_sweep.spec.job import CHECKPOINT_SECONDS, EXECUTORS, DataFiles, ExecutorChoice, Shard
from lrwd_sweep.spec.preset import DEFAULT
from lrwd_sweep.spec.request import DEFAULT_OPTIMIZER, REQUEST_FIELDS, Request
from lrwd_sweep.spec.run_options import RUN_FIELDS
from lrwd_sweep.spec.task import FIELDS

ALL_FIELDS = REQUEST_FIELDS | RUN_FIELDS | FIELDS
_PLURAL = {"beta1": "betas"}  # one option sets two fields
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_OPTIONS = 28  # columns of the longest option on a line with its help
_CHOICES = 12  # characters of choices that --help lists beside the option
_LIKE = {  # examples in errors, where 0.9 would be a strange one
    "eps": "1e-8",
    "eta_min": "0.01",
    "label_smoothing": "0.1",
    "logit_decay": "0.001",
    "clip_norm": "1",
    "damping": "0.001",
    "sam": "0.05",
    "swa": "45",
    "ema": "2",
}


class TextFormat(StrEnum):
    """Output of a command for a reader or for a program."""

    TEXT = "text"
    JSON = "json"


@dataclass
class Place:
    """The device, files and store of a command, and how it reports. Raises UsageError or UnknownName."""

    device: str = declared("auto", "cpu, cuda (all GPUs), cuda:N; auto: GPUs if any [auto]", panel=WHERE)
    max_lanes: int | None = declared(
        None, "Most lanes in one pack [as cache and memory allow]", panel=WHERE, least=1
    )
    executor: str = declared("auto", f"Where packs train: {', '.join(EXECUTORS[1:])} [auto]", panel=WHERE)
    ray_address: str | None = declared(
        None, "Head of a Ray cluster [$RAY_ADDRESS or this machine]", panel=WHERE, metavar="HOST:PORT"
    )
    spool: str | None = declared(
        None, "Finished packs go here; all nodes see it [none]", panel=WHERE, metavar="DIR"
    )
    data_dir: str | None = declared(
        None, "Folder of data sets [$LRWD_DATA or ~/.cache/lrwd-sweep]", panel=WHERE, metavar="PATH"
    )
    download: bool = declared(
        False, "Download missing files [list them and stop]", panel=WHERE, flags="--download/"
    )
    shard: Shard | None = declared(  # noqa: RUF009 - a kind
        None, "Train part K of N; study merge joins them [all]", panel=WHERE, metavar="K/N"
    )
    storage: str | None = declared(
        None, "SQLite file [$LRWD_STORAGE or ./lrwd-sweep.db]", panel=STORE, metavar="PATH|URL"
    )
    retrain_damaged: bool = declared(
        False, "Train damaged lanes again [refuse the study]", panel=STORE, flags="--retrain-damaged/"
    )
    checkpoint_every: float = declared(
        CHECKPOINT_SECONDS, "Save packs in training this often; 0: never [60]", panel=STORE, metavar="SECONDS"
    )
    quiet: bool = declared(
        False, "No progress and no notes on stderr, only errors", panel=STORE, flags="--quiet/"
    )
    margin: float | None = declared(
        None, "Slopes within ±M count as separable [0.25]", panel=STORE, metavar="M"
    )
    full: bool = declared(False, "Print every number before the answer", panel=STORE, flags="--full/")
    dry_run: bool = declared(
        False, "Print runs, memory, time, names; write nothing", panel=STORE, flags="--dry-run/"
    )
    axis: AxisStyle | None = declared(  # noqa: RUF009 - likewise
        None, "Axis labels: powers (of two), decimal, or tau of decay [powers]", panel=STORE
    )

    def __post_init__(self) -> None:
        self.choice = ExecutorChoice(self.executor, self.ray_address, self.spool)
        self.files = DataFiles(self.data_dir, self.download)


PLACE_FIELDS = fields_of(Place)
_SHORT = {"quiet": ["-q"]}
_PARSERS: dict[str, Callable[..., Any]] = {  # of values that are more than their kind
    "beta1": pair("--betas"),
    "cap": number("--cap"),
    "diverged_above": number("--diverged-above"),
    "shard": Shard.of,
    "checkpoint_every": number("--checkpoint-every", 0),
    "margin": margin,
    "axis": one_of("axis", AxisStyle),
}


def trains(**own: tuple[Any, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function of a request, a place and its `own` options a command with all their options.

    `own` holds annotation and default by parameter. Typer reads the options from the signature made here.
    """
    options = {
        **own,
        "preset": (PresetName, DEFAULT),
        **{
            _PLURAL.get(name, name): (_annotation(each), None)
            for name, each in ALL_FIELDS.items()
            if each.help
        },
        **{name: (_annotation(each), each.default) for name, each in PLACE_FIELDS.items()},
    }

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            mine = {name: given.pop(name) for name in own}
            place = Place(**{name: given.pop(name) for name in PLACE_FIELDS})
            given["beta1"], given["beta2"] = given.pop("betas") or (None, None)
            request = replace(Request.of(**given), margin=place.margin)
            usual = AxisStyle.TAU if isinstance(request.weight_decay, Timescales) else AxisStyle.POWERS
            with labelled_axes(place.axis or usual):
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


def _annotation(field: Field) -> Any:
    """Return a field's parameter of a command; text is parsed by the field itself."""
    if field.name == "run":
        return Annotated[list[str] | None, _option(field)]
    simple = field.kind in (bool, int, float) and field.name != "beta1"
    return Annotated[(field.kind if simple else str) | None, _option(field)]


def _option(field: Field) -> Any:
    """Return the option of a field; its help names the default."""
    name, metavar, parser = field.option, field.metavar, _PARSERS.get(field.name)
    if field.kind is bool:
        name, metavar = f"{name}/{field.off}" if field.off else name, ""
    elif field.kind is int:
        parser, metavar = whole(name, int(field.least), field.most), "N"
    elif field.kind is float and parser is None:
        parser = fraction(name, field.below, _LIKE.get(field.name, "0.9"))
        metavar = "X" if metavar == "NAME" else metavar
    elif 0 < len(choices := "|".join(field.choices)) < _CHOICES:
        metavar = choices
    return typer.Option(
        name,
        *_SHORT.get(field.name, ()),
        metavar=metavar or None,
        parser=parser,
        help=field.help + _default(field),
        rich_help_panel=field.panel,
        show_default=False,
    )


def _default(field: Field) -> str:
    """Return a field's default in brackets, unless its help has one."""
    if field.help.endswith("]") or (field.kind is bool and not field.off):
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


Format = Annotated[
    TextFormat,
    typer.Option("--format", metavar="NAME", parser=one_of("format", TextFormat), help="text or json."),
]
OldJson = Annotated[bool, typer.Option("--json", hidden=True, help="Same as --format json.")]
Device = Annotated[str, _option(PLACE_FIELDS["device"])]
Storage = Annotated[str | None, _option(PLACE_FIELDS["storage"])]
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
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study-name",
        metavar="NAME",
        help="Name in the store [made of task and optimizer]",
        rich_help_panel=STORE,
    ),
]


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
