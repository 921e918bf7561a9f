"""Presets: TOML files with a task, its axes for every optimizer, and the variants to compare."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from lrwd_sweep.errors import UnknownName, UsageError, arg, shown
from lrwd_sweep.science.lattice import Lattice, Timescales, parse_axis
from lrwd_sweep.science.optimizer import DecayRule, Family, Optimizer, asks_for_restarts, users_of
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import DIAGNOSTICS, MEANT_METRICS, METRICS
from lrwd_sweep.spec.net_options import options_text
from lrwd_sweep.spec.task import FIELDS, OF_RESTARTS, Task

DEFAULT = "digits"
MOST_SEEDS = 10_000
TRIALS, MOST_TRIALS = 64, 100_000  # points of a search
PICTURES = ("heatmap", "curves", "scatter", *DIAGNOSTICS)
_AXES = {"lr": "lr", "wd": "weight_decay"}  # the axes by their keys
_KEYS = ("like", "about", "restates", "claim", "show", "variants", "training", "net", "study", "axes")
_EQUAL_RULES = {  # equal to another rule if η = 1
    DecayRule.FIXED: DecayRule.INDEPENDENT,
    DecayRule.CORRECTED: DecayRule.LR_SCALED,
}

_HERE = Path(__file__).parents[1]
FOLDER = _HERE / "presets" if (_HERE / "presets").is_dir() else _HERE.parent / "presets"  # wheel, or checkout


@dataclass(frozen=True, slots=True)
class Variant:
    """One study of a comparison: an optimizer, and its own task fields and axes."""

    optimizer: Optimizer
    task: Mapping[str, Any] = field(default_factory=dict)  # by field of `Task`
    lr: tuple[float, ...] | None = None  # its axes; None: the preset's for the optimizer
    wd: tuple[float, ...] | None = None

    @classmethod
    def named(cls, name: str) -> Variant:
        """Return the variant of an optimizer's name: `adamwr` is `adamw:normalized` under restarts.

        Schedule-free optimizers have the schedule `fixed`, unless another one is given.
        """
        optimizer = Optimizer.parse(name)
        if asks_for_restarts(name):
            return cls(optimizer, {"schedule": Schedule.RESTARTS})
        fixed = optimizer.family is Family.SCHEDULE_FREE
        return cls(optimizer, {"schedule": Schedule.FIXED} if fixed else {})


@dataclass(frozen=True, slots=True)
class Preset:
    """A task with a default for everything that a command may leave out."""

    name: str
    about: str
    task: Task
    seeds: int
    metric: str
    axes: Mapping[str, Lattice]  # by canonical optimizer name
    variants: tuple[Variant, ...]
    restates: str = ""  # figure of a paper
    claim: str = ""  # statement of the paper
    show: tuple[str, ...] = PICTURES[:1]  # what draws it
    owner: str = ""  # the preset after which its studies are named

    def lattice(self, optimizer: Optimizer) -> Lattice:
        """Return the optimizer's default lattice, its own or its kin's. Raises UsageError if it has none."""
        found = default_lattice(self.axes, optimizer, self.task.steps)
        if found is None:
            others = f", or choose {', '.join(self.axes)}" if self.axes else ""
            axes = f"{arg('lr')} and {arg('weight_decay')}"
            raise UsageError(f"preset {self.name!r} has no axes for {optimizer}; give {axes}{others}")
        return found


def preset_names() -> list[str]:
    """Return the names of the package's presets."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find_preset(name: str) -> Preset:
    """Return the preset of a name or a TOML file. Raises UnknownName or UsageError."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in preset_names():
            raise UnknownName("preset", name, preset_names())
        path = FOLDER / f"{name}.toml"
    return read_preset(path)


def read_preset(path: Path) -> Preset:
    """Read a preset from a file. Raises UsageError naming the file, the key and the remedy."""
    table = _table(path)
    try:
        return _preset(path.stem, table)
    except UsageError as error:
        raise UsageError(f"preset {str(path)!r}: {error.spelled(_key)}") from None


def _key(name: str, _: str = "", *value: str) -> str:
    """Spell an argument of an error's message as a key of the file."""
    if name == "net_options":
        return " ".join(["[net.options]", *value])
    key = next((key for key, axis in _AXES.items() if axis == name), name)
    return " = ".join([key, *value])


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"preset {str(path)!r}: {error.strerror}; name a preset or a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"preset {str(path)!r} is not TOML: {error}") from None


def _with_inherited(table: dict[str, Any]) -> dict[str, Any]:
    """Complete a table, section by section, from the preset that it is `like`."""
    if "like" not in table:
        return table
    name = _text(table, "like")
    if name not in preset_names():
        raise UnknownName("preset", name, preset_names())
    whole = _with_inherited(_table(FOLDER / f"{name}.toml"))
    for key, value in table.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = whole[key] | value if both else value
    return whole


def _owner(name: str, table: dict[str, Any]) -> str:
    """Name the preset whose studies these are: one `like` another that trains the same shares its studies."""
    if "like" not in table or table.keys() & {"variants", "training", "net", "axes"}:
        return name
    return find_preset(table["like"]).owner


def _preset(name: str, table: dict[str, Any]) -> Preset:
    _only(table, "key", _KEYS)
    table, said = _with_inherited(table), table
    values = _task_values(_section(table, "training"), "key of [training]")
    net = _section(table, "net")
    _only(net, "key of [net]", ("options",))
    options = options_text(_section(net, "options", "net.options"))
    study = {"seeds": 3, "metric": "val_loss"} | _section(table, "study")
    _only(study, "key of [study]", ("seeds", "metric"))
    seeds = study["seeds"]
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"seeds {shown(seeds)} is not a whole number from 1 to {MOST_SEEDS}")
    metric = _text(study, "metric")
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS, MEANT_METRICS)
    task = Task().changed(**values, net_options=options)
    return Preset(
        name=name,
        about=_text({"about": ""} | table, "about"),
        restates=_text({"restates": ""} | table, "restates"),
        claim=_text({"claim": ""} | table, "claim"),
        task=task,
        seeds=seeds,
        metric=metric,
        axes=_axes(_section(table, "axes")),
        variants=tuple(_variants(table.get("variants", []), task)),
        show=_pictures(table.get("show", [PICTURES[0]])),
        owner=_owner(name, said),
    )


def _pictures(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise UsageError(f'show {shown(names)} is not a list of pictures; write show = ["{PICTURES[0]}"]')
    pictures = tuple(str(name).replace("-", "_") for name in names)
    for name, picture in zip(names, pictures, strict=True):
        if picture not in PICTURES:
            raise UnknownName("picture", str(name), PICTURES)
    return pictures


def _variants(entries: Any, task: Task) -> Iterator[Variant]:
    """Read names, or tables with `optimizer`, keys of [training], `lr` and `wd`.

    A list stands for each of its values, several lists for their product.
    """
    if not isinstance(entries, list):
        raise UsageError(f'variants {shown(entries)} is not a list; write ["adam", "adamw"] or [[variants]]')
    for entry in entries:
        if isinstance(entry, str):
            yield Variant.named(entry)
        elif isinstance(entry, dict) and entry.get("optimizer"):
            if empty := [key for key, value in entry.items() if value == []]:
                raise UsageError(f"variant {shown(entry)} has no {empty[0]}; name one value or leave it out")
            columns = [value if isinstance(value, list) else [value] for value in entry.values()]
            for values in product(*columns):
                yield _variant(dict(zip(entry, values, strict=True)), task)
        else:
            raise UsageError(f'variant {shown(entry)} names no optimizer; write optimizer = "adamw"')


def _variant(entry: dict[str, Any], task: Task) -> Variant:
    named = Variant.named(_text(entry, "optimizer"))
    axes = {key: parse_axis(_text(entry, key), axis) for key, axis in _AXES.items() if key in entry}
    values = {key: value for key, value in entry.items() if key not in ("optimizer", "lr", "wd")}
    values = {**named.task, **_task_values(values, "key of a variant")}
    task.changed(**values)
    return Variant(named.optimizer, values, axes.get("lr"), axes.get("wd"))


def _task_values(values: dict[str, Any], kind: str) -> dict[str, Any]:
    """Refuse keys that are not fields of a task; the task itself checks the values."""
    _only(values, kind, (name for name, found in FIELDS.items() if found.panel and found.in_presets))
    return values


def _axes(sections: Mapping[str, Any]) -> dict[str, Lattice]:
    """Read the lattice of every optimizer, by canonical name."""
    axes: dict[str, Lattice] = {}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise UsageError(f"[axes] {name!r} is not a table; write [axes.{name}]")
        optimizer = str(Optimizer.parse(name))
        if optimizer in axes:
            raise UsageError(f"[axes.{name}] is {optimizer} again; leave one out")
        _only(section, f"key of [axes.{name}]", ("lr", "wd"))
        for key in _AXES:
            if not isinstance(section.get(key), str):
                raise UsageError(f'[axes.{name}] needs {key} as text, such as {key} = "2^-9:2^1"')
        lr, decay = (parse_axis(section[key], axis) for key, axis in _AXES.items())
        if isinstance(decay, Timescales):
            raise UsageError(
                f"[axes.{name}] has wd in τ; give numbers here, and τ in a variant or on the line"
            )
        axes[optimizer] = Lattice(lr, decay)
    return axes


def _section(table: Mapping[str, Any], key: str, name: str = "") -> dict[str, Any]:
    section, name = table.get(key, {}), name or key
    if not isinstance(section, dict):
        raise UsageError(f"{name!r} is not a table; write [{name}]")
    return section


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str):
        raise UsageError(f'{key} {shown(value)} is not text; write {key} = "…"')
    return value


def _only(table: Mapping[str, Any], kind: str, known: Iterable[str]) -> None:
    known = tuple(known)
    for name in table:
        if name not in known:
            raise UnknownName(kind, name, known)


def default_lattice(axes: Mapping[str, Lattice], optimizer: Optimizer, steps: int) -> Lattice | None:
    """Return the optimizer's lattice in `axes` (by canonical name), else its nearest kin's, else None.

    Normalised decay takes the axes of the plain one, λ_norm = λ√N with N = `steps`; `fixed` those of
    `independent`, `corrected` those of `lr-scaled`; of these two each takes the other's, w = λ/α in the
    middle of the α axis. Then AMSGrad, RMSProp and AdamP take Adam's, SGDP takes SGD's. Factors are rounded
    to powers of two, so that such axes stay powers of two.
    """
    optimizer = replace(optimizer, cautious=False)
    own = axes.get(str(optimizer))
    family, rule = optimizer.family, optimizer.rule
    if own is not None or family is None:
        return own
    if optimizer.normalized:
        plain = default_lattice(axes, replace(optimizer, normalized=False), steps)
        return plain and _times(plain, math.sqrt(steps))
    if rule in _EQUAL_RULES:
        return default_lattice(axes, replace(optimizer, rule=_EQUAL_RULES[rule]), steps)
    for other, exponent in ((DecayRule.INDEPENDENT, -1), (DecayRule.LR_SCALED, 1)):
        sibling = axes.get(str(replace(optimizer, rule=other)))
        if sibling is not None and rule is not DecayRule.COUPLED:
            return _times(sibling, math.sqrt(sibling.lr[0] * sibling.lr[-1]) ** exponent)
    if family is not None and family.steps_like is not None:
        return default_lattice(axes, replace(optimizer, family=family.steps_like), steps)
    return None


def _times(lattice: Lattice, factor: float) -> Lattice:
    """Multiply every λ by the power of two nearest to `factor`."""
    power = 2.0 ** round(math.log2(factor))
    return Lattice(lattice.lr, tuple(power * value for value in lattice.weight_decay))


def refuse_unused(
    given: Mapping[str, Any], optimizers: Sequence[Optimizer], schedules: Sequence[str]
) -> None:
    """Raise UsageError for a field that none of the optimizers, or schedules, uses."""
    for name in given:
        alike = [other for other in given if FIELDS[other].option == FIELDS[name].option]  # --betas sets two
        users = list(dict.fromkeys(user for other in alike for user in users_of(other)))
        if users and not any(optimizer.family in users for optimizer in optimizers):
            families = ", ".join(dict.fromkeys(str(optimizer.family) for optimizer in optimizers))
            raise UsageError(
                f"{arg(name)} has no effect on {families}; it is for {', '.join(users)}: leave it out"
            )
        if name == "decay_schedule" and not any(each.rule.is_scheduled for each in optimizers):
            found = ", ".join(str(each) for each in optimizers)
            raise UsageError(
                f"{arg(name)} has no effect on {found}; it is for decay that η multiplies, as in adamw and "
                "adamw:lr-scaled"
            )
        if name in OF_RESTARTS and Schedule.RESTARTS not in schedules:
            found = ", ".join(dict.fromkeys(schedules))
            raise UsageError(
                f"{arg(name)} has no effect on schedule {found}; add {arg('schedule', 'restarts')}"
            )
