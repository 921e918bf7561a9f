"""StudySpec: everything that defines a study."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, arg, shown
from lrwd_sweep.science.lattice import FIRST_SEEDS, Lattice, Timescales, coarse_count
from lrwd_sweep.science.optimizer import DecayRule, Family, Optimizer, formula
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import EMBEDDINGS, MEANT_METRICS, METRICS, RECALL, chance_level, of_last_weights
from lrwd_sweep.spec.field import Field
from lrwd_sweep.spec.net_options import said_options
from lrwd_sweep.spec.task import FIELDS, IDENTIFYING, Task
from lrwd_sweep.spec.user_code import short
from lrwd_sweep.spec.user_command import Command
from lrwd_sweep.spec.user_files import PYTHON_DOCS, is_text


class Kind(StrEnum):
    """The source of a study's points."""

    GRID = "grid"  # every cell of the lattice
    TPE = "tpe"  # points of the lattice's box, proposed by Optuna's TPE
    IMPORT = "import"  # results of another program


@dataclass(frozen=True, slots=True)
class Refine:
    """Settings of a refined lattice, of which only the lanes that its verdict needs are trained."""

    max_runs: int | None = None  # lanes in all, earlier runs included
    margin: float | None = None  # of the verdict that is to be determined; None: the default

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready, without what is at its default."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class StudySpec:
    """One lattice (or TPE search) of one optimizer on one task.

    Optimizer, kind and task are the study's identity: they must not change under its name. Lattice, seeds,
    metric, direction and cap are its extent: they may grow or be read differently; the trials stay.
    """

    kind: Kind
    optimizer: Optimizer
    lattice: Lattice  # of a TPE study: its box, and the cells it is drawn on
    seeds: tuple[int, ...]
    metric: str
    task: Task | None  # None for an import and for a command: it is unknown
    direction: Direction = Direction.MINIMIZE  # better end of `metric`
    given_cap: float | None = None  # a value of `metric` that counts as diverged, as anything worse does
    command: Command | None = None  # of the user, in place of a task
    scattered: bool = False  # an import of a search: its points do not lie on the lattice
    run_steps: int | None = None  # N of an imported study's runs, if the user gave it
    refine: Refine | None = None  # None: the lattice is trained whole

    def __post_init__(self) -> None:
        if self.task is not None:
            object.__setattr__(self, "task", self.task.of(self.optimizer))
            _refuse_other_metrics(self.metric, self.task)
        if self.given_cap is not None and not math.isfinite(self.given_cap):
            raise UsageError(f"{arg('cap', self.given_cap)} is not finite; leave it out for no cap")
        if not self.seeds:
            raise UsageError(f"{arg('seeds', 0)} trains nothing; choose at least 1")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int):
                raise UsageError(f"seed {shown(seed)} is not a whole number")
        if self.refine is not None and self.refine.max_runs is not None:
            first = coarse_count(self.lattice) * min(len(self.seeds), FIRST_SEEDS)
            if self.refine.max_runs < first:
                raise UsageError(
                    f"{arg('max_runs', self.refine.max_runs)} is less than the {first} runs of the coarse "
                    f"lattice, with which {arg('refine')} begins; give at least {first}"
                )

    @property
    def is_search(self) -> bool:
        """True if the points lie anywhere in the lattice's box, and are drawn on its cells."""
        return self.kind is Kind.TPE or self.scattered

    @property
    def cap(self) -> float | None:
        """The value from which on a cell counts as diverged: `given_cap`, else an error's chance level.

        A loss has none by default: a network that overfits is worse than ln C and classifies well.
        """
        if self.given_cap is not None or self.task is None or not self.metric.endswith("_error"):
            return self.given_cap
        return chance_level(self.metric, self.task.data_set.classes)

    @property
    def default_name(self) -> str:
        """A readable name that follows from the identity: `digits-mlp-norm-adamw-cosine-60ep-b64`."""
        t = self.task
        if self.command is not None:
            found = [self.command.stem, str(self.optimizer), self.metric, self.command.marks]
            found += [str(self.kind)] * (self.kind is not Kind.GRID)
            return tidy("-".join(filter(None, found)))
        if t is None:
            return f"imported-{self.optimizer}".replace(":", "-")
        parts = [short(t.data), short(t.net), str(self.optimizer), str(t.schedule)]
        parts += [f"{t.epochs}ep", f"b{t.batch_size}"]
        marks = [FIELDS[name].mark.format(value) for name, value in self.particulars.items()]
        parts += [tidy(short(mark)) for mark in marks]
        if self.kind is not Kind.GRID:
            parts.append(str(self.kind))
        return tidy("-".join(parts))

    @property
    def particulars(self) -> dict[str, Any]:
        """The unusual fields of the task, besides network, data, length, batch and schedule."""
        if self.task is None:
            return {}
        t = self.task
        usual = Task().of(self.optimizer)
        values = {name: getattr(t, name) for name, field in FIELDS.items() if field.mark}
        return {name: value for name, value in values.items() if value != getattr(usual, name)}

    @property
    def title(self) -> str:
        """The optimizer's name, `adamwr` for normalised decay under restarts."""
        o, t = self.optimizer, self.task
        if o.family and o.normalized and o.rule is DecayRule.INDEPENDENT and t is not None:
            return f"{o.family}wr" if t.schedule is Schedule.RESTARTS else str(o)
        return str(o)

    @property
    def formula(self) -> str:
        """The update that trains, in the paper's letters."""
        t = self.task
        if t is None:
            return self.optimizer.formula
        return formula(
            self.optimizer,
            momentum=t.momentum,
            nesterov=t.nesterov,
            momentum_form=t.momentum_form,
            own_schedule=t.decay_schedule is not None,
        )

    @property
    def tau_of_one(self) -> float | None:
        """τ, as a share of the run, of decay 1 in the study's convention; None if α decides it too."""
        t = self.task
        if t is None:
            return _tau_of_one(self.optimizer, self.run_steps, self.run_steps)
        return _tau_of_one(self.optimizer, t.steps, t.decay_steps)

    def identity(self) -> dict[str, Any]:
        """Return the values that a study name fixes, flat, JSON-ready."""
        task = {} if self.task is None else self.task.to_dict()
        code = {f"code of {name}": digest for name, digest in task.pop("code", {}).items()}
        task = {name: value for name, value in task.items() if name in IDENTIFYING}
        if "undecayed" in task:
            task["undecayed"] = ", ".join(task["undecayed"])
        if task.pop("whole_loss", False):
            code[_LOSSES] = "the loss of all items at once"
        if digest := task.get("sizes", {}).pop("digest", ""):
            why = "which changed or, unless seeded, is other every time"
            if is_text(task["data"]):
                why = "which changed" if task["data"] != PYTHON_DOCS else "which differs by version of Python"
                task["sizes"] = {"context": task["sizes"]["shape"][0]}  # the others follow from the text
            code[f"{_DATA} {task['data']}, {why}"] = digest
        return {
            "kind": str(self.kind),
            "optimizer": str(self.optimizer),
            "decay_rule": str(self.optimizer.rule),
            **task,
            **code,
            **({} if self.command is None else {"metric": self.metric} | self.command.identity()),
        }

    def differences(self, other: StudySpec) -> list[str]:
        """Return the differences in identity, each as `name: mine, theirs`; unknown data do not differ."""
        mine, theirs = self.identity(), other.identity()
        return [
            f"{name}: {stored}, {asked}"
            for name in dict.fromkeys([*mine, *theirs])
            for stored, asked in [[said.get(name, _UNSAID.get(name, "none")) for said in (mine, theirs)]]
            if stored != asked and not (name.startswith(_DATA) and None in (mine.get(name), theirs.get(name)))
        ]

    def extended(self, other: StudySpec) -> StudySpec:
        """Return this study with `other`'s cells and seeds added, read by `other`'s metric."""
        mine, theirs = self.task, other.task
        if mine is not None and theirs is not None:  # either may know more
            sizes = mine.sizes if mine.data_set.digest else theirs.sizes
            standardize = theirs.standardize if mine.standardize is None else mine.standardize
            tensors = theirs.tensors or mine.tensors
            mine = replace(
                mine, sizes=sizes, standardize=standardize, tensors=tensors, eval_every=theirs.eval_every
            ).resuming(theirs)
        return replace(
            self,
            lattice=self.lattice.union(other.lattice),
            seeds=tuple(sorted({*self.seeds, *other.seeds})),
            metric=other.metric,
            task=mine,
            direction=other.direction,
            given_cap=other.given_cap,
            command=other.command,
            refine=other.refine,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready and complete; `from_dict` reads it."""
        optimizer: dict[str, Any] = {
            "family": self.optimizer.family and str(self.optimizer.family),
            "rule": str(self.optimizer.rule),
            "label": self.optimizer.label,
        }
        for name in ("normalized", "cautious"):
            if getattr(self.optimizer, name):
                optimizer[name] = True
        found: dict[str, Any] = {
            "kind": str(self.kind),
            "optimizer": optimizer,
            "lr": list(self.lattice.lr),
            "weight_decay": list(self.lattice.weight_decay),
            "seeds": list(self.seeds),
            "metric": self.metric,
            "training": self.task and self.task.to_dict(),
        }
        rare = {
            "direction": str(self.direction) if self.direction is not Direction.MINIMIZE else None,
            "cap": self.given_cap,
            "command": self.command and self.command.to_dict(),
            "scattered": self.scattered or None,
            "run_steps": self.run_steps,
            "refine": self.refine and self.refine.to_dict(),
        }
        return found | {name: value for name, value in rare.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec that `to_dict` wrote. Raises UsageError if a value is no longer valid."""
        optimizer = values["optimizer"]
        task = values["training"]
        return cls(
            Kind(values["kind"]),
            Optimizer(
                optimizer["family"] and Family(optimizer["family"]),
                DecayRule(optimizer["rule"]),
                optimizer["label"],
                optimizer.get("normalized", False),
                optimizer.get("cautious", False),
            ),
            Lattice(tuple(values["lr"]), tuple(values["weight_decay"])),
            tuple(values["seeds"]),
            values["metric"],
            task and Task.from_dict(task),
            Direction(values.get("direction", Direction.MINIMIZE)),
            values.get("cap"),
            Command.from_dict(values["command"]) if "command" in values else None,
            values.get("scattered", False),
            values.get("run_steps"),
            Refine(**values["refine"]) if "refine" in values else None,
        )


def _tau_of_one(optimizer: Optimizer, steps: int | None, decay_steps: int | None) -> float | None:
    """Return τ = 1/λ over the steps of the run for the number 1, which is λ, or λ√N if normalised."""
    if optimizer.rule not in (DecayRule.INDEPENDENT, DecayRule.FIXED) or not steps or not decay_steps:
        return None
    return (math.sqrt(decay_steps) if optimizer.normalized else 1.0) / steps


def decays_of(times: Timescales, optimizer: Optimizer, task: Task) -> tuple[float, ...]:
    """Convert an axis in averaging times to the optimizer's decays. Raises UsageError if α decides τ too."""
    unit, given = _tau_of_one(optimizer, task.steps, task.decay_steps), arg("weight_decay", "tau:…")
    if unit is not None:
        return times.decays(unit)
    independent = replace(optimizer, rule=DecayRule.INDEPENDENT)
    if optimizer.rule is DecayRule.COUPLED:
        raise UsageError(f"{given}: L2, the rule of {optimizer}, has no τ of its own; write {independent}")
    raise UsageError(
        f"{given}: under {optimizer.rule} the decay of a τ is another in every row, 1/(ατN); write "
        f"{independent}, whose λ = 1/(τN) trains the same"
    )


def _refuse_other_metrics(metric: str, task: Task) -> None:
    """Raise UsageError or UnknownName for a metric that the lanes of a task do not have."""
    if metric in task.metrics:
        return
    if metric not in METRICS:
        raise UnknownName("metric", metric, task.metrics, MEANT_METRICS)
    if of_last_weights(metric) in task.metrics:
        option = arg(metric.partition("_")[0])
        raise UsageError(f"{arg('metric', metric)} is only measured by studies that train with {option}")
    if metric.endswith(RECALL):
        raise UsageError(
            f"{arg('metric', metric)} needs embeddings, which {task.net} does not give; choose "
            f"{arg('net', EMBEDDINGS[0])}, or {', '.join(task.metrics)}"
        )
    raise UsageError(
        f"{arg('metric', metric)} is not measured for the {task.data_set.target} targets of {task.data} and "
        f"{arg('loss', task.loss)}; choose {', '.join(task.metrics)}"
    )


def tidy(name: str) -> str:
    """Return a name in letters, digits and dashes that needs no quotes in any shell.

    >>> tidy("digits-adamw:lr-scaled")
    'digits-adamw-lr-scaled'
    """
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-")


def labels(specs: Sequence[StudySpec]) -> list[str]:
    """Name studies side by side: by the optimizer, and if that is not enough by their other differences."""
    titles = [spec.title for spec in specs]
    found = []
    for spec, title in zip(specs, titles, strict=True):
        mine = spec.task
        alike = [other.task for other in specs if other.title == title and other.task is not None]
        words = [
            _difference(name, field, getattr(mine, name))
            for name, field in FIELDS.items()
            if mine is not None and field.panel and name in IDENTIFYING
            if any(getattr(other, name) != getattr(mine, name) for other in alike)
        ]
        found.append(", ".join([title, *words]))
    return found


def _difference(name: str, field: Field, value: Any) -> str:
    """Write a value that tells a study from others."""
    if name == "net_options":
        return said_options(value) if value else "default net_options"
    if value is None:
        return "train_fraction 1" if name == "train_fraction" else f"no {name}"
    return (field.differs or f"{name} {{}}").format(value, s="s" * (value != 1))


_DATA = "data of"  # the digest of user data in a difference
_LOSSES = "val_loss and test_loss"
_UNSAID = {  # values of studies that were begun before they were stored
    _LOSSES: "averaged over batches",
    "standardize": True,  # of byte images; other data do not have it
}
