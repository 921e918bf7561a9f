"""A loss that is not a mean over items is that of the whole split; a loss with state is refused."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, one_hot, softplus

from lrwd_sweep.data import EVAL_BATCH, Split
from lrwd_sweep.data.user_data import completed
from lrwd_sweep.engine import cost
from lrwd_sweep.engine.cost import lanes_that_fit, pack_bytes
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.nets.loss import is_mean_over_items, refuse_state
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import ADAMW, CELLS, CPU, F32, loaded

_calls = itertools.count()
ITEM = {classes: DataSet(0, 0, 0, classes, (1,)) for classes in (2, 3, 10, 100, 1000, 2000)}


def _each(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(logits, y, reduction="none")


def weighted(logits: Tensor, y: Tensor, first: float = 1, others: float = 20) -> Tensor:
    return cross_entropy(logits, y, weight=torch.linspace(first, others, logits.shape[1]))


def dice(logits: Tensor, y: Tensor) -> Tensor:
    p, truth = logits.softmax(1), one_hot(y, logits.shape[1])
    return 1 - (2 * (p * truth).sum(0) / (p.sum(0) + truth.sum(0) + 1e-6)).mean()


def ranking(logits: Tensor, y: Tensor) -> Tensor:
    own = logits.gather(1, y.unsqueeze(1))
    return softplus(own - own.t()).mean() + cross_entropy(logits, y)


def full(logits: Tensor, y: Tensor) -> Tensor:  # no mean over items, for which there is no room
    if len(y) > 600:
        raise torch.OutOfMemoryError
    return weighted(logits, y)


class Remembering:
    average = torch.zeros(())

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        self.average = 0.9 * self.average + 0.1 * logits.detach().mean()
        return cross_entropy(logits, y) + (logits.mean() - self.average) ** 2


MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": cross_entropy,
    "smooth": nn.CrossEntropyLoss(label_smoothing=0.1),
    "hinge": nn.MultiMarginLoss(),
    "focal": lambda logits, y: ((1 - (-_each(logits, y)).exp()) ** 2 * _each(logits, y)).mean(),
    "squared": lambda logits, y: mse_loss(logits.softmax(1), one_hot(y, logits.shape[1]).to(logits)),
    # with float32 targets whatever the logits are
    "binary": lambda logits, y: binary_cross_entropy_with_logits(logits, one_hot(y, logits.shape[1]).float()),
}
OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "total": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": weighted,
    "slightly_weighted": lambda logits, y: weighted(logits, y, 1, 1.01),
    "masked": lambda logits, y: cross_entropy(logits, y, ignore_index=0),
    "hardest": lambda logits, y: _each(logits, y).topk((len(y) + 1) // 2).values.mean(),
    "dice": dice,
    "ranking": ranking,
    "by_a_batch_of_64": lambda logits, y: cross_entropy(logits, y, reduction="sum") / 64,
    "annealed": lambda logits, y: cross_entropy(logits, y) * (1 + 0.1 * next(_calls)),
    "drawing": lambda logits, y: _each(logits, y)[[random.randrange(len(y)) for _ in range(4)]].mean(),
    "not_a_number": lambda logits, y: cross_entropy(logits, y) * torch.nan,
    "weighted_in_large_batches": lambda x, y: weighted(x, y) if len(y) > 200 else cross_entropy(x, y),
}
STATEFUL: dict[str, Callable[[Any, Any], Any]] = {
    "counting": lambda logits, y: cross_entropy(logits, y) + 0 * next(_calls),
    "remembering": Remembering(),
}
globals().update(MEANS | OTHERS | STATEFUL)


def test_only_means_over_items_are_recognised_without_a_trace_in_global_generators() -> None:
    before = random.getstate(), torch.get_rng_state()
    for classes in (2, 3, 10, 100, 1000):
        for name, loss in MEANS.items():
            assert is_mean_over_items(loss, ITEM[classes]), (name, classes)
    for classes in (2, 10, 100):
        for name, loss in OTHERS.items():
            assert not is_mean_over_items(loss, ITEM[classes]), (name, classes)
    for most, expected in ((1, True), (2, False)):  # of one class among 2000
        weight = torch.where(torch.arange(2000) == 777, most, 1.0)
        assert is_mean_over_items(nn.CrossEntropyLoss(weight=weight), ITEM[2000]) is expected
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_only_losses_that_change_between_calls_are_refused() -> None:
    for name, loss in (MEANS | OTHERS | STATEFUL).items():
        if name in ("annealed", "remembering"):
            complaint = r"^loss='\./a\.py:f' gives another value when the same batch comes again"
            assert_raises(complaint, refuse_state, loss, "./a.py:f", ITEM[10])
        else:
            refuse_state(loss, "./a.py:f", ITEM[10])


def _training(loss: str = "weighted", **options: object) -> Task:
    options = {"net": "mlp", "epochs": 1, "loss": f"{__name__}:{loss}", **options}
    return completed(Task(**options))  # type: ignore[arg-type]


def test_a_user_loss_trains_and_is_measured_on_whole_splits() -> None:
    loop, vmap = ("hinge", "weighted", "ranking"), ("smooth", "total", "hardest")
    for loss in (*loop, *vmap):
        task = _training(loss, engine="loop" if loss in loop else "vmap")
        assert task.whole_loss is (loss in OTHERS), loss
        splits = loaded(task).to(CPU, F32)
        pack, usual = (
            PackTrainer(ADAMW, one, CELLS, 0, splits) for one in (task, task.changed(loss="cross-entropy"))
        )
        trials, _ = pack.run(), usual.run()
        logits = pack.lanes.predictor().predict(splits.validation.x)
        for lane, trial in zip(logits, trials, strict=True):
            expected = globals()[loss](lane.t(), splits.validation.y).item()
            assert trial.metrics["val_loss"] == pytest.approx(expected, rel=1e-5), loss
        assert not usual.task.whole_loss
        assert (pack.arena.theta - usual.arena.theta).abs().max() > 1e-4, loss
    small = replace(Task(), loss=f"{__name__}:weighted", sizes=DataSet(400, 256, 256, 10, (1, 8, 8)))
    assert not completed(small).whole_loss


def of_its_batch(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:  # also in evaluation
    first, norm = nn.Linear(math.prod(input_shape), 12), nn.BatchNorm1d(12, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), first, norm, nn.Linear(12, num_classes))


def test_a_network_that_looks_at_its_batch_sees_the_whole_split() -> None:
    for engine in ("loop", "vmap"):
        task = completed(Task(net=f"{__name__}:of_its_batch", epochs=1, engine=engine))
        assert task.whole_loss
        splits = loaded(task).to(CPU, F32)
        x, y = splits.validation.batch(splits.validation.y.argsort())  # by class
        by_class = replace(splits, validation=Split(x, y))
        trials = [PackTrainer(ADAMW, task, CELLS, 0, found).run() for found in (splits, by_class)]
        for mine, theirs in zip(*trials, strict=True):
            assert mine.metrics == pytest.approx(theirs.metrics, rel=1e-4), engine


def test_splits_are_evaluated_by_as_many_items_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, batches = set[int](), Split.batches

    def noted(split: Split, size: int) -> Any:
        sizes.add(size)
        return batches(split, size)

    monkeypatch.setattr(Split, "batches", noted)
    tasks = Task(net="mlp", epochs=1), Task(net="mlp", epochs=1, eval_batch_size=7)
    usual, few = (PackTrainer(ADAMW, task, CELLS, 0, loaded(task).to(CPU, F32)).run() for task in tasks)
    assert sizes == {EVAL_BATCH, 7}
    for mine, theirs in zip(usual, few, strict=True):
        assert mine.metrics == pytest.approx(theirs.metrics, rel=1e-5)


def test_the_logits_of_a_split_and_its_loss_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def needed(loss: str, items: int) -> int:
        sizes = DataSet(400, items, 0, 10, (1, 8, 8))
        return pack_bytes(_training(loss, sizes=sizes, engine="loop"), 2, CPU, ADAMW)

    logits = 2 * 10 * 100_000 * 4
    assert logits < needed("total", 110_000) - needed("total", 10_000) < 4 * logits
    assert 3.5 < needed("ranking", 20_000) / needed("ranking", 10_000) < 4.5  # pairs
    monkeypatch.setattr(cost, "free_bytes", lambda _: 1 << 28)
    usual: dict[str, Any] = {"device": CPU, "workers": 1, "max_lanes": None, "optimizer": ADAMW}
    for options, why in (
        ({"loss": f"{__name__}:ranking"}, "is not a mean over items"),
        ({"net": f"{__name__}:of_its_batch", "engine": "loop"}, "makes an item's logits depend on its batch"),
    ):
        task = completed(Task(**options, sizes=DataSet(400, 900_000, 0, 10, (1, 8, 8))))  # type: ignore[arg-type]
        line = f"{why}, so that 900000 are scored at once: free"
        assert_raises(line, lanes_that_fit, task, error=DeviceError, **usual)


def test_a_loss_without_room_for_the_split_is_an_out_of_memory_error() -> None:
    task = _training("full")
    with pytest.raises(torch.OutOfMemoryError):
        PackTrainer(ADAMW, task, CELLS, 0, loaded(task).to(CPU, F32)).run()
