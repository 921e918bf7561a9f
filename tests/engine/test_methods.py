"""SAM, averages, snapshot ensembles and K-FAC: lanes equal lone runs and do not mix."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lrwd_sweep.engine.sharpness import ascend
from lrwd_sweep.errors import UsageError
from lrwd_sweep.lab.verify.lone_runs import CELLS, SIZES, apart, made_up_splits
from lrwd_sweep.nets import network
from lrwd_sweep.nets.mlp import MlpLanes
from lrwd_sweep.nets.mlp_numba import NumbaMlpLanes
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.nets.awkward import Base
from tests.small import CPU, ILL, WELL, pack, task

Fields = dict[str, Any]
SAM: Fields = {"sam": 0.05}
ASAM: Fields = {"sam": 0.3, "sam_adaptive": True}
RESTARTS: Fields = {"schedule": "restarts", "t_0": 1, "t_mult": 2}
EVERY: Fields = {"swa": 0.3, "ema": 0.7, "ensemble": 2} | RESTARTS
IMAGES = replace(SIZES, shape=(1, 8, 8))

AWKWARD = "tests.nets.awkward:"
KFAC: Fields = {"momentum_form": "paper", "epochs": 2, "damping": 0.1}

LONE: list[tuple[str, str, str, Fields]] = [  # beyond `verify`: network, engine, optimizer, fields
    ("mlp-norm", "native", "adamw:lr-scaled", SAM | {"swa": 2, "ema": 1}),
    ("mlp-norm", "native", "sgd", ASAM | {"clip_norm": 0.2, "accumulate": 2}),
    ("mlp", "loop", "adamw:lr-scaled", SAM | {"accumulate": 2, "ema": 2.5, "clip_norm": 0.1}),
    ("cnn", "native", "sgd", SAM | {"swa": 0.5}),
    ("cnn-norm", "loop", "adamw:lr-scaled", ASAM | EVERY),
    ("embed-norm", "vmap", "adamw:lr-scaled", SAM | EVERY),
    (f"{AWKWARD}Normed", "vmap", "sgd", SAM | EVERY),
    (f"{AWKWARD}Dropping", "loop", "sgd", SAM),  # the same units are dropped in both passes
    (f"{AWKWARD}Convolving", "loop", "kfac", KFAC | {"accumulate": 2, "swa": 1, "ema": 1.0}),
    ("cnn-norm", "loop", "kfacw", KFAC | {"inverse_interval": 3, "factor_ema": 0.5, "momentum": 0.0}),
    (f"{AWKWARD}Dropping", "loop", "kfacw:lr-scaled", KFAC),
]


def test_lane_equals_a_lone_run_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for k, (net, engine, name, fields) in enumerate([*LONE, *LONE[:2]]):
        if k == len(LONE):
            monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
        sizes = SIZES if net.startswith("mlp") else IMAGES
        usual: Fields = {"epochs": 3, "batch_size": 16, "momentum_form": "torch"}
        of = Task(net=net, engine=engine, sizes=sizes, **usual | fields)
        assert apart(name, of, CELLS, made_up_splits(sizes, CPU)) < 1e-10, (net, engine, name, fields)
        if net == "mlp-norm":
            kind = type(pack(name, of, CELLS, data=made_up_splits(sizes, CPU)).lanes)
            assert kind is (MlpLanes if k >= len(LONE) else NumbaMlpLanes)


def test_without_ascent_and_beside_averages_the_training_is_the_same_to_the_bit() -> None:
    own = [("Normed", "vmap"), ("Dropping", "loop"), ("Dropping", "vmap"), ("Remembering", "loop")]
    cases = [("mlp-norm", "native"), ("cnn", "native"), ("cnn-norm", "loop")]
    for net, engine in [*cases, *((f"{AWKWARD}{name}", engine) for name, engine in own)]:
        of = task(net, 3, engine=engine, augment="crop-flip" if net == "cnn" else "none", **RESTARTS)
        plain = pack("sgdw", of, WELL).run()
        if "Remembering" not in net:  # its outputs depend on how often it was called
            nowhere = pack("sgdw", replace(of, sam=1e-300), WELL)  # too small to move a weight
            assert repr(nowhere.run()) == repr(plain), net
        averaged = pack("sgdw", replace(of, **EVERY), WELL).run()
        for one, more in zip(plain, averaged, strict=True):
            assert {name: more.curves[name] for name in one.curves} == one.curves, net
            for found, extended in ((one.metrics, more.metrics), (one.snapshots[3], more.snapshots[3])):
                assert {name: extended[name] for name in found} == found, net
        assert {"swa_val_loss", "ema_test_error", "ensemble_val_error"} <= averaged[0].metrics.keys(), net
    assert Task(sam=0.0).to_dict() == Task().to_dict()


def test_diverged_lane_leaves_its_neighbours_to_the_bit() -> None:
    none: Fields = {}
    for name, net, engine, fields in (
        ("sgdw", "mlp-norm", "native", ASAM | EVERY),
        ("sgdw", "cnn", "loop", SAM | EVERY),
        ("sgdw", f"{AWKWARD}Dropping", "vmap", SAM | EVERY),
        *(("kfacw", net, "auto", none) for net in ("mlp-norm", "cnn")),
    ):
        of = task(net, 3, engine=engine, **fields)
        alone = pack(name, of, WELL[:2]).run()
        trainer = pack(name, of, [ILL, *WELL[:2]])
        first, *others = trainer.run()
        assert repr(others) == repr(alone), (name, net)
        assert first.status is Status.DIVERGED, (name, net)
        assert name == "kfacw" or trainer.arena.theta.isfinite().all(), (name, net)


def test_ascent_leaves_lanes_whose_gradients_are_zero_or_not_finite() -> None:
    theta = torch.linspace(-1, 1, 20).view(4, 5)
    g = torch.tensor([3.0, -4, 0, 0, 0]) * torch.tensor([[1e-15], [1e18], [0], [math.nan]])
    for adaptive in (False, True):
        ascend(moved := theta.clone(), g, 0.5, adaptive=adaptive)
        t_w = theta.abs() + 0.01 if adaptive else 1.0
        lengths = ((moved - theta) / t_w)[:2].norm(dim=1)  # ASAM: ‖T_w⁻¹ ε‖ = ρ
        assert torch.allclose(lengths, torch.tensor(0.5), atol=1e-4)
        assert torch.equal(moved[2:], theta[2:])


def test_metrics_of_averages_begin_with_their_first_weights() -> None:
    (trial,) = pack("adamw", task("mlp-norm", 5, swa=3, ema=1, eval_every=1), CELLS[:1]).run()
    assert list(map(math.isfinite, trial.curves["swa_val_loss"])) == [False, False, True, True, True]
    assert all(map(math.isfinite, trial.curves["ema_val_error"]))
    assert trial.metrics["swa_val_loss"] == trial.curves["swa_val_loss"][-1] != trial.metrics["val_loss"]
    (trial,) = pack("adamw", task("mlp", 7, swa=2, ensemble=3, **RESTARTS), CELLS[:1]).run()  # 1, 3, 7
    assert ["swa_val_loss" in found for found in trial.snapshots.values()] == [False, True, True]
    first, *_, last = trial.snapshots.values()
    assert first["ensemble_val_loss"] == pytest.approx(first["val_loss"], rel=1e-6)
    assert last == trial.metrics
    assert last["ensemble_val_loss"] != last["val_loss"]


class Scaled(Base):  # a weight of its own after an ordinary layer
    def make(self) -> None:
        self.head, self.scale = nn.Linear(64, 4), nn.Parameter(torch.ones(4))

    def logits(self, x: torch.Tensor) -> Any:
        return self.scale * self.head(x)


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(32, 4))


def test_what_has_no_factors_is_refused_with_its_name() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"net": "resnet20"}, r"the layer \S+ \(BatchNorm2d\)"),
        ({"net": f"{AWKWARD}Normed"}, r"parameter norm.weight of the layer norm \(BatchNorm2d\)"),
        ({"net": f"{AWKWARD}Tied"}, r"up.weight of the layer up \(Linear\) 2 times"),
        ({"net": f"{__name__}:Scaled"}, r"trains the parameter scale of Scaled"),
        ({"net": f"{__name__}:grouped"}, r"the layer 1 \(Conv2d\)"),
        ({"engine": "vmap"}, "vmap' does not compute the factors of kfac; choose auto or loop"),
        ({"sam": 0.1}, "SAM to another point; leave it out"),
        ({"damping": 0.0}, "leaves singular factors; choose more than 0"),
        ({"loss": "tests.nets.test_loss:binary"}, "samples a class for every item from the network's soft"),
    ]
    for fields, why in cases:
        with pytest.raises(UsageError, match=why):
            network(task(**fields).of(Optimizer.parse("kfac")))
