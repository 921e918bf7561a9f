"""A validation value is the loss of the whole split, whatever the loss and the order of its items."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lrwd_sweep.engine.packing import lanes_that_fit
from torch import Tensor, nn

from lrwd_sweep.data import Split, Splits, load
from lrwd_sweep.data.user_data import completed
from lrwd_sweep.engine import packing
from lrwd_sweep.engine.memory import alive_bytes
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.data.test_folder import write_images
from tests.nets import losses
from tests.specs import spec

CELLS = [Cell(0.01, 0.1), Cell(0.001, 0.01)]
CPU = torch.device("cpu")
ADAMW = Optimizer.parse("adamw")


def _training(loss: str = "weighted", **options: object) -> Task:
    options = {"net": "mlp", "epochs": 1, "loss": f"{losses.ITEMS}:{loss}", **options}
    return completed(Task(**options))  # type: ignore[arg-type]


def _by_class(split: Split) -> Split:
    order = split.y.argsort(stable=True)
    return Split(split.x[order], split.y[order], split.pixels)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("loss", ["weighted", "total", "hardest", "ranking", "dice"])
def test_the_order_of_a_split_makes_no_difference(loss: str, engine: str) -> None:
    task = _training(loss, engine=engine)
    splits = load(task.data, task.data_set).to(CPU, torch.float32)
    sorted_ = Splits(splits.train, _by_class(splits.validation), _by_class(splits.test))
    metrics = []
    for found in (splits, sorted_):
        pack = PackTrainer(ADAMW, task, CELLS, 0, found)
        metrics.append([trial.metrics for trial in pack.run()])
        logits = pack.lanes.predictor().predict(found.validation.x)
        for lane, trial in zip(logits, metrics[-1], strict=True):
            whole = getattr(losses, loss)(lane.t(), found.validation.y).item()
            assert trial["val_loss"] == pytest.approx(whole, rel=1e-5)
    for one, other in zip(*metrics, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_an_image_folder_which_lies_by_class_is_scored_at_once(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "train" / name, 6, side=8, seed=k)
        write_images(tmp_path / "val" / name, (270, 30)[k], side=8, seed=2 + k)
    task = _training(data=f"folder:{tmp_path}@8", batch_size=4)
    splits = load(task.data, task.data_set).to(CPU, torch.float32)
    pack = PackTrainer(ADAMW, task, CELLS, 0, splits)
    (trial, _) = pack.run()
    x, y = next(splits.validation.batches(300))
    logits = pack.lanes.predictor().predict(x)[0].t()
    assert trial.metrics["val_loss"] == pytest.approx(losses.weighted(logits, y).item(), rel=1e-5)
    parts = [
        len(part) * losses.weighted(logits[part], y[part]).item() for part in (range(256), range(256, 300))
    ]
    assert trial.metrics["val_loss"] != pytest.approx(sum(parts) / 300, rel=1e-2)  # as it would be in batches


class OfItsBatch(nn.Module):
    """Normalised by the batch at hand in evaluation too."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(input_shape), 12),
            nn.BatchNorm1d(12, track_running_stats=False),
            nn.Linear(12, num_classes),
        )

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_network_that_looks_at_its_batch_sees_the_whole_split(engine: str) -> None:
    task = completed(Task(net=f"{__name__}:OfItsBatch", epochs=1, engine=engine))
    assert task.whole_loss
    splits = load(task.data, task.data_set).to(CPU, torch.float32)
    sorted_ = Splits(splits.train, _by_class(splits.validation), _by_class(splits.test))
    one, other = (
        [trial.metrics for trial in PackTrainer(ADAMW, task, CELLS, 0, found).run()]
        for found in (splits, sorted_)
    )
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_network_without_room_for_the_split_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1 << 28)
    sizes = DataSet(400, 900_000, 0, 10, (1, 8, 8))
    task = completed(replace(Task(net=f"{__name__}:OfItsBatch", engine="loop"), sizes=sizes))
    with pytest.raises(DeviceError, match=r"depend on its batch, so that 900000 are scored at once: free"):
        lanes_that_fit(task, device=CPU, workers=1, max_lanes=None, optimizer=ADAMW)


def test_only_losses_that_need_it_are_scored_at_once() -> None:
    assert not _training("smooth").whole_loss
    assert _training("weighted").whole_loss
    small = replace(Task(), loss=f"{losses.ITEMS}:weighted", sizes=DataSet(400, 256, 256, 10, (1, 8, 8)))
    assert not completed(small).whole_loss
    assert not _training("weighted").changed(loss="cross-entropy").whole_loss


def test_a_study_whose_batches_were_averaged_is_another_one() -> None:
    task = _training("weighted")
    now = replace(spec(), task=task)
    before = replace(spec(), task=replace(task, whole_loss=False))
    assert before.differences(now) == [
        "val_loss and test_loss: averaged over batches, the loss of all items at once"
    ]
    assert not now.differences(type(now).from_dict(now.to_dict()))


def _peak(loss: str, items: int) -> int:
    sizes = DataSet(400, items, 0, 10, (1, 8, 8))
    return alive_bytes(_training(loss, sizes=sizes, engine="loop"), 2, CPU, ADAMW)


def test_the_logits_of_a_split_are_counted_and_what_a_loss_makes_of_them() -> None:
    few, more = (_peak("total", items) for items in (10_000, 110_000))
    logits = 2 * 10 * 100_000 * 4
    assert logits < more - few < 4 * logits
    few, more = (_peak("ranking", items) for items in (10_000, 20_000))
    assert 3.5 < more / few < 4.5  # pairs


def test_a_split_too_large_to_be_scored_at_once_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1 << 30)
    task = _training("ranking", sizes=DataSet(400, 50_000, 0, 10, (1, 8, 8)))
    with pytest.raises(DeviceError, match=r"is no mean over items, so that 50000 are scored at once: free"):
        lanes_that_fit(task, device=CPU, workers=1, max_lanes=None, optimizer=ADAMW)


def test_a_loss_without_room_for_the_split_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(logits: Tensor, y: Tensor) -> Tensor:
        raise torch.OutOfMemoryError if len(y) > 256 else ValueError

    task = _training("weighted", net="mlp")
    splits = load(task.data, task.data_set).to(CPU, torch.float32)
    pack = PackTrainer(ADAMW, task, CELLS, 0, splits)
    monkeypatch.setattr(losses, "weighted", full)
    pack.loss = replace(pack.loss, thing=full)  # type: ignore[type-var]
    with pytest.raises(torch.OutOfMemoryError):
        pack.evaluate(splits.validation)
