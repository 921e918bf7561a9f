"""Request: a preset and the values that override it, resolved once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.science.lattice import Lattice, Timescales, parse_axis
from lrwd_sweep.science.trial import Direction, says_lower
from lrwd_sweep.spec.catalog import direction_of, metric_of
from lrwd_sweep.spec.field import AXES, STORE, declared, fields_of, finite, name_of, number
from lrwd_sweep.spec.net_options import options_text, parse_options
from lrwd_sweep.spec.preset import DEFAULT, MOST_SEEDS, Preset, Variant, find_preset, refuse_unused
from lrwd_sweep.spec.run_options import RUN_FIELDS, RunOptions, command_of, foreign_optimizer, run_options
from lrwd_sweep.spec.study import Kind, Refine, StudySpec, decays_of, tidy
from lrwd_sweep.spec.task import FIELDS, Task
from lrwd_sweep.spec.user_code import find, is_user_code

DEFAULT_OPTIMIZER = "adamw"
SEEDS_OF_COMMAND = 3  # what a verdict needs, as each may take hours

Axis = str | Iterable[float]  # as an option writes it, or its values
Complete = Callable[[Task], Task]  # adds what only loaded data and user code tell of a task


@dataclass(frozen=True, slots=True)
class Request:
    """A request for studies, besides their optimizers; None is the preset's value, or no `cap`."""

    preset: Preset
    lr: tuple[float, ...] | None = declared(
        None, "α: 2^-12:2^-2, 1e-4:1e-1:9 or 1e-3,1e-2 [the preset's]", panel=AXES, metavar="AXIS"
    )
    weight_decay: tuple[float, ...] | None = declared(
        None,
        "λ likewise, or τ as tau:0.05:5:7; 0 is a baseline [the preset's]",
        panel=AXES,
        flags="--wd",
        metavar="AXIS",
    )
    seeds: int | None = declared(
        None, "Seeds in every cell, 3 for intervals [the preset's]", panel=AXES, least=1, most=MOST_SEEDS
    )
    first_seed: int | None = declared(
        None, "Begin with seed N, for fresh draws [0]", panel=AXES, most=MOST_SEEDS
    )
    refine: bool | None = declared(None, "Train only the runs that the verdict needs [all]", panel=AXES)
    max_runs: int | None = declared(
        None, "Most runs with --refine, earlier ones included [no limit]", panel=AXES, least=1
    )
    metric: str | None = declared(
        None, "{val,train}_{loss,error,…} or ./file.py:NAME [val_loss]", panel=STORE
    )
    cap: float | None = declared(
        None,
        "Metric value that counts as diverged [chance, if error]",
        panel=STORE,
        metavar="V",
        least=-math.inf,
        below=math.inf,
    )
    maximize: bool | None = declared(
        None,
        "A higher metric is better; --minimize [by its name]",
        panel=STORE,
        flags="--maximize/--minimize",
    )
    overrides: tuple[tuple[str, Any], ...] = ()  # of the task, by field
    options: RunOptions | None = None  # of a command or function of the user
    margin: float | None = None  # of the verdict, for `refine`

    @classmethod
    def of(cls, preset: str = DEFAULT, **given: Any) -> Self:
        """Resolve the preset and its overrides, by name of `FIELDS` or `REQUEST_FIELDS`; None: left out.

        Raises UsageError or UnknownName.
        """
        if not isinstance(preset, str):
            raise UsageError(f"{arg('preset', preset)} is not text")
        values = {name: _value(name, value) for name, value in given.items() if value is not None}
        own = {name: values.pop(name) for name in REQUEST_FIELDS if name in values}
        run = {name: values.pop(name) for name in (*RUN_FIELDS, "objective") if name in values}
        options = run_options(run, own, values, preset)
        return cls(find_preset(preset), **own, overrides=tuple(values.items()), options=options)

    def variant(self, name: str | None) -> Variant:
        """Return the named optimizer's, or the only one of the preset. Raises UsageError or UnknownName."""
        if self.options is not None and self.options.count > 1:
            given = f"{self.options.option} is given {self.options.count} times"
            raise UsageError(f"{given}; give it once, or compare several optimizers")
        if name is None and self.options is not None:
            raise UsageError(
                f"{arg('optimizer')} is required: the decay rule of your script decides the verdict, and "
                "cannot be guessed; torch.optim.AdamW is adamw:lr-scaled, torch.optim.Adam is adam"
            )
        if name is None and len(self.preset.variants) == 1:
            return self.variants([])[0]
        return self.variants([DEFAULT_OPTIMIZER if name is None else name])[0]

    def variants(self, names: Sequence[str]) -> list[Variant]:
        """Return the named optimizers', or all of the preset. Raises UsageError or UnknownName."""
        preset, overrides = self.preset, dict(self.overrides)
        if self.options is not None:
            return [Variant(foreign_optimizer(name)) for name in names]
        chosen = [Variant.named(name) for name in names] or list(preset.variants)
        if not chosen:
            raise UsageError(f"preset {preset.name!r} names no variants; name an optimizer")
        schedules = [{"schedule": preset.task.schedule, **v.task, **overrides}["schedule"] for v in chosen]
        refuse_unused(overrides, [variant.optimizer for variant in chosen], schedules)
        return chosen

    def spec(
        self,
        variant: Variant,
        kind: Kind = Kind.GRID,
        complete: Complete = lambda task: task,
        place: int = 0,  # of the optimizer among those compared
    ) -> StudySpec:
        """Return the complete specification; the request outweighs the variant, the variant the preset.

        Raises UsageError or UnknownName.
        """
        if self.options is not None:
            return self._spec_of_command(self.options, variant, kind, place)
        preset, metric = self.preset, self.metric or self.preset.metric
        own = {"measure": metric} if is_user_code(metric) else {}
        task = complete(preset.task.changed(**{**variant.task, **dict(self.overrides), **own}))
        lr, wd = self.lr or variant.lr, self.weight_decay or variant.wd
        if lr is None or wd is None:
            default = replace(preset, task=complete(preset.task)).lattice(variant.optimizer)
            lr, wd = lr or default.lr, wd or default.weight_decay
        first = self.first_seed or 0
        seeds = tuple(range(first, first + (self.seeds or preset.seeds)))
        metric = metric_of(metric) if own else metric
        direction = Direction.MINIMIZE
        if metric in task.metrics:  # else it is refused
            asked = {None: None, True: Direction.MAXIMIZE, False: Direction.MINIMIZE}[self.maximize]
            direction = direction_of(metric, asked) or self._asked(metric)
        wd = decays_of(wd, variant.optimizer, task) if isinstance(wd, Timescales) else wd
        return StudySpec(
            kind,
            variant.optimizer,
            Lattice(lr, wd),
            seeds,
            metric,
            task,
            direction,
            self.cap,
            refine=self._refine(kind),
        )

    def _refine(self, kind: Kind) -> Refine | None:
        """Return the settings of a refined lattice, or None. Raises UsageError for a search."""
        if not self.refine:
            if self.max_runs is not None:
                raise UsageError(f"{arg('max_runs', self.max_runs)} requires {arg('refine')}; add it")
            return None
        if kind is Kind.TPE:
            raise UsageError(
                f"{arg('refine', True)} chooses cells of a lattice, and TPE its own points; leave it out, or "
                "train a grid"
            )
        return Refine(self.max_runs, self.margin)

    def _asked(self, metric: str) -> Direction:
        """Return the direction that was asked for, or that a name as val_loss implies. Raises UsageError."""
        if self.maximize is None and not says_lower(metric):
            raise UsageError(
                f"is a higher or a lower {metric!r} better? add {arg('maximize', True)}, or "
                f"{arg('maximize', False)} if lower is better"
            )
        return Direction.MAXIMIZE if self.maximize else Direction.MINIMIZE

    def _spec_of_command(self, options: RunOptions, variant: Variant, kind: Kind, place: int) -> StudySpec:
        command = command_of(options, place, variant.optimizer, dict(self.overrides).get("epochs"))
        if self.lr is None or self.weight_decay is None:
            missing = "lr" if self.lr is None else "weight_decay"
            raise UsageError(
                f"{arg(missing)} is required with {arg(command.option)}: the rates of your script are not "
                f"known; write for example {arg(missing, '1e-4:1e-2:5')}"
            )
        if isinstance(self.weight_decay, Timescales):
            raise UsageError(
                f"{arg('weight_decay', 'tau:…')} needs the number of steps, which is unknown of your script; "
                "give the numbers that it takes"
            )
        first, takes_seed = self.first_seed or 0, command.takes("seed")
        seeds = tuple(range(first, first + (self.seeds or (SEEDS_OF_COMMAND if takes_seed else 1))))
        command.refuse_copies(seeds)
        metric = self.metric or command.key
        if not metric and command.source[0] == "stdout":
            raise UsageError(f"{arg('metric')} is required: it names what {arg('read')} finds; add val_loss")
        metric = metric or self.preset.metric
        lattice, direction = Lattice(self.lr, self.weight_decay), self._asked(metric)
        return StudySpec(
            kind,
            variant.optimizer,
            lattice,
            seeds,
            metric,
            None,
            direction,
            self.cap,
            command=command,
            refine=self._refine(kind),
        )

    def name(self, spec: StudySpec) -> str:
        """Return the study's default name, after the preset's unless that is the default preset.

        Presets ask different questions, so their lattices are different studies.
        """
        owner, name = self.preset.owner, spec.default_name
        return name if owner == DEFAULT else f"{tidy(owner)}-{name}"

    def compared(self, names: Sequence[str], complete: Complete = lambda task: task) -> dict[str, StudySpec]:
        """Return the specs of the named optimizers, or of all that the preset compares, by study name.

        Raises UsageError, or UnknownName, also if two are the same study or only one was named.
        """
        options = self.options
        if options is not None and not names:
            raise UsageError("compare needs the names of the optimizers, as in compare adam adamw:lr-scaled")
        if options is not None and options.count not in (1, len(names)):
            given = f"{options.option} is given {options.count} times"
            raise UsageError(f"{given} for {len(names)} optimizers; give one for each")
        variants = self.variants(names)
        specs = [self.spec(variant, complete=complete, place=k) for k, variant in enumerate(variants)]
        if options is not None and len({spec.command for spec in specs}) < len(specs):
            option = options.option
            raise UsageError(
                f"{option} is the same for two optimizers; write {{optimizer}} in it (a function takes an "
                f"argument optimizer; it is the name before the colon), or give one {option} for each"
            )
        found = {self.name(spec): spec for spec in specs}
        if len(found) < len(specs) and not names:
            raise UsageError(
                f"{arg('preset', self.preset.name)}: with these options some of its variants are the same "
                "study; leave out the options in which they differ"
            )
        if len(found) < max(len(specs), 2 if names else 1):
            given = " ".join(spec.title for spec in specs)
            raise UsageError(
                f"compare {given}: name two or more different optimizers, as in compare adam adamw"
            )
        return found


REQUEST_FIELDS = fields_of(Request)


def axis(given: Axis, name: str) -> tuple[float, ...]:
    """Return an axis in either form, ascending; `name` is "lr" or "weight_decay". Raises UsageError.

    >>> axis("2^-3:2^-1", "lr") == axis([0.5, 0.25, 0.125], "lr")
    True
    """
    if isinstance(given, str):
        return parse_axis(given, name)
    try:
        values = sorted(float(value) for value in given)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"{arg(name, given)} is not an axis; write it as in '2^-12:2^-2', or give a list of numbers"
        ) from None
    return parse_axis(",".join(map(repr, values)), name)


def _value(name: str, given: Any) -> Any:
    """Return a given value as its field holds it."""
    if name in ("lr", "weight_decay"):
        return axis(given, name)
    if name in ("net", "data", "loss", "metric"):
        return name_of(name, given)
    if name == "net_options":
        return options_text(parse_options(given) if isinstance(given, str) else given)
    if name in ("run", "objective"):
        return _several(name, given)
    value = number(given)
    if name in ("cap", "diverged_above"):
        return finite(name, value)
    value = str(value) if name == "timeout" and isinstance(value, int | float) else value
    return (REQUEST_FIELDS | RUN_FIELDS | FIELDS)[name].check(value)


def _several(name: str, given: Any) -> tuple[Any, ...]:
    """Return commands or functions as a tuple. Raises UsageError for anything else."""
    several = tuple(given) if isinstance(given, list | tuple) else (given,)
    if name == "objective":  # also by name, as a network
        several = tuple(
            find(name, one).thing if isinstance(one, str) and is_user_code(one) else one for one in several
        )
    for each in several:
        if not (isinstance(each, str) if name == "run" else callable(each)):
            what = "text" if name == "run" else "a function; write f(lr, weight_decay, seed)"
            raise UsageError(f"{arg(name, each)} is not {what}")
    return several


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise UnknownName for a keyword that is neither among `known` nor a field of the task."""
    names = [*known, *(name for name, field in FIELDS.items() if field.panel)]
    names += [*RUN_FIELDS, "objective"]
    for keyword in given:
        if keyword not in names:
            raise UnknownName("keyword", keyword, names)
