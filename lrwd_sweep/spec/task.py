"""Training: all that decides a lane's result besides optimizer, α, λ and seed; frozen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, brief, shown
from lrwd_sweep.science.optimizer import Optimizer, users_of
from lrwd_sweep.science.schedule import Schedule, Timetable
from lrwd_sweep.spec.catalog import (
    AUGMENTATIONS,
    CROSS_ENTROPY,
    ENGINES,
    FLOAT32,
    PRECISIONS,
    DataSet,
    find_data_set,
    find_loss,
    find_network,
)
from lrwd_sweep.spec.image_folder import PREFIX
from lrwd_sweep.spec.user_code import canonical, is_user_code

LARGEST_EPS = 1e30  # which float32 holds, and products with it


class MomentumForm(StrEnum):
    """Where α stands in SGD with momentum; the two agree while η_t is constant."""

    PAPER = "paper"  # m ← β₁m + η_t α g ; θ ← θ − m      Algorithm 1 of the AdamW paper
    TORCH = "torch"  # m ← β₁m + g ; θ ← θ − η_t α m      torch.optim.SGD


@dataclass(frozen=True, slots=True)
class Task:
    """All that decides a lane's result besides optimizer, α, λ and seed. Raises UsageError if impossible.

    Hyperparameters that are None are left to the optimizer's family, which `of` puts in.
    """

    net: str = "mlp-norm"
    data: str = "digits"
    standardize: bool | None = None  # images of bytes that are the user's; None: there are none
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
    no_decay: str = ""  # a regular expression: parameters whose names it finds do not decay
    undecayed: tuple[str, ...] = ()  # what does not decay; with decay_all False, besides vectors
    precision: str = FLOAT32  # of matrix products and convolutions; parameters and moments stay float32
    loss: str = CROSS_ENTROPY
    net_options: str = ""  # of somebody's own network, as `options_text` writes them
    code: tuple[tuple[str, str], ...] = ()  # somebody's own: name and digest of net, data and loss
    whole_loss: bool = False  # the loss is no mean over items: a split is scored at once, not in batches
    engine: str = field(default="auto", compare=False)  # results differ by rounding alone
    tensors: str = field(default="", compare=False)  # which parameters decay, in words; "" before it trains
    sizes: DataSet | None = None  # of the data; None: as the catalog has them, or nobody has looked yet

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "net", find_network(self.net))
        set_(self, "data", canonical("--data", self.data))
        set_(self, "loss", find_loss(self.loss))
        if self.sizes is None and not is_user_code(self.data):  # which only who trains may import
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
                raise UsageError(f"{option(name)} {shown(value)} is not a whole number of at least {least}")
        self._refuse_impossible()
        for name, top in (
            ("momentum", 1.0),
            ("beta1", 1.0),
            ("beta2", 1.0),
            ("eps", LARGEST_EPS),
            ("eta_min", 1.0),
        ):
            value = getattr(self, name)
            if value is None and name != "eta_min":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < top:
                raise UsageError(
                    f"{name} {shown(value)} is out of range; choose at least 0 and below {top:g}"
                )
        for name in ("nesterov", "decay_all", "standardize"):
            if name == "standardize" and self.standardize is None:
                continue
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} {shown(getattr(self, name))} is neither true nor false")

    def _refuse_impossible(self) -> None:
        try:
            if not isinstance(self.no_decay, str) or not self.no_decay.isprintable():
                raise UsageError(f"--no-decay {shown(self.no_decay)} is no text that can be printed")
            re.compile(self.no_decay)
        except (re.error, RecursionError, OverflowError) as error:
            raise UsageError(
                f"--no-decay {shown(self.no_decay)} is no regular expression ({brief(error)}); write one as "
                "in 'cls_token|pos_embed'"
            ) from None
        if self.warmup >= self.epochs:
            raise UsageError(
                f"--warmup {self.warmup} leaves nothing of {self.epochs} epochs; "
                f"choose less than {self.epochs}"
            )
        if self.net_options and not is_user_code(self.net):
            raise UsageError(f"[net.options] means nothing to {self.net}; it is for somebody's own network")
        if self.standardize is not None and not is_user_code(self.data):
            raise UsageError(
                f"--standardize is for images of your own; {self.data} is standardised whatever it says: "
                "leave it out"
            )
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
    def user_code(self) -> dict[str, str]:
        """What is somebody's own: its name by the option that names it."""
        named = {"--net": self.net, "--data": self.data, "--loss": self.loss}
        return {option: name for option, name in named.items() if is_user_code(name)}

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

    def of(self, optimizer: Optimizer) -> Task:
        """This for one optimizer: what is open as its family has it, and what it does not use as it ever was.

        So studies of one command differ in nothing that makes no difference.
        """
        own: dict[str, Any] = {} if optimizer.family is None else optimizer.family.hyperparameters
        given = {n: getattr(self, n) for n in _HYPERPARAMETERS if n in own and getattr(self, n) is not None}
        restarts = {} if self.schedule is Schedule.RESTARTS else _OF_RESTARTS
        return replace(self, **_HYPERPARAMETERS | own | given | restarts)

    def changed(self, **overrides: Any) -> Task:
        """This with other values; what belongs to a data set or network does not outlast it."""
        gone: dict[str, Any] = {"sizes": None, "standardize": None} if "data" in overrides else {}
        if "net" in overrides:
            gone |= {"net_options": "", "undecayed": ()}
        if overrides.keys() & {"net", "data", "loss"}:
            gone |= {"code": (), "whole_loss": False}
        return replace(self, **gone | overrides)

    def resuming(self, begun: Task | None) -> Task:
        """This by the engine by which a study was begun, unless one is asked for."""
        return self if begun is None or self.engine != "auto" else replace(self, engine=begun.engine)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; sizes that the catalog knows are left to it, and so is what few studies have."""
        values = {n: str(v) if isinstance(v, StrEnum) else v for n, v in asdict(self).items()}
        values |= {"code": dict(self.code), "undecayed": list(self.undecayed)}
        if self.sizes is not None:
            values["sizes"] = {n: v for n, v in asdict(self.sizes).items() if n != "digest" or v}
        usual = [name for name, value in _RARE.items() if values[name] == value]
        if DataSet.known(self.data) == self.sizes:
            usual.append("sizes")
        return {name: value for name, value in values.items() if name not in usual}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Looks at no path that it names. Raises UsageError for a senseless value."""
        data = str(values.get("data", ""))
        if not values.get("sizes") and data.startswith(PREFIX):  # or they would be counted
            raise UsageError(f"the sizes of {data} are not stored")
        if not isinstance(tensors := values.get("tensors", ""), str):
            raise UsageError(f"tensors {shown(tensors)} is not text")
        sizes, code = values.get("sizes"), tuple(values.get("code", {}).items())
        found = sizes and DataSet(**{**sizes, "shape": tuple(sizes["shape"])})
        undecayed = tuple(values.get("undecayed", ()))
        return cls(**{**values, "sizes": found, "code": code, "undecayed": undecayed})


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
_RARE: dict[str, Any] = {
    "loss": CROSS_ENTROPY,
    "net_options": "",
    "code": {},
    "standardize": None,
    "no_decay": "",
    "undecayed": [],
    "whole_loss": False,
    "engine": "auto",
    "tensors": "",
}
BESIDE_THE_TASK = (
    "sizes",
    "tensors",
    "code",
    "undecayed",
    "whole_loss",
    "engine",
)  # fields of Training that nobody asks for by name
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
            f"[net.options] {shown(dict(options))}: {error}; give text, numbers, true or false, lists and "
            "tables"
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
