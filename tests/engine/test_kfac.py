"""K-FAC: lanes equal lone runs and do not mix, damping makes it SGD, and what has no factors is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lrwd_sweep.errors import UsageError
from lrwd_sweep.lab.verify.lone_runs import SIZES, apart, made_up_splits
from lrwd_sweep.nets import network
from lrwd_sweep.optim import FactoredLayer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.small import CPU, F64, ILL, WELL, pack, splits, task

KFAC = Optimizer.parse("kfac")
CELLS = (Cell(0.03, 0.01), Cell(0.003, 0.1))
IMAGES = replace(SIZES, shape=(1, 8, 8))
TIMES: dict[str, Any] = {"accumulate": 2, "swa": 1, "ema": 1.0}


class Grouped(nn.Module):  # a convolution in groups, and a weight of its own between ordinary layers
    def __init__(self, groups: int = 1, scaled: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, groups=groups)
        self.body = nn.Sequential(*self.conv, nn.Flatten(), nn.Linear(32, 4))
        self.scale = nn.Parameter(torch.ones(4)) if scaled else 1.0

    def forward(self, x: torch.Tensor) -> Any:
        return self.scale * self.body(x)


def test_lanes_equal_lone_runs_that_solve_with_their_factors() -> None:
    for net, name, fields in (
        ("tests.nets.awkward:Convolving", "kfac", TIMES),
        ("cnn-norm", "kfacw", {"inverse_interval": 3, "factor_ema": 0.5, "momentum": 0.0}),
        ("tests.nets.awkward:Dropping", "kfacw:lr-scaled", {}),
    ):
        of = Task(net=net, sizes=IMAGES, epochs=2, batch_size=16, **{"damping": 0.1} | fields)
        assert apart(name, of, CELLS, made_up_splits(IMAGES, CPU)) < 1e-10, (net, name, fields)


def test_a_lane_has_the_same_bits_beside_one_that_diverges() -> None:
    for net in ("mlp-norm", "cnn"):
        of = task(net)
        both = pack("kfacw", of, [ILL, WELL[0], WELL[1]]).run()
        assert [trial.status for trial in both] == [Status.DIVERGED, Status.COMPLETE, Status.COMPLETE], net
        assert both[1:] == [*pack("kfacw", of, [WELL[0]]).run(), *pack("kfacw", of, [WELL[1]]).run()], net


def test_a_large_damping_leaves_sgd_scaled_by_it() -> None:
    damping, found = 1e10, []
    for name, scale, own in (
        ("kfac", damping, {"damping": damping}),
        ("sgd", 1.0, {"momentum_form": "torch"}),
    ):
        cells = [Cell(scale * cell.lr, cell.weight_decay) for cell in WELL]
        trainer = pack(name, task("cnn", engine="loop", **own), cells, data=splits(F64))
        trainer.run()
        found.append(trainer.arena.theta)
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4)
    assert not torch.equal(found[0], found[1])


def test_layers_and_their_biases_are_found_by_their_calls() -> None:
    mlp = [("weight1", "", 64, 128), ("weight2", "", 128, 128), ("weight3", "", 128, 4), ("", "bias", 0, 4)]
    convolving = [
        ("body.0.weight", "body.0.bias", 9, 3),
        ("body.2.weight", "", 9, 4),
        ("body.5.weight", "body.5.bias", 64, 6),
        ("head.weight", "", 6, 4),
        ("", "bias", 0, 4),
    ]
    for net, layers in (("mlp-norm", mlp), ("mlp", mlp), ("tests.nets.awkward:Convolving", convolving)):
        found = network(task(net).of(KFAC)).factored  # type: ignore[attr-defined]
        assert found == tuple(FactoredLayer(*layer) for layer in layers), net


def test_what_has_no_factors_is_refused_with_its_name() -> None:
    here = "tests.engine.test_kfac:Grouped"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"net": "resnet20"}, r"the layer \S+ \(BatchNorm2d\)"),
        (
            {"net": "tests.nets.awkward:Normed"},
            r"the parameter norm.weight of the layer norm \(BatchNorm2d\)",
        ),
        ({"net": "tests.nets.awkward:Tied"}, r"up.weight of the layer up \(Linear\) 2 times"),
        ({"net": here}, r"trains the parameter scale of Grouped"),
        ({"net": here, "net_options": '{"groups": 2, "scaled": false}'}, r"the layer body.1 \(Conv2d\)"),
        ({"engine": "vmap"}, "vmap' does not compute the factors of kfac; choose auto or loop"),
        ({"sam": 0.1}, "SAM to another point; leave it out"),
        ({"damping": 0.0}, "leaves singular factors; choose more than 0"),
        (
            {"loss": "tests.nets.test_loss:binary"},
            "samples a class for every item from the network's softmax",
        ),
    ]
    for fields, why in cases:
        with pytest.raises(UsageError, match=why):
            network(task(**fields).of(KFAC))
