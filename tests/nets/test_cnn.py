"""The convolutional network written for lanes is the module, whatever the image and the pack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine.trainer import PackTrainer
from lrwd_sweep.nets.cnn import CnnLanes
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.catalog import DataSet
from tests.nets.conftest import task

CELLS = [Cell(0.002, 1e-2), Cell(0.001, 0.1), Cell(0.0005, 0.0)]
ADAMW, SGDW = Optimizer.parse("adamw"), Optimizer.parse("sgdw")
SHAPES = [(1, 8, 8), (3, 9, 12), (2, 16, 10)]


def _splits(shape: tuple[int, ...], dtype: torch.dtype) -> Splits:
    stream = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        x = torch.randn(count, *shape, generator=stream, dtype=torch.float64)
        return Split(x, torch.arange(count) % 4).to(torch.device("cpu"), dtype)

    return Splits(split(48), split(20), split(20))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("net", ["cnn-norm", "cnn"])
def test_lanes_are_the_modules(net: str, shape: tuple[int, ...]) -> None:
    request = task(net, epochs=5, sizes=DataSet(train=48, validation=20, test=20, classes=4, shape=shape))
    splits = _splits(shape, torch.float64)
    native, loop = (
        PackTrainer(ADAMW, replace(request, engine=engine), CELLS, 3, splits) for engine in ("native", "loop")
    )
    assert isinstance(native.lanes, CnnLanes)
    assert isinstance(loop.lanes, LoopLanes)
    for one, other in zip(native.run(), loop.run(), strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-9)
        for name, curve in one.curves.items():
            assert curve == pytest.approx(other.curves[name], abs=1e-9)
    for name, value in native.arena.named.items():
        torch.testing.assert_close(value, loop.arena.named[name], rtol=0, atol=1e-9)


def test_lane_keeps_every_bit_in_packs_of_any_size(tiny32: Splits) -> None:
    request, cells = task("cnn-norm", engine="native"), [*CELLS, *CELLS, *CELLS]
    whole = PackTrainer(ADAMW, request, cells, 0, tiny32)
    trials = whole.run()
    for lane, cell in enumerate(CELLS):
        alone = PackTrainer(ADAMW, request, [cell], 0, tiny32)
        assert alone.run()[0].curves == trials[lane].curves
        assert torch.equal(alone.arena.theta[0], whole.arena.theta[lane])


def test_neighbours_of_a_diverged_lane_keep_every_bit(tiny32: Splits) -> None:
    request = task("cnn", epochs=3, engine="native")
    well = [Cell(0.1, 1e-3), Cell(0.02, 1e-2), Cell(0.05, 0.0)]
    expected = PackTrainer(SGDW, request, well, 0, tiny32).run()
    for place in range(3):
        mixed = [Cell(1e38, 1e-3) if lane == place else cell for lane, cell in enumerate(well)]
        trials = PackTrainer(SGDW, request, mixed, 0, tiny32).run()
        assert trials[place].status is Status.DIVERGED
        for lane in {0, 1, 2} - {place}:
            assert trials[lane] == expected[lane], (place, lane)


def test_products_of_bfloat16_follow_those_of_float32(tiny32: Splits) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        request = task("cnn-norm", epochs=3, engine="native", precision=precision)
        trainer = PackTrainer(ADAMW, request, CELLS, 0, tiny32)
        losses[precision] = torch.tensor([trial.metrics["val_loss"] for trial in trainer.run()])
        assert trainer.arena.theta.dtype is torch.float32
    assert not torch.equal(losses["float32"], losses["bfloat16"])
    torch.testing.assert_close(losses["float32"], losses["bfloat16"], rtol=0.03, atol=0)
