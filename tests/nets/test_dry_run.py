"""The dry run finds what trains, and refuses in one line what lanes could not train as torch does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import ModuleNetwork, network
from lrwd_sweep.nets.dry_run import dry_run
from lrwd_sweep.nets.network import Way
from lrwd_sweep.nets.randomness import python_state
from lrwd_sweep.spec.catalog import DataSet
from tests.nets.awkward import Base
from tests.small import task

HERE = "tests.nets.test_dry_run"


class Plain(Base):  # two layers; subclasses add a difficulty
    def make(self) -> None:
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 4)
        self.more()

    def more(self) -> None:
        pass

    def between(self, h: Tensor) -> Tensor:
        return h.tanh()

    def logits(self, x: Tensor) -> Any:
        return self.head(self.between(self.body(x)))


def _recompute(net: Any, h: Tensor) -> Any:
    return checkpoint(lambda h: net.drop(h).tanh(), h, use_reentrant=False)


DIFFICULT: dict[str, dict[str, Callable[..., Any]]] = {  # a class's name → its methods
    "Hooked": {"more": lambda net: net.body.weight.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))},
    "Recomputed": {"more": lambda net: net.add_module("drop", nn.Dropout(0.5)), "between": _recompute},
    "Numpy": {"between": lambda net, h: h * float(np.random.rand())},
    "OldNorm": {"more": lambda net: nn.utils.weight_norm(net.body)},
    "Scripted": {"more": lambda net: net.add_module("act", torch.jit.script(nn.Tanh()))},
    "Hidden": {"between": lambda net, h: functional.dropout(h, 0.5, net.training)},  # dropout without a layer
    "WrongInTraining": {"logits": lambda net, x: torch.zeros(3) + Plain.logits(net, x)},  # under a layer
    "Complex": {
        "more": lambda net: setattr(net, "phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    },
}
globals().update({name: type(name, (Plain,), methods) for name, methods in DIFFICULT.items()})


class Enclosed(Plain):
    act: Callable[[Tensor], Tensor]

    def more(self) -> None:
        self.slope = nn.Parameter(torch.tensor(0.3))
        self.act = lambda h: torch.where(h > 0, h, h * self.slope)

    def between(self, h: Tensor) -> Tensor:
        return self.act(h)


class Recurrent(Base):  # drops between its layers
    def make(self) -> None:
        self.body, self.head = nn.GRU(8, 6, 2, dropout=0.1, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x[:, 0])[0][:, -1])


def failing() -> nn.Module:
    raise ValueError("no\nweights here")


ONE = Plain()
FACTORY: dict[str, Callable[..., object]] = {
    "needing": lambda channels: nn.Conv2d(1, channels, 3),
    "forgetful": lambda: None,
    "regression": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
    "mismatched": lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 4)),
    "all_frozen": lambda: Plain().requires_grad_(False),
    "same": lambda: ONE,
}
globals().update(FACTORY)
LINE = r"\(test_dry_run.py, line \d+\)"
REFUSED = {
    "Hooked": r": its parameter body\.weight has a hook, .*; register it in forward",
    "Recomputed": r": the layer drop \(Dropout\) runs again in the backward pass, .*; leave it out",
    "Enclosed": r": its parameter slope is used by a lambda .*; write a method",
    "Numpy": r": it draws random numbers from the global generator of numpy or random",
    "OldNorm": r": it cannot be copied, .*; use torch\.nn\.utils\.parametrizations",
    "Scripted": r": its layer act is a ScriptModule, which lanes cannot copy; do not script it",
    "Hidden": r": Hidden itself draws random numbers .*; use torch.nn.Dropout as a layer",
    "Recurrent": r": the layer body \(GRU\) draws .*\(dropout=0 for attention and recurrent layers\)",
    "WrongInTraining": rf" does not .*: RuntimeError: .* in WrongInTraining itself {LINE}",
    "Complex": r": its parameter phase is complex64 \(2,\); make it real",
    "needing": r" wants 'channels', which nothing gives; give it a default, or a value under \[net.options\]",
    "forgetful": r": it returns NoneType; return a torch.nn.Module",
    "failing": rf" raised ValueError: no weights here {LINE}",
    "regression": r": Sequential gives float32 \(8, 1\) for 8 inputs; return logits \(8, 4\)",
    "mismatched": r" does not take inputs of 1×8×8: RuntimeError: .*mat1 .* in the layer 1 \(Linear\)",
    "all_frozen": r": it does not depend on any parameter that trains",
    "same": r": it returns the same network at every call; make a new one for every seed",
    "ONE": r": it is a network instance, the same for every seed; name its class or a factory",
    "HERE": r" is of type str; name a function or a class",
}


@pytest.mark.filterwarnings("ignore:.*(weight_norm|torch.jit)")
def test_user_networks_that_lanes_could_not_train_are_refused_in_one_line() -> None:
    before = python_state()
    for name, complaint in REFUSED.items():
        with pytest.raises(UsageError) as refused:
            network(task(f"{HERE}:{name}", engine="loop"))
        assert re.match(rf"net='{HERE}:{name}'{complaint}", str(refused.value)), (name, str(refused.value))
        assert "\n" not in str(refused.value), name
        assert python_state() == before, name


def test_parameters_that_the_loss_depends_on_are_found() -> None:
    module = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    module.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    assert dry_run(module, DataSet(0, 0, 0, 3, (12,)), Way()).trained == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }


def test_known_modules_that_draw_or_do_not_classify_are_refused() -> None:
    for make, complaint in (
        (
            lambda: nn.Sequential(nn.Flatten(), nn.RReLU(), nn.Linear(64, 4)),
            r"layer 1 \(RReLU\) draws random",
        ),
        (
            lambda: nn.Sequential(nn.Identity(), globals()["Hidden"]()),
            r"layer 1 \(Hidden\) draws random numbers",
        ),
        (lambda: nn.Conv2d(1, 4, 3), r"gives \(8, 4, 6, 6\) for 8 inputs; make it logits \(8, 4\)"),
    ):
        with pytest.raises(UsageError, match=complaint):
            ModuleNetwork(make, (1, 8, 8), 4)
