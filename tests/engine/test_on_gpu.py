"""On a GPU, steps are recorded, nothing waits for the host, and lanes equal those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.small import CELLS, CPU, F64, splits, task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU = torch.device("cuda", 0)
NETS = [("mlp-norm", "native"), ("cnn-norm", "native"), ("resnet20", "vmap"), ("shake26-2x32d", "loop")]


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Restore the mode in which waiting for the device raises."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def _trainer(of: Task, data: Splits, device: torch.device, name: str = "adamw") -> PackTrainer:
    return PackTrainer(Optimizer.parse(name), of, CELLS, 0, data.to(device, data.train.dtype))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # a prototype
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("net", "engine"), NETS)
def test_an_epoch_is_replayed_without_waiting(
    net: str, engine: str, precision: str, no_waiting: None
) -> None:
    of = task(net, engine=engine, precision=precision, batch_size=8, augment="crop-flip")
    pack, order = _trainer(of, splits(), GPU), torch.arange(48, device=GPU)
    with current(GPU):
        program = pack.prepared(order)
        assert program.replay is not None
        torch.cuda.set_sync_debug_mode("error")
        while program.done < of.steps_per_epoch:
            program.go(of.steps_per_epoch)
        torch.cuda.set_sync_debug_mode("default")
        assert bool(program.theta.isfinite().all())
        assert int(program.t) == of.steps_per_epoch


@pytest.mark.parametrize(("net", "engine"), [("mlp-norm", "native"), ("cnn-norm", "native"), ("cnn", "loop")])
def test_a_lane_equals_that_of_the_cpu(net: str, engine: str) -> None:
    for name in ("sgd", "adamw", "amsgradw", "adagradw", "rmspropw", "sgdp", "adamp"):
        of = task(net, engine=engine)
        here, there = (_trainer(of, splits(F64), device, name).run() for device in (CPU, GPU))
        for one, other in zip(here, there, strict=True):
            for metric, value in one.metrics.items():
                assert other.metrics[metric] == pytest.approx(value, rel=1e-6), (name, metric)
