"""The command line that trains a study, as a report prints it, and the axes that it names."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.result import Result
from lrwd_sweep.science.lattice import Lattice, canonical, format_axis, format_value, parse_axis
from lrwd_sweep.science.trial import Direction, Status, says_lower
from lrwd_sweep.spec.catalog import DataSet, metric_of, of_last_weights
from lrwd_sweep.spec.net_options import said_options
from lrwd_sweep.spec.preset import DEFAULT, Preset, Variant, find_preset, preset_names
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.run_options import explicit_name
from lrwd_sweep.spec.study import Kind, StudySpec, tidy
from lrwd_sweep.spec.task import FIELDS, Task

_OCTAVES = 2.0  # least extension of an axis
_MIN_EXTENSION = 2  # least number of further values
_SHORT = 200  # characters of a command that ends with the report
_BESIDE = 9  # at most 8 values on one side of a range
_HARMLESS = re.compile(r"[A-Za-z0-9_@%+=:,./^-]+\Z")  # in every shell; shlex would quote 2^-3


@dataclass(frozen=True, slots=True)
class Advice:
    """One next step and its reason, and the words of its command, if it has one."""

    why: str
    command: tuple[str, ...] | None = None
    runs: int | None = None  # that the command trains; None if it was not counted

    @property
    def command_line(self) -> str | None:
        """Return the command on one line."""
        return None if self.command is None else " ".join(self.command)


def command(
    spec: StudySpec,
    name: str,
    storage: str | None = None,
    points: int = 0,
    data_dir: str | None = None,
) -> tuple[str, ...] | None:
    """Return the words of the `lrwd-sweep` call that trains `spec`, each option joined with its value.

    Defaults of the preset and the optimizer are left out. `points` is the total of a search. None if options
    cannot describe the study: an import, changed data, options of a network, a name that cannot be typed.
    """
    t = spec.task
    if spec.command is not None:
        return _of_command([(name, spec)], storage, points) if f"{name}{storage}".isprintable() else None
    if t is None or not f"{name}{storage}{data_dir}".isprintable():
        return None
    if DataSet.known(t.data) not in (t.sizes, None):
        return None  # the data set has changed
    words = [f"lrwd-sweep {'tpe' if spec.kind is Kind.TPE else 'grid'}", f"--optimizer {spec.title}"]
    words += [f"--trials {points}"] * (spec.kind is Kind.TPE)
    words += _task(spec, t)
    if name != spec.default_name:
        words.append(f"--study-name {_quoted(name)}")
    return (*words, *_place(storage, data_dir))


def compare_command(
    specs: Mapping[str, StudySpec],  # by study name
    storage: str | None = None,
    data_dir: str | None = None,
) -> tuple[str, ...] | None:
    """Return the words of the `lrwd-sweep compare` call that trains all of `specs`.

    None if the studies differ in more than their optimizer, or have names that the user gave.
    """
    if len(specs) < 2 or any(spec.kind is not Kind.GRID for spec in specs.values()):
        return None
    if any(spec.command is not None for spec in specs.values()):
        first, *_ = specs.values()
        alike = all(
            first.command is not None
            and spec.command is not None
            and spec.command == replace(first.command, template=spec.command.template, code=spec.command.code)
            and not spec.command.function
            and _extents(spec) == _extents(first)
            and name == spec.default_name
            for name, spec in specs.items()
        )
        return _of_command(list(specs.items()), storage) if alike else None
    if (preset := _compared_by(specs)) is not None:
        return (f"lrwd-sweep compare --preset {preset}", *_place(storage, data_dir))
    tasks = []
    for name, spec in specs.items():
        if command(spec, name, storage, data_dir=data_dir) is None or name != spec.default_name:
            return None
        assert spec.task is not None, "an imported study has no command"
        tasks.append(_task(spec, spec.task))
    if any(one != tasks[0] for one in tasks):
        return None
    optimizers = " ".join(spec.title for spec in specs.values())
    return (f"lrwd-sweep compare {optimizers}", *tasks[0], *_place(storage, data_dir))


def _of_command(
    studies: Sequence[tuple[str, StudySpec]], storage: str | None, points: int = 0
) -> tuple[str, ...] | None:
    """Return the words of the call that runs one or several user commands; None for a function of Python."""
    name, spec = studies[0]
    command = spec.command
    if command is None or command.function:
        return None
    names = " ".join(explicit_name(each.optimizer) for _, each in studies)
    words = [f"lrwd-sweep {'tpe' if spec.kind is Kind.TPE else 'grid'}", f"--optimizer {names}"]
    words = words if len(studies) == 1 else [f"lrwd-sweep compare {names}"]
    words += [f"--trials {points}"] * (spec.kind is Kind.TPE)
    words += [f"--run {shlex.quote(each.command.text)}" for _, each in studies if each.command is not None]
    words += ["--shell"] * command.shell + ["--keep-out"] * command.keep_out
    first, seeds = min(spec.seeds), len(spec.seeds)
    given = {
        "--read": command.read,
        "--take": command.take if command.take != "last" else "",
        "--metric": spec.metric,
        "--lr": axis_text(spec.lattice.lr),
        "--wd": axis_text(spec.lattice.weight_decay),
        "--seeds": max(spec.seeds) + 1 - first if command.takes("seed") or seeds > 1 else "",
        "--first-seed": first or "",
        "--jobs": command.jobs or "",
        "--timeout": "" if command.timeout is None else f"{command.timeout:g}s",
        "--diverged-above": "" if command.diverged_above is None else repr(command.diverged_above),
        "--cap": "" if spec.given_cap is None else repr(spec.given_cap),
    }
    words += [f"{option} {_quoted(str(value))}" for option, value in given.items() if value != ""]
    if spec.direction is Direction.MAXIMIZE or not says_lower(spec.metric):
        words.append(f"--{spec.direction}")
    words += _refine(spec)
    if len(studies) == 1 and name != spec.default_name:
        words.append(f"--study-name {_quoted(name)}")
    return (*words, *_place(storage, None))


def report_command(name: str, metric: str, storage: str | None) -> tuple[str, ...]:
    """Return the words of the `lrwd-sweep report` call in `metric`; empty if a name cannot be typed."""
    if not f"{name}{storage}".isprintable():
        return ()
    return (f"lrwd-sweep report {_quoted(name)}", f"--metric {metric}", *_place(storage, None))


def of_all(spec: StudySpec, result: Result, among: Sequence[Result]) -> tuple[str, ...] | None:
    """Return the command that trains a study's spec together with the others; None without one."""
    if result not in among or spec.lattice != result.spec.lattice:
        return None
    specs = {each.name: spec if each is result else replace(each.spec, seeds=spec.seeds) for each in among}
    return compare_command(specs, result.storage, result.data_dir)


def then_report(words: tuple[str, ...], result: Result, among: Sequence[Result]) -> tuple[str, ...] | None:
    """Append the shortest call that reports all studies, if one can be typed; None if it is too long."""
    again: tuple[str, ...] = ()
    if f"{' '.join(each.name for each in among)}{result.storage}".isprintable():
        names = (_quoted(each.name) for each in among)
        again = ("lrwd-sweep report", *names, *_place(result.storage, None))
    alike = len({each.spec.seeds for each in among}) == 1
    compare = of_all(result.spec, result, among) if alike else None
    again = min(filter(None, [again, compare]), key=lambda words: len(" ".join(words)), default=())
    if len(" ".join((*words, *again))) > _SHORT:
        return None
    return (*words, "&&", *again) if again else words


def new_runs(result: Result, spec: StudySpec, points: int = 0) -> int:
    """Count the runs of a spec that the study does not have yet; `points` are those of a search."""
    if (found := result.refinement) is not None and spec.refine is not None:
        if spec.refine != result.spec.refine:
            return found.unfit
        if spec.lattice == result.spec.lattice and (new := len(spec.seeds) - len(found.seeds)) > 0:
            return int(found.asked[..., len(found.seeds) - 1].sum()) * new
        return int(found.todo.sum())
    cells = points if spec.is_search else len(set(spec.lattice.cells()))
    done = sum(trial.status is not Status.FAILED and trial.seed in spec.seeds for trial in result.trials)
    return max(cells * len(spec.seeds) - done, 0)


def _compared_by(specs: Mapping[str, StudySpec]) -> str | None:
    """Return the preset, other than the default, that compares exactly these; None without one."""
    for name in preset_names():
        if name != DEFAULT and all(study.startswith(f"{tidy(name)}-") for study in specs):
            planned = Request.of(name).compared(()).values()
            if len(planned) == len(specs) and all(
                not plan.differences(spec) and _extents(plan) == _extents(spec)
                for plan, spec in zip(planned, specs.values(), strict=True)
            ):
                return name
    return None


def _extents(spec: StudySpec) -> tuple[object, ...]:
    return spec.lattice, spec.seeds, spec.metric, spec.given_cap, spec.refine


def _task(spec: StudySpec, task: Task) -> list[str]:
    """Return the options that describe a study besides its optimizer."""
    preset = find_preset(DEFAULT)
    usual = preset.task.changed(**Variant.named(spec.title).task)
    return [*_extent(spec, preset), *dict.fromkeys(_settings(task, usual.of(spec.optimizer)))]


def _place(storage: str | None, data_dir: str | None) -> Iterator[str]:
    if data_dir is not None:
        yield f"--data-dir {_quoted(data_dir)}"
    if storage is not None:
        yield f"--storage {_quoted(storage)}"


def _settings(task: Task, usual: Task) -> Iterator[str]:
    """Yield an option for every field that is not as usual; both betas are one."""
    for name, field in FIELDS.items():
        value = getattr(task, name)
        if not field.panel or name == "engine" or value == getattr(usual, name):
            continue
        if name == "standardize":
            yield from [field.option] * bool(value)  # images are as given by default
        elif field.kind is bool:
            yield field.option if value else field.off
        elif field.option == "--betas":
            yield f"{field.option} {task.beta1!r},{task.beta2!r}"
        else:
            said = said_options(value) if name == "net_options" else str(value)
            yield f"{field.option} {_quoted(said)}"


def _extent(spec: StudySpec, preset: Preset) -> Iterator[str]:
    try:
        usual: Lattice | None = preset.lattice(spec.optimizer)
    except UsageError:  # the preset has no lattice for this optimizer
        usual = None
    lattice, first = spec.lattice, min(spec.seeds)
    seeds = max(spec.seeds) + 1 - first
    if usual is None or lattice.lr != usual.lr:
        yield f"--lr {axis_text(lattice.lr)}"
    if usual is None or lattice.weight_decay != usual.weight_decay:
        yield f"--wd {axis_text(lattice.weight_decay)}"
    if seeds != preset.seeds:
        yield f"--seeds {seeds}"
    if first:
        yield f"--first-seed {first}"
    own = spec.task.measure if spec.task is not None else ""
    if own and metric_of(own) == of_last_weights(spec.metric):
        yield f"--metric {_quoted(own)}"
        yield f"--{spec.direction}"
    elif spec.metric != preset.metric:
        yield f"--metric {spec.metric}"
    if spec.given_cap is not None:
        yield f"--cap {spec.given_cap!r}"
    yield from _refine(spec)


def _refine(spec: StudySpec) -> Iterator[str]:
    if spec.refine is not None:
        yield "--refine"
        if spec.refine.max_runs is not None:
            yield f"--max-runs {spec.refine.max_runs}"
        if spec.refine.margin is not None:
            yield f"--margin {spec.refine.margin:g}"


def axis_text(values: tuple[float, ...]) -> str:
    """Format an axis, as a range with a few values before and after it if possible."""
    text = format_axis(values)
    zero = [value for value in values if value == 0]
    positive = values[len(zero) :]
    if text.count(",") == len(zero):
        return text
    ends = sorted(
        ((i, j) for i in range(_BESIDE) for j in range(_BESIDE)), key=lambda ends: (sum(ends), ends)
    )
    for before, after in ends:
        middle = positive[before : len(positive) - after]
        if len(middle) > 2 and "," not in (range_text := format_axis(middle)):
            head, tail = positive[:before], positive[len(positive) - after :]
            return ",".join([*map(format_value, [*zero, *head]), range_text, *map(format_value, tail)])
    return text


def extended(axis: tuple[float, ...], end: str) -> tuple[float, ...]:
    """Extend an axis at its "low" or "high" end, at about its spacing there.

    It grows by at least two octaves and two values, and at most doubles its values.

    >>> extended((0.25, 0.5, 1.0), "high")
    (0.25, 0.5, 1.0, 2.0, 4.0)
    """
    positive = [value for value in axis if value > 0]
    if len(positive) < 2:
        ratio = 2.0
    else:
        ratio = positive[1] / positive[0] if end == "low" else positive[-1] / positive[-2]
    count = math.ceil(round(_OCTAVES / math.log2(ratio), 6))
    count = max(_MIN_EXTENSION, min(count, len(positive)))
    value, step = (positive[0], 1 / ratio) if end == "low" else (positive[-1], ratio)
    further = [value := value * step for _ in range(count)]
    return tuple(sorted({*axis, *(_readable(value, ratio) for value in further if 0 < value < math.inf)}))


def finer(axis: Sequence[float]) -> tuple[float, ...]:
    """Insert about the geometric mean between every two values of an axis.

    >>> finer((0.0, 0.25, 1.0))
    (0.0, 0.25, 0.5, 1.0)
    """
    positive = [value for value in axis if value > 0]
    low, high, count = positive[0], positive[-1], 2 * len(positive) - 1
    if count > 2:
        even = parse_axis(f"{low!r}:{high!r}:{count}", "wd")  # meets an even axis in all its values
        if set(positive) <= set(even):
            return tuple(sorted({*axis, *even}))
    between = [_readable(math.sqrt(a) * math.sqrt(b), math.sqrt(b / a)) for a, b in pairwise(positive)]
    return tuple(sorted({*axis, *between}))


def _readable(value: float, ratio: float) -> float:
    """Round a new value of an axis to a hundredth of the axis' step, unless it is a power of two."""
    exact = canonical(value)
    if format_value(exact).startswith("2^"):
        return exact
    places = min(max(2 - math.floor(math.log10(min(ratio - 1, 9.0))), 2), 11)
    return float(f"{value:.{places}e}")


def _quoted(text: str) -> str:
    return text if _HARMLESS.match(text) else shlex.quote(text)
