"""StudySpec: everything that defines a study, frozen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.catalog import (
    AUGMENTATIONS,
    CROSS_ENTROPY,
    ENGINES,
    FLOAT32,
    METRICS,
    PRECISIONS,
    DataSet,
    chance_level,
    find_data_set,
    find_loss,
    find_network,
)
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Lattice
from lrwd_sweep.optimizer import Family, Optimizer, formula, users_of
from lrwd_sweep.own_code import canonical, is_own, short
from lrwd_sweep.schedule import Schedule, Timetable


class Kind(StrEnum):
    """Where a study's points come from."""

    GRID = "grid"  # every cell of the lattice
    TPE = "tpe"  # points of the lattice's box, proposed by Optuna's TPE
    IMPORT = "import"  # somebody else's sweep


class MomentumForm(StrEnum):
    """Where α stands in SGD with momentum; the two agree while η_t is constant."""

    PAPER = "paper"  # m ← β₁m + η_t α g ; θ ← θ − m      Algorithm 1 of the AdamW paper
    TORCH = "torch"  # m ← β₁m + g ; θ ← θ − η_t α m      torch.optim.SGD


@dataclass(frozen=True, slots=True)
class Training:
    """All that decides a lane's result besides optimizer, α, λ and seed. Raises UsageError if impossible.

    Hyperparameters that are None are left to the optimizer's family, which `of` puts in.
    """

    net: str = "mlp-norm"
    data: str = "digits"
    augment: str = "none"
    epochs: int = 60
    batch_size: int = 64
    schedule: Schedule = Schedule.COSINE
    warmup: int = 0  # epochs in front of the schedule, in which η rises linearly
    t_0: int | None = None  # epochs of the first cycle of restarts; None: a fifteenth of the run
    t_mult: int = 2  # each further cycle is this many times as long
    eta_min: float = 0.0  # what η falls to
    momentum: float | None = None  # β₁ of SGD and SGDP; of RMSProp
    nesterov: bool = False
    momentum_form: MomentumForm = MomentumForm.PAPER  # of SGD
    beta1: float | None = None  # of Adam and its kin
    beta2: float | None = None  # of the same, and of RMSProp
    eps: float | None = None
    decay_all: bool = True  # biases and parameters of normalisation too, as in the paper
    precision: str = FLOAT32  # of matrix products and convolutions; parameters and moments stay float32
    loss: str = CROSS_ENTROPY
    net_options: str = ""  # of somebody's own network, as `options_text` writes them
    code: tuple[tuple[str, str], ...] = ()  # somebody's own: name and digest of net, data and loss
    engine: str = field(default="auto", compare=False)  # results differ by rounding alone
    sizes: DataSet | None = None  # of the data; None: as the catalog has them, or nobody has looked yet

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "net", find_network(self.net))
        set_(self, "data", canonical("--data", self.data))
        set_(self, "loss", find_loss(self.loss))
        if self.sizes is None and not is_own(self.data):  # which only who trains may import
            set_(self, "sizes", find_data_set(self.data))
        for kind, name, known in (
            ("schedule", self.schedule, list(Schedule)),
            ("momentum form", self.momentum_form, list(MomentumForm)),
            ("augmentation", self.augment, AUGMENTATIONS),
            ("precision", self.precision, PRECISIONS),
            ("engine", self.engine, ENGINES),
        ):
            if name not in known:
                raise UnknownName(kind, str(name), map(str, known))
        set_(self, "schedule", Schedule(self.schedule))
        set_(self, "momentum_form", MomentumForm(self.momentum_form))
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup", 0), ("t_0", 1), ("t_mult", 1)):
            value = getattr(self, name)
            if name == "t_0" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{option(name)} {value!r} is not a whole number of at least {least}")
        self._refuse_impossible()
        for name, top in (
            ("momentum", 1.0),
            ("beta1", 1.0),
            ("beta2", 1.0),
            ("eps", float("inf")),
            ("eta_min", 1.0),
        ):
            value = getattr(self, name)
            if value is None and name != "eta_min":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < top:
                raise UsageError(f"{name} {value!r} is out of range; choose at least 0 and below {top:g}")
        for name in ("nesterov", "decay_all"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} {getattr(self, name)!r} is neither true nor false")

    def _refuse_impossible(self) -> None:
        if self.warmup >= self.epochs:
            raise UsageError(
                f"--warmup {self.warmup} leaves nothing of {self.epochs} epochs; "
                f"choose less than {self.epochs}"
            )
        if self.net_options and not is_own(self.net):
            raise UsageError(f"[net.options] means nothing to {self.net}; it is for somebody's own network")
        if self.sizes is not None:
            self._refuse_impossible_sizes(self.sizes)

    def _refuse_impossible_sizes(self, sizes: DataSet) -> None:
        if self.batch_size > sizes.train:
            raise UsageError(
                f"--batch-size {self.batch_size} is larger than the training set of {self.data} "
                f"({sizes.train}); choose at most {sizes.train}"
            )
        if self.batch_size < 2:
            raise UsageError(
                "--batch-size 1 leaves batch normalisation nothing to average; choose at least 2"
            )
        if self.augment != "none" and len(sizes.shape) != 3:
            raise UsageError(f"--augment {self.augment}: {self.data} holds no images; choose none")

    @property
    def data_set(self) -> DataSet:
        """The data set's sizes. Raises UsageError where that is somebody's own and was not looked at."""
        if self.sizes is None:
            raise UsageError(f"the sizes of {self.data} are not known; they are once it has been loaded")
        return self.sizes

    @property
    def own_code(self) -> dict[str, str]:
        """What is somebody's own: its name by the option that names it."""
        named = {"--net": self.net, "--data": self.data, "--loss": self.loss}
        return {option: name for option, name in named.items() if is_own(name)}

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the incomplete last batch is dropped."""
        return self.data_set.train // self.batch_size

    @property
    def steps(self) -> int:
        """N, the number of updates in the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def timetable(self) -> Timetable:
        """η_t at every batch of the run."""
        t_0 = self.t_0 or max(1, (self.epochs - self.warmup) // 15)  # cycles 1 + 2 + 4 + 8
        return Timetable(
            self.schedule, self.epochs, self.steps_per_epoch, self.warmup, t_0, self.t_mult, self.eta_min
        )

    @property
    def decay_steps(self) -> int:
        """N of normalised decay for what the run hands over: its last whole cycle, or all of it."""
        snapshots = self.timetable.snapshots
        last = (snapshots[-1] if snapshots else self.epochs) * self.steps_per_epoch
        return self.timetable.steps_of_cycle(last - 1)

    def of(self, optimizer: Optimizer) -> Training:
        """This for one optimizer: what is open as its family has it, and what it does not use as it ever was.

        So studies of one command differ in nothing that makes no difference.
        """
        own: dict[str, Any] = {} if optimizer.family is None else optimizer.family.hyperparameters
        given = {n: getattr(self, n) for n in _HYPERPARAMETERS if n in own and getattr(self, n) is not None}
        restarts = {} if self.schedule is Schedule.RESTARTS else _OF_RESTARTS
        return replace(self, **_HYPERPARAMETERS | own | given | restarts)

    def changed(self, **overrides: Any) -> Training:
        """This with other values; what belongs to a data set or network does not outlast it."""
        gone: dict[str, Any] = {"sizes": None} if "data" in overrides else {}
        if "net" in overrides:
            gone["net_options"] = ""
        if overrides.keys() & {"net", "data", "loss"}:
            gone["code"] = ()
        return replace(self, **gone | overrides)

    def resuming(self, begun: Training | None) -> Training:
        """This by the engine by which a study was begun, unless one is asked for."""
        return self if begun is None or self.engine != "auto" else replace(self, engine=begun.engine)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; sizes that the catalog knows are left to it, and so is what few studies have."""
        values = {n: str(v) if isinstance(v, StrEnum) else v for n, v in asdict(self).items()}
        values["code"] = dict(self.code)
        usual = [name for name, value in _RARE.items() if values[name] == value]
        if DataSet.known(self.data) == self.sizes:
            usual.append("sizes")
        return {name: value for name, value in values.items() if name not in usual}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises UsageError when a value no longer makes sense."""
        sizes, code = values.get("sizes"), tuple(values.get("code", {}).items())
        found = sizes and DataSet(**{**sizes, "shape": tuple(sizes["shape"])})
        return cls(**{**values, "sizes": found, "code": code})


# Hyperparameters that not every family has, as they stand in the study of a family that has them not.
_HYPERPARAMETERS: dict[str, Any] = {
    "momentum": 0.9,
    "nesterov": False,
    "momentum_form": MomentumForm.PAPER,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
}
_OF_RESTARTS: dict[str, Any] = {"t_0": None, "t_mult": 2}
_RARE: dict[str, Any] = {"loss": CROSS_ENTROPY, "net_options": "", "code": {}, "engine": "auto"}
BESIDE_THE_TASK = ("sizes", "code", "engine")  # fields of Training that nobody asks for by name
OPTION = {
    "t_0": "--t0",
    "t_mult": "--tmult",
    "beta1": "--betas",
    "beta2": "--betas",
    "decay_all": "--decay-all",
}


def option(field: str) -> str:
    """The command-line option that sets a field of Training."""
    return OPTION.get(field, "--" + field.replace("_", "-"))


def options_text(options: Mapping[str, Any]) -> str:
    """A network's options as Training holds them. Raises UsageError for what JSON has not.

    >>> options_text({"width": 64, "act": "relu"})
    '{"act": "relu", "width": 64}'
    """
    try:
        return json.dumps(dict(options), sort_keys=True, allow_nan=False) if options else ""
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"[net.options] {dict(options)!r}: {error}; give text, numbers, true or false, lists and tables"
        ) from None


def refuse_unused(
    given: Mapping[str, Any], optimizers: Sequence[Optimizer], schedules: Sequence[str]
) -> None:
    """Raise UsageError when something was asked for that none of the optimizers, or schedules, has."""
    for name in given:
        alike = [other for other in given if option(other) == option(name)]  # both betas are one option
        users = list(dict.fromkeys(user for other in alike for user in users_of(other)))
        if users and not any(optimizer.family in users for optimizer in optimizers):
            families = ", ".join(dict.fromkeys(str(optimizer.family) for optimizer in optimizers))
            raise UsageError(
                f"{option(name)} means nothing to {families}; it is for {', '.join(users)}: leave it out"
            )
        if name in _OF_RESTARTS and Schedule.RESTARTS not in schedules:
            found = ", ".join(dict.fromkeys(schedules))
            raise UsageError(f"{option(name)} means nothing to schedule {found}; add --schedule restarts")


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
        if self.training is not None:
            object.__setattr__(self, "training", self.training.of(self.optimizer))
            if self.metric not in METRICS:
                raise UnknownName("metric", self.metric, METRICS)
            _ = self.training.data_set  # which is known by now, or refused
        if not self.seeds:
            raise UsageError("--seeds 0 trains nothing; choose at least 1")

    @property
    def cap(self) -> float | None:
        """The metric's chance level, where task and loss are known."""
        t = self.training
        if t is None or (t.loss != CROSS_ENTROPY and not self.metric.endswith("_error")):
            return None
        return chance_level(self.metric, t.data_set.classes)

    @property
    def default_name(self) -> str:
        """Readable, and the same for the same identity: `digits-mlp-norm-adamw-cosine-60ep-b64`."""
        t = self.training
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
        if self.training is None:
            return {}
        t = self.training
        usual = Training(data=t.data, sizes=t.sizes, batch_size=t.batch_size).of(self.optimizer)
        values = {name: getattr(self.training, name) for name in _MARKS}
        return {name: value for name, value in values.items() if value != getattr(usual, name)}

    @property
    def title(self) -> str:
        """The optimizer's name; that of its variant with restarts where this is what trains."""
        o, t = self.optimizer, self.training
        if o.family and o.normalized and o.rule is DecayRule.INDEPENDENT and t is not None:
            return f"{o.family}wr" if t.schedule is Schedule.RESTARTS else str(o)
        return str(o)

    @property
    def formula(self) -> str:
        """The update that trains, in the paper's letters."""
        t = self.training
        if t is None:
            return self.optimizer.formula
        return formula(
            self.optimizer, momentum=t.momentum, nesterov=t.nesterov, momentum_form=t.momentum_form
        )

    def identity(self) -> dict[str, Any]:
        """What may not change under one study name, flat, JSON-ready."""
        training = {} if self.training is None else self.training.to_dict()
        code = {f"code of {name}": digest for name, digest in training.pop("code", {}).items()}
        training.pop("engine", None)
        return {
            "kind": str(self.kind),
            "optimizer": str(self.optimizer),
            "decay_rule": str(self.optimizer.rule),
            **training,
            **code,
        }

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
            }
            | ({"normalized": True} if self.optimizer.normalized else {}),
            "lr": list(self.lattice.lr),
            "weight_decay": list(self.lattice.weight_decay),
            "seeds": list(self.seeds),
            "metric": self.metric,
            "training": self.training and self.training.to_dict(),
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
                optimizer.get("normalized", False),
            ),
            Lattice(tuple(values["lr"]), tuple(values["weight_decay"])),
            tuple(values["seeds"]),
            values["metric"],
            training and Training.from_dict(training),
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
        mine = spec.training
        alike = [other.training for other in specs if other.title == title and other.training is not None]
        differing = (
            []
            if mine is None
            else [
                name
                for name in Training.__dataclass_fields__
                if name not in BESIDE_THE_TASK
                and any(getattr(other, name) != getattr(mine, name) for other in alike)
            ]
        )
        words = [_WORDS.get(name, f"{name} {{}}").format(getattr(mine, name)) for name in differing]
        found.append(", ".join([title, *words]))
    return found


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
    "precision": "{}",
    "loss": "{}",
    "net_options": "{}",
}
