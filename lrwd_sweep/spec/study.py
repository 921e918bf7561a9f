"""StudySpec: everything that defines a study, frozen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, shown
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Family, Optimizer, formula
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import METRICS, chance_level
from lrwd_sweep.spec.task import BESIDE_THE_TASK, Task
from lrwd_sweep.spec.user_code import short


class Kind(StrEnum):
    """Where a study's points come from."""

    GRID = "grid"  # every cell of the lattice
    TPE = "tpe"  # points of the lattice's box, proposed by Optuna's TPE
    IMPORT = "import"  # somebody else's sweep


@dataclass(frozen=True, slots=True)
class StudySpec:
    """One lattice (or TPE search) of one optimizer on one task.

    Optimizer, kind and training are the study's identity: they may not change under its name. Lattice,
    seeds, metric, direction and cap are its extent: they may grow or be read differently; the trials stay.
    """

    kind: Kind
    optimizer: Optimizer
    lattice: Lattice  # of a TPE study: its box, and the cells it is drawn on
    seeds: tuple[int, ...]
    metric: str
    task: Task | None  # None for an imported study: its task is unknown
    direction: Direction = Direction.MINIMIZE  # which end of `metric` is better
    given_cap: float | None = None  # a value of `metric` that counts as diverged, as anything worse does

    def __post_init__(self) -> None:
        if self.task is not None:
            object.__setattr__(self, "task", self.task.of(self.optimizer))
            if self.metric not in METRICS:
                raise UnknownName("metric", self.metric, METRICS)
            _ = self.task.data_set  # which is known by now, or refused
        if self.given_cap is not None and not math.isfinite(self.given_cap):
            raise UsageError(f"--cap {self.given_cap} is not finite; leave the option out for no cap")
        if not self.seeds:
            raise UsageError("--seeds 0 trains nothing; choose at least 1")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int):
                raise UsageError(f"seed {shown(seed)} is not a whole number")

    @property
    def cap(self) -> float | None:
        """The value from which on a cell is out: `given_cap`, else the chance level of an error.

        A loss has no level of its own: a network that overfits is worse than ln C and classifies well.
        """
        if self.given_cap is not None or self.task is None or not self.metric.endswith("_error"):
            return self.given_cap
        return chance_level(self.metric, self.task.data_set.classes)

    @property
    def default_name(self) -> str:
        """Readable, and the same for the same identity: `digits-mlp-norm-adamw-cosine-60ep-b64`."""
        t = self.task
        if t is None:
            return f"imported-{self.optimizer}".replace(":", "-")
        parts = [short(t.data), short(t.net), str(self.optimizer), str(t.schedule)]
        parts += [f"{t.epochs}ep", f"b{t.batch_size}"]
        marks = [_MARKS[name].format(value) for name, value in self.particulars.items()]
        parts += [tidy(short(mark)) for mark in marks]
        if self.kind is not Kind.GRID:
            parts.append(str(self.kind))
        return tidy("-".join(parts))

    @property
    def particulars(self) -> dict[str, Any]:
        """What of the training is not as usual, besides network, data, length, batch and schedule."""
        if self.task is None:
            return {}
        t = self.task
        usual = Task(data=t.data, sizes=t.sizes, batch_size=t.batch_size).of(self.optimizer)
        values = {name: getattr(self.task, name) for name in _MARKS}
        return {name: value for name, value in values.items() if value != getattr(usual, name)}

    @property
    def title(self) -> str:
        """The optimizer's name; that of its variant with restarts where this is what trains."""
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
            self.optimizer, momentum=t.momentum, nesterov=t.nesterov, momentum_form=t.momentum_form
        )

    def identity(self) -> dict[str, Any]:
        """What may not change under one study name, flat, JSON-ready."""
        task = {} if self.task is None else self.task.to_dict()
        code = {f"code of {name}": digest for name, digest in task.pop("code", {}).items()}
        task.pop("engine", None)
        task.pop("tensors", None)
        if "undecayed" in task:
            task["undecayed"] = ", ".join(task["undecayed"])
        if task.pop("whole_loss", False):
            code[_LOSSES] = "the loss of all items at once"
        if digest := task.get("sizes", {}).pop("digest", ""):
            code[f"{_DATA} {task['data']}, which changed or, unless seeded, is other every time"] = digest
        return {
            "kind": str(self.kind),
            "optimizer": str(self.optimizer),
            "decay_rule": str(self.optimizer.rule),
            **task,
            **code,
        }

    def differences(self, other: StudySpec) -> list[str]:
        """Where `other` differs in identity, each as `name: mine, theirs`; of unknown data in nothing."""
        mine, theirs = self.identity(), other.identity()
        return [
            f"{name}: {stored}, {asked}"
            for name in dict.fromkeys([*mine, *theirs])
            for stored, asked in [[said.get(name, _UNSAID.get(name, "none")) for said in (mine, theirs)]]
            if stored != asked and not (name.startswith(_DATA) and None in (mine.get(name), theirs.get(name)))
        ]

    def extended(self, other: StudySpec) -> StudySpec:
        """This study with `other`'s cells and seeds added, read by `other`'s metric."""
        mine, theirs = self.task, other.task
        if mine is not None and theirs is not None:  # what may be known by now
            sizes = mine.sizes if mine.data_set.digest else theirs.sizes
            standardize = theirs.standardize if mine.standardize is None else mine.standardize
            tensors = theirs.tensors or mine.tensors
            mine = replace(mine, sizes=sizes, standardize=standardize, tensors=tensors).resuming(theirs)
        return StudySpec(
            self.kind,
            self.optimizer,
            self.lattice.union(other.lattice),
            tuple(sorted({*self.seeds, *other.seeds})),
            other.metric,
            mine,
            other.direction,
            other.given_cap,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready and complete: `from_dict` gives the same spec back."""
        return {
            "kind": str(self.kind),
            "optimizer": {
                "family": self.optimizer.family and str(self.optimizer.family),
                "rule": str(self.optimizer.rule),
                "label": self.optimizer.label,
            }
            | ({"normalized": True} if self.optimizer.normalized else {}),
            "lr": list(self.lattice.lr),
            "weight_decay": list(self.lattice.weight_decay),
            "seeds": list(self.seeds),
            "metric": self.metric,
            "training": self.task and self.task.to_dict(),
            **({} if self.direction is Direction.MINIMIZE else {"direction": str(self.direction)}),
            **({} if self.given_cap is None else {"cap": self.given_cap}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_dict` wrote. Raises UsageError when a value no longer makes sense."""
        optimizer = values["optimizer"]
        task = values["training"]
        return cls(
            Kind(values["kind"]),
            Optimizer(
                optimizer["family"] and Family(optimizer["family"]),
                DecayRule(optimizer["rule"]),
                optimizer["label"],
                optimizer.get("normalized", False),
            ),
            Lattice(tuple(values["lr"]), tuple(values["weight_decay"])),
            tuple(values["seeds"]),
            values["metric"],
            task and Task.from_dict(task),
            Direction(values.get("direction", Direction.MINIMIZE)),
            values.get("cap"),
        )


def tidy(name: str) -> str:
    """A name in letters, digits and dashes that needs no quotes anywhere.

    >>> tidy("digits-adamw:lr-scaled")
    'digits-adamw-lr-scaled'
    """
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-")


def labels(specs: Sequence[StudySpec]) -> list[str]:
    """What to call studies side by side: the optimizer, and where that is not enough what else differs."""
    titles = [spec.title for spec in specs]
    found = []
    for spec, title in zip(specs, titles, strict=True):
        mine = spec.task
        alike = [other.task for other in specs if other.title == title and other.task is not None]
        differing = (
            []
            if mine is None
            else [
                name
                for name in Task.__dataclass_fields__
                if name not in BESIDE_THE_TASK
                and any(getattr(other, name) != getattr(mine, name) for other in alike)
            ]
        )
        words = [_WORDS.get(name, f"{name} {{}}").format(getattr(mine, name)) for name in differing]
        found.append(", ".join([title, *words]))
    return found


_DATA = "data of"  # how the digest of somebody's own data is called in a difference
_LOSSES = "val_loss and test_loss"
_UNSAID = {  # what studies are that were begun before they said so
    _LOSSES: "averaged over batches",
    "standardize": True,  # of images of bytes; of other data nobody says it
}
_WORDS = {
    "schedule": "{}",
    "epochs": "{} epochs",
    "net": "{}",
    "data": "{}",
    "batch_size": "batch {}",
    "precision": "{}",
}
_MARKS = {  # what a default name says of a field of Training that is not as usual
    "augment": "{}",
    "warmup": "warm{}",
    "t_0": "t{}",
    "t_mult": "x{}",
    "eta_min": "min{:g}",
    "momentum": "mu{:g}",
    "nesterov": "nesterov",
    "momentum_form": "{}-momentum",
    "beta1": "b1-{:g}",
    "beta2": "b2-{:g}",
    "eps": "eps{:g}",
    "decay_all": "weights-only",
    "no_decay": "spare-{}",
    "precision": "{}",
    "loss": "{}",
    "net_options": "{}",
}
