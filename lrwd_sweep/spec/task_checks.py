"""Tasks that cannot train: fields that exclude each other, or do not fit the data."""

from __future__ import annotations

from typing import Any

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.catalog import CLASS, CROSS_ENTROPY, METRICS, NLL, DataSet, check_loss, metric_of
from lrwd_sweep.spec.field import check_pattern
from lrwd_sweep.spec.flat_minima import refuse_impossible_averages
from lrwd_sweep.spec.net_options import complete_options
from lrwd_sweep.spec.text_files import is_text
from lrwd_sweep.spec.user_code import is_user_code


def refuse_impossible(task: Any) -> None:  # a Task, which imports this module
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
    refuse_impossible_averages(task)


def refuse_impossible_optimizer(optimizer: Optimizer, task: Any) -> None:
    """Raise UsageError for hyperparameters that an optimizer cannot have."""
    if optimizer.family is Family.SCHEDULE_FREE and task.beta1 == 0:
        raise UsageError(
            f"{arg('betas', '0,…')}: {optimizer} finds its average from β₁; choose β₁ above 0, such as 0.9"
        )
    if optimizer.family is Family.SCHEDULE_FREE and task.kinds:
        raise UsageError(f"{optimizer} averages its weights already; leave out {arg(task.kinds[0])}")
    if optimizer.family is Family.KFAC:
        _refuse_impossible_kfac(optimizer, task)


def _refuse_impossible_kfac(optimizer: Optimizer, task: Any) -> None:
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


def _refuse_sizes(task: Any, sizes: DataSet) -> None:
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
