"""Task: everything that decides a lane's result besides optimizer, α, λ and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.optimizer import Family, Optimizer, users_of
from lrwd_sweep.science.schedule import Schedule, Timetable, evaluated_epochs
from lrwd_sweep.spec.catalog import (
    AVERAGES,
    CLASS,
    CROSS_ENTROPY,
    EMBEDDINGS,
    ENSEMBLE,
    METRICS,
    NLL,
    RECALL,
    SWA,
    DataSet,
    check_loss,
    find_data_set,
    find_loss,
    find_network,
    measures,
    metric_of,
)
from lrwd_sweep.spec.field import check_pattern, fields_of
from lrwd_sweep.spec.net_options import complete_options, context, joined_options
from lrwd_sweep.spec.task_fields import TaskFields
from lrwd_sweep.spec.user_code import canonical, is_user_code
from lrwd_sweep.spec.user_files import PREFIX, is_text


@dataclass(frozen=True, slots=True)
class Task(TaskFields):
    """Everything that decides a lane's result besides optimizer, α, λ and seed; see `TaskFields`.

    Hyperparameters that are None are left to the optimizer's family; `of` fills them in. Raises UsageError.
    """

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
        _refuse_impossible(self)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The averages that are evaluated beside the last weights."""
        return tuple(kind for kind in AVERAGES if getattr(self, kind) is not None)

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
        """The epochs after which SWA adds the weights to its average; under restarts they end cycles.

        >>> Task(epochs=8, swa=0.75).swa_epochs, Task(epochs=8, swa=7).swa_epochs
        ((6, 7, 8), (7, 8))
        """
        if self.swa is None:
            return ()
        first = self.swa if self.swa >= 1 else math.ceil(self.swa * self.epochs - 1e-9)
        ends = self.timetable.snapshots or range(1, self.epochs + 1)
        return tuple(epoch for epoch in ends if epoch >= first)

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
        _refuse_impossible_optimizer(optimizer, self)
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
        """Return it JSON-ready, without sizes that the catalog knows and most fields at their defaults."""
        values = {n: str(v) if isinstance(v, StrEnum) else v for n, v in asdict(self).items()}
        values |= {"code": dict(self.code), "undecayed": list(self.undecayed)}
        values["sizes"] = self.sizes and self.sizes.to_dict()
        usual = [n for n, field in FIELDS.items() if n not in _STORED and getattr(self, n) == field.default]
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
_STORED = (  # in JSON also at their defaults
    *("net", "data", "augment", "epochs", "batch_size", "schedule", "warmup", "t_0", "t_mult", "eta_min"),
    *("momentum", "nesterov", "momentum_form", "beta1", "beta2", "eps", "decay_all", "precision"),
)


def _refuse_impossible(task: Task) -> None:
    """Raise UsageError if fields of a task exclude each other, or do not fit its data."""
    for name in ("no_decay", "train"):
        check_pattern(name, getattr(task, name))
    if task.warmup >= task.epochs:
        raise UsageError(
            f"{arg('warmup', task.warmup)} leaves nothing of {arg('epochs', task.epochs)}; "
            f"choose less than {task.epochs}"
        )
    if task.clip_norm == 0:
        raise UsageError(f"{arg('clip_norm', 0)} leaves nothing of the gradients; choose more than 0")
    for name in ("label_smoothing", "logit_decay"):
        if getattr(task, name) and task.loss != CROSS_ENTROPY:
            raise UsageError(
                f"{arg(name)} has no effect on {arg('loss', task.loss)}; it is for {CROSS_ENTROPY}"
            )
    if task.measure and metric_of(task.measure) in METRICS:
        raise UsageError(
            f"{arg('metric', task.measure)} would hide {metric_of(task.measure)}; give the function another "
            "name"
        )
    if not is_user_code(task.net):
        complete_options(task.net, task.net_options)
    if task.standardize is not None and not is_user_code(task.data):
        why = "holds no images" if is_text(task.data) else "is always standardised"
        raise UsageError(f"{arg('standardize')} is for images of your own; {task.data} {why}: leave it out")
    if task.stream and not is_user_code(task.data):
        raise UsageError(f"{arg('stream', True)} is for data sets of your own; leave it out for {task.data}")
    if task.sizes is not None:
        _refuse_sizes(task, task.sizes)
    if task.sam_adaptive and not task.sam:
        raise UsageError(f"{arg('sam_adaptive', True)} has no effect without SAM; add {arg('sam', 0.5)}")
    if task.sizes is not None:  # of the data; else the length of an epoch is not known
        _refuse_averages(task)


def _refuse_impossible_optimizer(optimizer: Optimizer, task: Task) -> None:
    """Raise UsageError for hyperparameters that an optimizer cannot have."""
    if optimizer.family is Family.SCHEDULE_FREE and task.beta1 == 0:
        raise UsageError(
            f"{arg('betas', '0,…')}: {optimizer} finds its average from β₁; choose β₁ above 0, such as 0.9"
        )
    if optimizer.family is Family.SCHEDULE_FREE and task.kinds:
        raise UsageError(f"{optimizer} averages its weights already; leave out {arg(task.kinds[0])}")
    if optimizer.family is Family.KFAC:
        _refuse_impossible_kfac(optimizer, task)


def _refuse_impossible_kfac(optimizer: Optimizer, task: Task) -> None:
    if task.damping == 0:
        raise UsageError(f"{arg('damping', 0)} leaves singular factors; choose more than 0, such as 0.001")
    if task.sam:
        raise UsageError(
            f"{arg('sam', task.sam)}: the factors of {optimizer} belong to θ, the gradient of SAM to another "
            "point; leave it out"
        )
    if task.engine not in ("auto", "loop"):
        raise UsageError(
            f"{arg('engine', task.engine)} does not compute the factors of {optimizer}; choose auto or loop"
        )
    sampled = task.loss in (CROSS_ENTROPY, NLL) and (task.sizes is None or task.sizes.target == CLASS)
    if not sampled:
        what = arg("loss", task.loss) if task.loss not in (CROSS_ENTROPY, NLL) else task.data
        raise UsageError(
            f"{optimizer} samples a class for every item from the network's softmax, which {what} does not "
            "have; choose another optimizer"
        )


def _refuse_sizes(task: Task, sizes: DataSet) -> None:
    count, share = task.train_items, ""
    if task.train_fraction is not None:
        share = f"{arg('train_fraction', task.train_fraction)} of "
    if task.batch_size > count:
        raise UsageError(
            f"{arg('batch_size', task.batch_size)} is larger than {share}the training set of {task.data} "
            f"({count}); choose at most {count}"
        )
    if task.items_per_step > count:
        raise UsageError(
            f"{arg('accumulate', task.accumulate)} batches of {task.batch_size} are more than {share}the "
            f"training set of {task.data} ({count}); choose at most {count // task.batch_size}"
        )
    if task.augment != "none" and len(sizes.shape) != 3:
        raise UsageError(f"{arg('augment', task.augment)}: {task.data} holds no images; choose none")
    if task.augment != "none" and sizes.inputs:
        raise UsageError(
            f"{arg('augment', task.augment)} takes one floating-point image per item; choose none"
        )
    check_loss(task.loss, sizes.target, task.data)


def _refuse_averages(task: Task) -> None:
    snapshots = task.timetable.snapshots
    if task.swa is not None:
        if task.swa >= 1 and task.swa != int(task.swa):
            raise UsageError(
                f"{arg('swa', task.swa)} is neither a share of the run below 1 nor a whole epoch"
            )
        if len(task.swa_epochs) < 2:  # one is no average
            ends = snapshots or range(1, task.epochs + 1)
            what = (
                _counted(len(ends), "snapshot") + " of restarts"
                if snapshots
                else _counted(len(ends), "epoch")
            )
            remedy = f"choose at most {ends[-2]}" if len(ends) > 1 else "train for more epochs"
            given = arg("swa", int(task.swa) if task.swa >= 1 else task.swa)
            raise UsageError(f"{given} leaves {len(task.swa_epochs)} of {what} to average; {remedy}")
    if task.ema == 0:
        raise UsageError(f"{arg('ema', 0)} keeps nothing but the last weights; choose more than 0 epochs")
    if task.ensemble is not None and task.schedule is Schedule.RESTARTS:
        given = arg("ensemble", task.ensemble)
        if len(snapshots) < task.ensemble:
            few = f"the run has {_counted(len(snapshots), 'snapshot')} of restarts"
            raise UsageError(f"{given}: {few}; choose fewer, or more epochs")
        if task.loss not in (CROSS_ENTROPY, NLL):
            raise UsageError(
                f"{given} averages probabilities of classes, which {arg('loss', task.loss)} does not train; "
                "leave it out"
            )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def refuse_early(metric: str, task: Task | None, restart: int, epoch: int) -> None:
    """Raise UsageError for the metric of an average that had not begun at the end of a cycle."""
    if task is not None and metric.startswith(f"{SWA}_") and epoch < task.swa_epochs[0]:
        first = task.timetable.snapshots.index(task.swa_epochs[0]) + 1
        raise UsageError(
            f"{arg('at_restart', restart)} is after epoch {epoch}, before {arg('swa')} averages; choose at "
            f"least {first}"
        )
