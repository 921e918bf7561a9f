"""Stacked lanes of a module do not see each other, and neither predicting nor a neighbour changes them."""

from __future__ import annotations

import pytest
import torch

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.trainer import PackTrainer
from lrwd_sweep.nets.vmap import VmapLanes
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.nets.conftest import task

SGDW = Optimizer.parse("sgdw")
WELL = [Cell(0.1, 1e-3), Cell(0.02, 1e-2), Cell(0.05, 0.0)]
NETS = ["mlp", "cnn", "tests.nets.awkward:Normed", "tests.nets.awkward:Dropping"]


def _task(net: str) -> Task:
    return task(net, 3, engine="vmap")


def _lanes(trainer: PackTrainer) -> VmapLanes:
    assert isinstance(trainer.lanes, VmapLanes)
    return trainer.lanes


@pytest.mark.parametrize("net", NETS)
def test_neighbours_of_a_diverged_lane_keep_every_bit(net: str, tiny32: Splits) -> None:
    without = PackTrainer(SGDW, _task(net), WELL, 0, tiny32)
    expected = without.run()
    for place in range(3):
        mixed = [Cell(1e38, 1e-3) if lane == place else cell for lane, cell in enumerate(WELL)]
        with_ill = PackTrainer(SGDW, _task(net), mixed, 0, tiny32)
        trials = with_ill.run()
        assert trials[place].status is Status.DIVERGED
        for lane in {0, 1, 2} - {place}:
            assert trials[lane] == expected[lane], (place, lane)
            assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane]), (place, lane)
            for name, value in _lanes(without).buffers.items():
                assert torch.equal(_lanes(with_ill).buffers[name][lane], value[lane]), (place, lane, name)


@pytest.mark.parametrize("net", NETS)
def test_repeated_training_gives_the_same_bits(net: str, tiny32: Splits) -> None:
    first, again = (PackTrainer(SGDW, _task(net), WELL, 2, tiny32).run() for _ in range(2))
    assert first == again


def test_prediction_changes_nothing(tiny32: Splits) -> None:
    trainer = PackTrainer(SGDW, _task("tests.nets.awkward:Normed"), WELL, 0, tiny32)
    trainer.run()
    before = {name: value.clone() for name, value in _lanes(trainer).buffers.items()}
    first = trainer.lanes.predictor().predict(tiny32.test.x)
    assert first.shape == (3, 4, 20)
    assert torch.equal(first, trainer.lanes.predictor().predict(tiny32.test.x))
    assert all(torch.equal(value, before[name]) for name, value in _lanes(trainer).buffers.items())


def test_packs_share_no_module(tiny32: Splits) -> None:
    a, b = (PackTrainer(SGDW, _task("cnn"), WELL, 0, tiny32) for _ in range(2))
    assert _lanes(a).module is not _lanes(b).module
    assert not {id(layer) for layer in _lanes(a).module.modules()} & {
        id(layer) for layer in _lanes(b).module.modules()
    }
