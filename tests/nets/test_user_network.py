"""User networks and losses train as under torch.optim; what would not is named in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.nets import network
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.net_options import options_text
from tests.nets.awkward import Base
from tests.small import CELLS, F64, SGDW, WELL, splits, task

HERE = "tests.nets.test_user_network"


def sized(num_classes: int, input_shape: tuple[int, ...], width: int = 3, depth: int = 1) -> nn.Module:
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    hidden = [nn.Linear(width, width) for _ in range(depth)]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), *hidden, nn.Linear(width, num_classes))


def test_factory_gets_sizes_and_options() -> None:
    found = network(task(f"{HERE}:sized", net_options=options_text({"width": 5, "depth": 2}))).shapes
    assert list(found.values()) == [(5, 64), (5,), (5, 5), (5,), (5, 5), (5,), (4, 5), (4,)]
    with pytest.raises(UnknownName, match=r"unknown option of net='.*:sized' 'widht'; did you mean width\?"):
        network(task(f"{HERE}:sized", net_options=options_text({"widht": 5})))


def test_native_is_refused_for_networks_without_it() -> None:
    complaint = r"engine='native' is not written for resnet20; choose auto, vmap or loop"
    with pytest.raises(UsageError, match=complaint):
        network(task("resnet20", engine="native"))
    with pytest.raises(UsageError, match="not written for a loss other than cross-entropy"):
        network(task("mlp", engine="native", loss=f"{HERE}:smoothed"))


class Two(Base):  # two heads, both of which train
    def make(self) -> None:
        self.a, self.b = nn.Linear(64, 4), nn.Linear(64, 4)
        self.steps = 0

    def forward(self, x: Tensor) -> Any:
        self.steps += self.training
        return super().forward(x)

    def logits(self, x: Tensor) -> Any:
        return self.a(x) + self.b(x)


def _thaw(net: Any, x: Tensor) -> Any:  # the second head trains from the fifth step on
    net.b.requires_grad_(net.steps > 4)
    return Two.logits(net, x)


def _assign(net: Any, x: Tensor) -> Any:  # normalised weights, each time in new memory
    net.b.weight.data = functional.normalize(net.b.weight.data)
    return Two.logits(net, x)


STRANGE: dict[str, Callable[..., Any]] = {  # a class's name → its logits
    "Late": lambda net, x: Two.logits(net, x) if net.steps > 4 else net.a(x),
    "Early": lambda net, x: Two.logits(net, x) if net.steps < 5 else net.a(x),
    "Thawing": _thaw,
    "ByValues": lambda net, x: net.a(x) if x.min() >= 0 else net.b(x),
    "Assigning": _assign,
    "AssigningToEvaluate": lambda net, x: Two.logits(net, x) if net.training else _assign(net, x),
}
globals().update({name: type(name, (Two,), {"logits": logits}) for name, logits in STRANGE.items()})
UNLIKE_TORCH = (
    ("Late", "loop", r"b\.weight of Late has a gradient, and had none .*; use it in every step"),
    ("Late", "vmap", r"b\.weight of Late has a gradient, and had none"),
    ("Thawing", "loop", r"b\.weight of Thawing has a gradient, and had none"),
    ("Early", "loop", r"b\.weight of Early has no gradient at a step, .*; use it in every step"),
    ("Early", "vmap", r"b\.weight of Early has no gradient at a step"),
    ("ByValues", "loop", r"a\.weight of ByValues has no gradient at a step"),
    ("Assigning", "loop", r"b\.weight of Assigning is not where .* by \.data\.copy_\(\)"),
    ("AssigningToEvaluate", "loop", r"b\.weight of AssigningToEvaluate is not where"),
)


def test_parameters_that_would_not_train_as_under_torch_optim_are_named() -> None:
    for name, engine, complaint in UNLIKE_TORCH:
        trainer = PackTrainer(SGDW, task(f"{HERE}:{name}", engine=engine), WELL, 0, splits())
        with pytest.raises(UsageError, match=rf"the parameter {complaint}"):  # which names the class
            trainer.run()


class Finite(Two):  # raises if a number is not finite
    def logits(self, x: Tensor) -> Any:
        h = super().logits(x)
        masked = torch.where(x[:, :4] < 0, -torch.inf, h).softmax(1).nan_to_num()
        if not h.isfinite().all():
            raise ValueError("not finite")
        return h + 0.1 * masked


class FiniteToEvaluate(Two):  # raises so only in evaluation
    def logits(self, x: Tensor) -> Any:
        h = super().logits(x)
        if not self.training and not h.isfinite().all():
            raise ValueError("not finite")
        return h


class Faulty(Finite):  # raises on finite numbers
    def logits(self, x: Tensor) -> Any:
        if self.steps > 4:
            raise ValueError("a mistake")
        return super().logits(x)


def test_exception_ends_a_lane_only_if_the_lane_has_diverged() -> None:
    for name in ("Finite", "FiniteToEvaluate"):
        train = partial(PackTrainer, SGDW, task(f"{HERE}:{name}", engine="loop"))
        trials = train([WELL[0], Cell(1e38, 1e-3), WELL[1]], 0, splits()).run()
        assert trials[1].status is Status.DIVERGED, name
        assert [trials[0], trials[2]] == train(WELL[:2], 0, splits()).run(), name
    trainer = PackTrainer(SGDW, task(f"{HERE}:Faulty", engine="loop"), WELL, 0, splits())
    with pytest.raises(ValueError, match="a mistake"):
        trainer.run()


def test_error_in_training_is_blamed_on_the_network_that_raised_it() -> None:
    name = f"{HERE}:Finite"
    with pytest.raises(ValueError, match="not finite") as theirs:
        Finite()(torch.full((2, 64), torch.nan))
    found = blamed(name, theirs.value)
    assert found is not None
    assert f"net='{name}' raised in training: ValueError" in str(found)
    assert blamed("cnn", theirs.value) is None
    assert blamed(name, UsageError("said already")) is None
    assert blamed(name, ValueError("ours")) is None


def broken(logits: Tensor, y: Tensor) -> Tensor:
    raise KeyError(len(y))


smoothed = nn.CrossEntropyLoss(label_smoothing=0.3)
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "per_class": lambda logits, y: logits.mean(0),
    "detached": lambda logits, y: smoothed(logits, y).detach(),
    "noisy": lambda logits, y: smoothed(logits + torch.randn_like(logits), y),
}
globals().update(LOSSES)


class Focal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(2.0))

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        p = logits.softmax(1).gather(1, y.unsqueeze(1))
        return -((1 - p) ** self.gamma * p.log()).mean()


FOCAL = Focal()
REFUSED = {
    "per_class": r"the loss is a tensor of shape \(4,\), not one number for a batch or for every item",
    "detached": "does not depend on any parameter",
    "noisy": "the loss draws random numbers",
    "broken": r" raised KeyError: 8 \(test_user_network.py, line \d+\)",
    "Focal": " is a class; name an instance, or a function of outputs and targets",
    "FOCAL": " has parameters, which would not train; move them to the network",
}


def test_invalid_losses_are_refused_in_one_line() -> None:
    for net in ("mlp", "cnn", "tests.nets.awkward:Normed"):
        for loss, complaint in REFUSED.items():
            with pytest.raises(UsageError) as refused:
                network(task(net, loss=f"{HERE}:{loss}"))
            assert re.match(rf"loss='{HERE}:{loss}'.*{complaint}", str(refused.value)), (net, loss)
    with pytest.raises(UnknownName, match=f"unknown name in {HERE} 'absent'"):
        network(task("mlp", loss=f"{HERE}:absent"))


def test_user_loss_trains_and_measures() -> None:
    rule = Optimizer.parse("adamw:lr-scaled")
    for net in ("mlp", "tests.nets.awkward:Normed"):
        for engine in ("loop", "vmap"):
            request = task(net, 5, engine=engine, loss=f"{HERE}:smoothed")
            trainer = PackTrainer(rule, request, CELLS, 0, splits(F64))
            trials = trainer.run()
            plain = PackTrainer(rule, replace(request, loss="cross-entropy"), CELLS, 0, splits(F64))
            plain.run()
            assert (trainer.arena.theta - plain.arena.theta).abs().max() > 1e-4, (net, engine)
            with torch.inference_mode():
                logits = trainer.lanes.predictor().predict(splits(F64).validation.x)
            for lane, trial in zip(logits, trials, strict=True):
                expected = smoothed(lane.t(), splits(F64).validation.y).item()
                assert trial.metrics["val_loss"] == pytest.approx(expected, abs=1e-12), (net, engine)
