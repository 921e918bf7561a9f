"""StudySpec: everything that defines a study, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.catalog import DATA_SETS, METRICS, NETWORKS, DataSet, chance_level
from lrwd_sweep.decay import DecayRule, Family, Optimizer
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Lattice
from lrwd_sweep.schedule import Schedule


class Kind(StrEnum):
    """Where a study's points come from."""

    GRID = "grid"  # every cell of the lattice
    TPE = "tpe"  # points of the lattice's box, proposed by Optuna's TPE
    IMPORT = "import"  # somebody else's sweep


@dataclass(frozen=True, slots=True)
class Training:
    """All that decides a lane's result besides optimizer, α, λ and seed. Raises UsageError if impossible."""

    net: str = "mlp-norm"
    data: str = "digits"
    epochs: int = 60
    batch_size: int = 64
    schedule: Schedule = Schedule.COSINE
    momentum: float = 0.9  # β₁ of SGD
    beta1: float = 0.9  # of Adam
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("network", self.net, NETWORKS),
            ("data set", self.data, DATA_SETS),
            ("schedule", self.schedule, list(Schedule)),
        ):
            if name not in known:
                raise UnknownName(kind, str(name), map(str, known))
        object.__setattr__(self, "schedule", Schedule(self.schedule))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            option = "--" + name.replace("_", "-")
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{option} {value!r} is not a whole number of at least 1")
        if self.batch_size > self.sizes.train:
            raise UsageError(
                f"--batch-size {self.batch_size} is larger than the training set of {self.data} "
                f"({self.sizes.train}); choose at most {self.sizes.train}"
            )
        if self.batch_size < 2:
            raise UsageError(
                "--batch-size 1 leaves batch normalisation nothing to average; choose at least 2"
            )
        for name, top in (("momentum", 1.0), ("beta1", 1.0), ("beta2", 1.0), ("eps", float("inf"))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < top:
                raise UsageError(f"{name} {value!r} is out of range; choose at least 0 and below {top:g}")

    @property
    def sizes(self) -> DataSet:
        """The data set's sizes."""
        return DATA_SETS[self.data]

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the incomplete last batch is dropped."""
        return self.sizes.train // self.batch_size

    @property
    def steps(self) -> int:
        """N, the number of updates in the run."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True, slots=True)
class StudySpec:
    """One lattice (or TPE search) of one optimizer on one task.

    Optimizer, kind and training are the study's identity: they may not change under its name. Lattice,
    seeds and metric are its extent: they may grow, or be read differently, and what is there stays.
    """

    kind: Kind
    optimizer: Optimizer
    lattice: Lattice  # of a TPE study: its box, and the cells it is drawn on
    seeds: tuple[int, ...]
    metric: str
    training: Training | None  # None for an imported study: nobody told us

    def __post_init__(self) -> None:
        if self.training is not None and self.metric not in METRICS:
            raise UnknownName("metric", self.metric, METRICS)
        if not self.seeds:
            raise UsageError("--seeds 0 trains nothing; choose at least 1")

    @property
    def cap(self) -> float | None:
        """The metric's chance level, where the task is known."""
        return None if self.training is None else chance_level(self.metric, self.training.sizes.classes)

    @property
    def default_name(self) -> str:
        """Readable, and the same for the same identity: `digits-mlp-norm-adamw-cosine-60ep-b64`."""
        t = self.training
        if t is None:
            return f"imported-{self.optimizer}".replace(":", "-")
        parts = [t.data, t.net, str(self.optimizer), str(t.schedule), f"{t.epochs}ep", f"b{t.batch_size}"]
        defaults = Training()
        for letter, name in (("mu", "momentum"), ("b1-", "beta1"), ("b2-", "beta2"), ("eps", "eps")):
            if getattr(t, name) != getattr(defaults, name):
                parts.append(f"{letter}{getattr(t, name):g}")
        if self.kind is not Kind.GRID:
            parts.append(str(self.kind))
        return "-".join(parts).replace(":", "-")

    def identity(self) -> dict[str, Any]:
        """What may not change under one study name, flat, JSON-ready."""
        training = {} if self.training is None else asdict(self.training)
        return {
            "kind": str(self.kind),
            "optimizer": str(self.optimizer),
            "decay_rule": str(self.optimizer.rule),
        } | ({name: str(v) if isinstance(v, StrEnum) else v for name, v in training.items()})

    def differences(self, other: StudySpec) -> list[str]:
        """Where `other` differs in identity, each as `name: mine, theirs`."""
        mine, theirs = self.identity(), other.identity()
        return [
            f"{name}: {mine.get(name, 'none')}, {theirs.get(name, 'none')}"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]

    def extended(self, other: StudySpec) -> StudySpec:
        """This study with `other`'s cells and seeds added, read by `other`'s metric."""
        return StudySpec(
            self.kind,
            self.optimizer,
            self.lattice.union(other.lattice),
            tuple(sorted({*self.seeds, *other.seeds})),
            other.metric,
            self.training,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready and complete: `from_dict` gives the same spec back."""
        return {
            "kind": str(self.kind),
            "optimizer": {
                "family": self.optimizer.family and str(self.optimizer.family),
                "rule": str(self.optimizer.rule),
                "label": self.optimizer.label,
            },
            "lr": list(self.lattice.lr),
            "weight_decay": list(self.lattice.weight_decay),
            "seeds": list(self.seeds),
            "metric": self.metric,
            "training": self.training
            and {n: str(v) if isinstance(v, StrEnum) else v for n, v in asdict(self.training).items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_dict` wrote. Raises UsageError when a value no longer makes sense."""
        optimizer = values["optimizer"]
        training = values["training"]
        return cls(
            Kind(values["kind"]),
            Optimizer(
                optimizer["family"] and Family(optimizer["family"]),
                DecayRule(optimizer["rule"]),
                optimizer["label"],
            ),
            Lattice(tuple(values["lr"]), tuple(values["weight_decay"])),
            tuple(values["seeds"]),
            values["metric"],
            training and Training(**training),
        )
