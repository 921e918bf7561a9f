"""On a GPU, steps are recorded, nothing waits for the host, and lanes equal those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU = torch.device("cuda", 0)
CELLS = [Cell(0.002, 1e-3), Cell(0.01, 0.05)]
NETS = [("mlp-norm", "native"), ("cnn-norm", "native"), ("resnet20", "vmap"), ("shake26-2x32d", "loop")]


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Restore the mode in which waiting for the device raises."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def _trainer(task: Task, splits: Splits, device: torch.device, name: str = "adamw") -> PackTrainer:
    return PackTrainer(Optimizer.parse(name), task, CELLS, 0, splits.to(device, splits.train.dtype))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # a prototype
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("net", "engine"), NETS)
def test_an_epoch_is_replayed_without_waiting(
    net: str, engine: str, precision: str, digits32: Splits, no_waiting: None
) -> None:
    task = Task(net=net, engine=engine, precision=precision, batch_size=20, augment="crop-flip")
    pack, order = _trainer(task, digits32, GPU), torch.arange(400, device=GPU)
    with current(GPU):
        program = pack.prepared(order)
        assert program.replay is not None
        torch.cuda.set_sync_debug_mode("error")
        while program.done < task.steps_per_epoch:
            program.go(task.steps_per_epoch)
        torch.cuda.set_sync_debug_mode("default")
        assert bool(program.theta.isfinite().all())
        assert int(program.t) == task.steps_per_epoch


@pytest.mark.parametrize("name", ["sgd", "adamw", "amsgradw", "adagradw", "rmspropw", "sgdp", "adamp"])
@pytest.mark.parametrize(("net", "engine"), [("mlp-norm", "native"), ("cnn-norm", "native"), ("cnn", "loop")])
def test_a_lane_equals_that_of_the_cpu(net: str, engine: str, name: str, digits64: Splits) -> None:
    task = Task(net=net, engine=engine, epochs=2)
    here, there = (_trainer(task, digits64, device, name).run() for device in (torch.device("cpu"), GPU))
    for one, other in zip(here, there, strict=True):
        for metric, value in one.metrics.items():
            assert other.metrics[metric] == pytest.approx(value, rel=1e-6)
