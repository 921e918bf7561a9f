"""Task: everything that decides a lane's result besides optimizer, α, λ and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.optimizer import MomentumForm, Optimizer, users_of
from lrwd_sweep.science.schedule import DecaySchedule, Schedule, Timetable, evaluated_epochs
from lrwd_sweep.spec.batches import LARGEST_EPS, Batches
from lrwd_sweep.spec.catalog import (
    AUGMENTATIONS,
    CROSS_ENTROPY,
    EMBEDDINGS,
    ENGINES,
    FLOAT32,
    PRECISIONS,
    RECALL,
    DataSet,
    find_data_set,
    find_loss,
    find_network,
    measures,
    metric_of,
)
from lrwd_sweep.spec.field import OPTIMIZER, SCHEDULE, TRAIN, WHERE, declared, fields_of
from lrwd_sweep.spec.flat_minima import ENSEMBLE, averaged_epochs
from lrwd_sweep.spec.image_folder import PREFIX
from lrwd_sweep.spec.net_options import context, joined_options
from lrwd_sweep.spec.task_checks import refuse_impossible, refuse_impossible_optimizer
from lrwd_sweep.spec.text_files import is_text
from lrwd_sweep.spec.user_code import canonical, is_user_code


@dataclass(frozen=True, slots=True)
class Task(Batches):
    """Everything that decides a lane's result besides optimizer, α, λ and seed; see `FIELDS`.

    Hyperparameters that are None are left to the optimizer's family; `of` fills them in. Raises UsageError.
    """

    net: str = declared("mlp-norm", "Name, torchvision:NAME or ./file.py:NAME", panel=TRAIN, differs="{}")
    data: str = declared("digits", "Name, folder:PATH or ./file.py:NAME", panel=TRAIN, differs="{}")
    standardize: bool | None = declared(  # None: data without user images of bytes
        None, "Standardise user byte images; --no-standardize [no]", kind=bool, panel=TRAIN, rare=True
    )
    stream: bool = declared(False, "Read your data anew each epoch", panel=TRAIN, compare=False, rare=True)
    augment: str = declared(
        "none",
        "none, crop-flip or crop-flip-cutout",
        panel=TRAIN,
        noun="augmentation",
        choices=AUGMENTATIONS,
        mark="{}",
        words="augmented by {}",
    )
    epochs: int = declared(60, "Passes over the training set", panel=TRAIN, least=1, differs="{} epoch{s}")
    batch_size: int = declared(
        64, "Samples per step; drops an incomplete batch", panel=TRAIN, least=2, differs="batch {}"
    )
    schedule: Schedule = declared(  # noqa: RUF009 - a member of an enum
        Schedule.COSINE, "fixed, step, cosine, linear or restarts", panel=SCHEDULE, differs="{}"
    )
    warmup: int = declared(  # epochs before the schedule, in which η rises linearly
        0,
        "Epochs of linear rise before the schedule",
        panel=SCHEDULE,
        mark="warm{}",
        words="{epochs} of warm-up",
    )
    t_0: int | None = declared(  # None: a fifteenth of the run
        None,
        "Epochs until the first restart [epochs / 15]",
        kind=int,
        panel=SCHEDULE,
        flags="--t0",
        least=1,
        mark="t{}",
        words="first cycle of {epochs}",
    )
    t_mult: int = declared(
        2,
        "Each cycle is N times as long as the last",
        panel=SCHEDULE,
        flags="--tmult",
        least=1,
        mark="x{}",
        words="each cycle {} times the last",
    )
    eta_min: float = declared(
        0.0, "Lowest η as a share of its highest", panel=SCHEDULE, mark="min{:g}", words="η down to {:g}"
    )
    decay_schedule: DecaySchedule | None = declared(  # noqa: RUF009 - a kind
        None,
        "Decay's own: constant, step, cosine or linear [η's]",
        kind=DecaySchedule,
        panel=SCHEDULE,
        rare=True,
        differs="{} decay",
        mark="{}-decay",
        words="{} decay",
    )
    momentum: float | None = declared(  # β₁ of SGD and SGDP; of RMSProp
        None,
        "β₁ of a momentum buffer",
        kind=float,
        panel=OPTIMIZER,
        mark="mu{:g}",
        words="momentum {:g}",
        unused=0.9,
    )
    nesterov: bool = declared(
        False,
        "Nesterov's momentum; --no-nesterov [no]",
        panel=OPTIMIZER,
        mark="nesterov",
        words="Nesterov's momentum",
    )
    momentum_form: MomentumForm = declared(  # noqa: RUF009 - a member of an enum
        MomentumForm.PAPER,
        "Place of α in SGD's momentum",
        panel=OPTIMIZER,
        noun="momentum form",
        mark="{}-momentum",
        words="momentum as in {}",
    )
    beta1: float | None = declared(
        None,
        "Averages of g, g²",
        kind=float,
        panel=OPTIMIZER,
        flags="--betas",
        metavar="B1,B2",
        mark="b1-{:g}",
        words="β₁ {:g}",
        unused=0.9,
    )
    beta2: float | None = declared(
        None, kind=float, panel=OPTIMIZER, flags="--betas", mark="b2-{:g}", words="β₂ {:g}", unused=0.999
    )
    eps: float | None = declared(
        None,
        "ε in the denominator",
        kind=float,
        panel=OPTIMIZER,
        below=LARGEST_EPS,
        mark="eps{:g}",
        words="ε {:g}",
        unused=1e-8,
    )
    decay_all: bool = declared(  # biases and parameters of normalisation too, as in the paper
        True,
        "Do not decay biases and norms; --decay-all [no]",
        panel=OPTIMIZER,
        flags="--decay-all/--no-decay-norm-bias",
        mark="weights-only",
        words="biases and normalisation not decayed",
    )
    no_decay: str = declared(
        "",
        "Further parameters that do not decay [none]",
        panel=OPTIMIZER,
        metavar="REGEX",
        rare=True,
        mark="spare-{}",
        words="parameters that match {} not decayed",
    )
    undecayed: tuple[str, ...] = declared((), rare=True)  # parameters that do not decay; see `decay_all`
    train: str = declared(
        "",
        "Parameters that train; the others stay frozen [all]",
        panel=TRAIN,
        metavar="REGEX",
        rare=True,
        mark="train-{}",
        words="only parameters that match {} trained",
    )
    precision: str = declared(  # parameters and moments stay float32
        FLOAT32,
        "float32 or bfloat16 matrix products",
        panel=TRAIN,
        choices=PRECISIONS,
        differs="{}",
        mark="{}",
        words="computed in {}",
    )
    loss: str = declared(
        CROSS_ENTROPY, "Training loss, or ./file.py:NAME", panel=TRAIN, rare=True, mark="{}", words="loss {}"
    )
    net_options: str = declared(  # in JSON as `options_text` writes it
        "",
        "Its options, as layers=2,width=32 [none]",
        panel=TRAIN,
        metavar="K=V,…",
        rare=True,
        in_presets=False,
        mark="{}",
        words="network's options {}",
    )
    measure: str = declared("", rare=True, mark="{}", words="measured by {}")  # the user's metric
    code: tuple[tuple[str, str], ...] = declared((), rare=True)  # name and digest of user code
    whole_loss: bool = declared(False, rare=True)  # the loss is not a mean over items: a split is one batch
    engine: str = declared(  # results differ only by rounding
        "auto",
        "auto, native, vmap or loop, for debugging",
        panel=WHERE,
        choices=ENGINES,
        compare=False,
        in_presets=False,
        rare=True,
    )
    eval_every: int | None = declared(  # results do not depend on it, only how fine learning curves are
        None,
        "Validate every N epochs [about 12 times a run]",
        kind=int,
        panel=TRAIN,
        metavar="N",
        least=1,
        compare=False,
        rare=True,
    )
    tensors: str = declared("", compare=False, rare=True)  # decayed parameters, in words; "" before training
    sizes: DataSet | None = None  # of the data; None: not read yet

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name, field in FIELDS.items():
            set_(self, name, field.check(getattr(self, name)))
        set_(self, "net", find_network(self.net))
        set_(self, "data", canonical("data", self.data))
        set_(self, "loss", find_loss(self.loss))
        set_(self, "measure", self.measure and canonical("metric", self.measure))
        if self.sizes is None and not is_user_code(self.data):  # user data is imported only for training
            set_(self, "sizes", find_data_set(self.data, context(self.net, self.net_options)))
        refuse_impossible(self)

    @property
    def data_set(self) -> DataSet:
        """The data set's sizes. Raises UsageError for user data that was not looked at."""
        if self.sizes is None:
            raise UsageError(f"the sizes of {self.data} are not known; they are once it has been loaded")
        return self.sizes

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that its lanes have."""
        found = measures(self.data_set.target, self.loss)
        own = (f"val_{RECALL}",) * (self.net in EMBEDDINGS)
        own += (metric_of(self.measure),) if self.measure else ()
        last = tuple(f"{split}_{measure}" for split in ("val", "train") for measure in found) + own
        validated = [name for name in last if name.startswith("val_")]
        return last + tuple(f"{kind}_{name}" for kind in self.kinds for name in validated)

    @property
    def user_code(self) -> dict[str, str]:
        """The names of user code, by field."""
        named = {"net": self.net, "data": self.data, "loss": self.loss, "metric": self.measure}
        return {field: name for field, name in named.items() if is_user_code(name)}

    @property
    def steps_per_epoch(self) -> int:
        """Updates per epoch; the incomplete last batch is dropped."""
        return self.train_items // self.items_per_step

    @property
    def items_per_step(self) -> int:
        """Items of an update."""
        return self.batch_size * self.accumulate

    @property
    def train_items(self) -> int:
        """Items of the training set that train."""
        return int(self.data_set.train * (1 if self.train_fraction is None else self.train_fraction))

    @property
    def steps(self) -> int:
        """N, the number of updates in the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def evaluations(self) -> tuple[int, ...]:
        """The epochs after which lanes are validated: among them the first, the last and every snapshot.

        >>> Task(epochs=60).evaluations
        (1, 2, 3, 4, 6, 9, 14, 20, 29, 41, 60)
        """
        return evaluated_epochs(self.epochs, self.eval_every, self.timetable.snapshots)

    @property
    def swa_epochs(self) -> tuple[int, ...]:
        """The epochs after which SWA adds the weights to its average."""
        return () if self.swa is None else averaged_epochs(self.swa, self.epochs, self.timetable.snapshots)

    @property
    def timetable(self) -> Timetable:
        """η_t at every batch of the run."""
        t_0 = self.t_0 or max(1, (self.epochs - self.warmup) // 15)  # cycles 1 + 2 + 4 + 8
        lengths = (self.epochs, self.steps_per_epoch, self.warmup, t_0, self.t_mult)
        return Timetable(self.schedule, *lengths, self.eta_min, self.decay_schedule)

    @property
    def decay_steps(self) -> int:
        """N of normalised decay for the result of the run: its last whole cycle, or all of it."""
        last = max(self.timetable.snapshots, default=self.epochs) * self.steps_per_epoch
        return self.timetable.steps_of_cycle(last - 1)

    def of(self, optimizer: Optimizer) -> Task:
        """Return this task for one optimizer: hyperparameters as its family has them.

        Hyperparameters that it does not have get fixed values, so that they do not tell studies apart.
        """
        own: dict[str, Any] = {} if optimizer.family is None else optimizer.family.hyperparameters
        given = {n: getattr(self, n) for n in _HYPERPARAMETERS if n in own and getattr(self, n) is not None}
        restarts = {} if self.schedule is Schedule.RESTARTS else OF_RESTARTS
        decay = {} if optimizer.rule.is_scheduled else {"decay_schedule": None}
        refuse_impossible_optimizer(optimizer, self)
        engine = {"engine": "loop"} if "damping" in own else {}  # the only one with factors
        return replace(self, **_HYPERPARAMETERS | own | given | restarts | decay | engine)

    def changed(self, **overrides: Any) -> Task:
        """Return this task with other values, dropping those of a replaced data set or network."""
        of_data: dict[str, Any] = {"sizes": None, "standardize": None, "stream": False}
        gone = of_data if "data" in overrides else {}
        if "net" in overrides:
            gone |= {"net_options": "", "undecayed": ()}
        elif "net_options" in overrides:  # they outweigh those that are there
            overrides["net_options"] = joined_options(self.net_options, overrides["net_options"])
        if is_text(self.data) and overrides.keys() & {"net", "net_options"}:
            gone["sizes"] = None  # windows are as long as the network's context
        if overrides.keys() & {"net", "data", "loss", "measure"}:
            gone |= {"code": (), "whole_loss": False}
        return replace(self, **gone | overrides)

    def resuming(self, begun: Task | None) -> Task:
        """Return this task with the engine of a begun study, unless an engine is given."""
        return self if begun is None or self.engine != "auto" else replace(self, engine=begun.engine)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready, without sizes that the catalog knows and rare fields at their defaults."""
        values = {n: str(v) if isinstance(v, StrEnum) else v for n, v in asdict(self).items()}
        values |= {"code": dict(self.code), "undecayed": list(self.undecayed)}
        values["sizes"] = self.sizes and self.sizes.to_dict()
        usual = [n for n, field in FIELDS.items() if field.rare and getattr(self, n) == field.default]
        usual += ["sizes"] * (DataSet.known(self.data) == self.sizes)
        return {name: value for name, value in values.items() if name not in usual}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the task that `to_dict` wrote, looking at no path that it names. Raises UsageError."""
        data = str(values.get("data", ""))
        if not values.get("sizes") and (data.startswith(PREFIX) or is_text(data)):  # its files are not read
            raise UsageError(f"the sizes of {data} are not stored")
        code, undecayed = tuple(values.get("code", {}).items()), tuple(values.get("undecayed", ()))
        found = values.get("sizes") and DataSet.from_dict(values["sizes"])
        return cls(**{**values, "sizes": found, "code": code, "undecayed": undecayed})


FIELDS = fields_of(Task)
IDENTIFYING = tuple(field.name for field in fields(Task) if field.compare)  # a result depends on these

# The hyperparameters that not every family has, with the values that studies of the other families store.
_HYPERPARAMETERS = {
    name: field.default if field.unused is None else field.unused
    for name, field in FIELDS.items()
    if users_of(name)
}
OF_RESTARTS = {name: FIELDS[name].default for name in ("t_0", "t_mult", ENSEMBLE)}
