"""The command line that trains a study: what a report prints, and what the options give back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from lrwd_sweep.catalog import DataSet
from lrwd_sweep.errors import UsageError
from lrwd_sweep.lattice import Lattice, format_axis, format_value
from lrwd_sweep.preset import DEFAULT, Preset, Variant, find_preset
from lrwd_sweep.spec import Kind, StudySpec
from lrwd_sweep.training import BESIDE_THE_TASK, Training, option

_SWITCHES = {  # fields of `Training` that are two options, for True and for False
    "nesterov": ("--nesterov", "--no-nesterov"),
    "decay_all": ("--decay-all", "--no-decay-norm-bias"),
}
_BESIDE = 9  # values on one side of a range, and one
_HARMLESS = re.compile(r"[A-Za-z0-9_@%+=:,./^-]+\Z")  # to any shell; shlex would quote 2^-3


def command(
    spec: StudySpec,
    name: str,
    storage: str | None = None,
    points: int = 0,
    data_dir: str | None = None,
) -> tuple[str, ...] | None:
    """The words of the `lrwd-sweep` call that trains `spec` under `name`, each option joined with its value.

    What the default preset and the optimizer say anyway is left out. `points` is the total of a search.
    None where no command line says this: an imported study, an axis of one value, data that is no more what
    it was, options of a network, a name that cannot be typed.
    """
    t = spec.training
    if t is None or not _sayable(t, spec.lattice) or not f"{name}{storage}{data_dir}".isprintable():
        return None
    preset, optimizer = find_preset(DEFAULT), spec.title
    words = [
        "lrwd-sweep tpe" if spec.kind is Kind.TPE else "lrwd-sweep grid",
        f"--optimizer {optimizer}",
    ]
    if spec.kind is Kind.TPE:
        words.append(f"--trials {points}")
    words += _extent(spec, preset)
    usual = preset.training.changed(**Variant.named(optimizer).training)
    words += dict.fromkeys(_settings(t, usual.of(spec.optimizer)))
    if name != spec.default_name:
        words.append(f"--study-name {_quoted(name)}")
    if data_dir is not None:
        words.append(f"--data-dir {_quoted(data_dir)}")
    if storage is not None:
        words.append(f"--storage {_quoted(storage)}")
    return tuple(words)


def _sayable(training: Training, lattice: Lattice) -> bool:
    """Whether options can say all of it; an axis on the command line has two values above 0."""
    long = min(sum(value > 0 for value in axis) for axis in (lattice.lr, lattice.weight_decay)) > 1
    return long and not training.net_options and DataSet.known(training.data) in (training.sizes, None)


def _settings(training: Training, usual: Training) -> Iterator[str]:
    """An option for everything that is not as usual; both betas are one."""
    for field in Training.__dataclass_fields__:
        value = getattr(training, field)
        if field in BESIDE_THE_TASK or value == getattr(usual, field):
            continue
        if field == "standardize":
            yield from ["--standardize"] * bool(value)  # without it images are as given
        elif field in _SWITCHES:
            yield _SWITCHES[field][not value]
        elif field in ("beta1", "beta2"):
            yield f"{option(field)} {training.beta1!r},{training.beta2!r}"
        else:
            yield f"{option(field)} {_quoted(str(value))}"


def _extent(spec: StudySpec, preset: Preset) -> Iterator[str]:
    try:
        usual: Lattice | None = preset.lattice(spec.optimizer)
    except UsageError:  # it has none for this optimizer
        usual = None
    lattice, seeds = spec.lattice, max(spec.seeds) + 1
    if usual is None or lattice.lr != usual.lr:
        yield f"--lr {axis_text(lattice.lr)}"
    if usual is None or lattice.weight_decay != usual.weight_decay:
        yield f"--wd {axis_text(lattice.weight_decay)}"
    if seeds != preset.seeds:
        yield f"--seeds {seeds}"
    if spec.metric != preset.metric:
        yield f"--metric {spec.metric}"


def axis_text(values: tuple[float, ...]) -> str:
    """`format_axis`, but a range with a few values before and after it where that is what the axis is."""
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


def _quoted(text: str) -> str:
    return text if _HARMLESS.match(text) else shlex.quote(text)
