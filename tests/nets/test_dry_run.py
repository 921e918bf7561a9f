"""The dry run finds what trains, and refuses in one line what lanes could not train as torch does."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

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
from tests.nets.conftest import task

HERE = "tests.nets.test_dry_run"


class Plain(nn.Module):
    """Two layers; subclasses add a difficulty."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 4)
        self.more()

    def more(self) -> None:
        """Add attributes."""

    def between(self, h: Tensor) -> Tensor:
        return h.tanh()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.between(self.body(x.flatten(1))))
        return logits


class Hooked(Plain):
    def more(self) -> None:
        self.body.weight.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))  # type: ignore[no-untyped-call]


class HookedAfter(Plain):
    def more(self) -> None:
        self.head.bias.register_post_accumulate_grad_hook(lambda _: None)  # type: ignore[no-untyped-call]


class Recomputed(Plain):
    def more(self) -> None:
        self.drop = nn.Dropout(0.5)

    def between(self, h: Tensor) -> Tensor:
        found = checkpoint(lambda h: self.drop(h).tanh(), h, use_reentrant=False)
        assert isinstance(found, Tensor)
        return found


class Enclosed(Plain):
    act: Callable[[Tensor], Tensor]

    def more(self) -> None:
        self.slope = nn.Parameter(torch.tensor(0.3))
        self.act = lambda h: torch.where(h > 0, h, h * self.slope)

    def between(self, h: Tensor) -> Tensor:
        return self.act(h)


class Numpy(Plain):
    def between(self, h: Tensor) -> Tensor:
        return h * float(np.random.rand())


class Python(Plain):
    def between(self, h: Tensor) -> Tensor:
        return h * random.random() if self.training else h


class OldNorm(Plain):
    def more(self) -> None:
        nn.utils.weight_norm(self.body)


class Scripted(Plain):
    def more(self) -> None:
        self.act = torch.jit.script(nn.Tanh())


class Outside(Plain):
    def more(self) -> None:
        kept: dict[str, Tensor] = {}
        self.body.register_forward_hook(lambda layer, inputs, output: kept.update(body=output))
        self.kept = kept


ONE = Plain()


def same() -> nn.Module:
    """Return one network for all seeds."""
    return ONE


REFUSED = {
    "Hooked": r"its parameter body\.weight has a hook, .*; register it in forward",
    "HookedAfter": r"its parameter head\.bias has a hook",
    "Recomputed": r"the layer drop \(Dropout\) runs again in the backward pass, .*; leave it out",
    "Enclosed": r"its parameter slope is used by a lambda .*; write a method",
    "Numpy": r"it draws random numbers from the global generator of numpy or random",
    "Python": r"it draws random numbers .* such as numpy\.random\.default_rng\(\)",
    "OldNorm": r"it cannot be copied, .*; use torch\.nn\.utils\.parametrizations",
    "Scripted": r"its layer act is a ScriptModule, which lanes cannot copy; do not script it",
    "Outside": r"it cannot be copied, .* keep locks, files and what forward computes out of it",
    "same": r"it returns the same network at every call; make a new one for every seed",
}


@pytest.mark.filterwarnings("ignore:.*(weight_norm|torch.jit)")
def test_modules_that_lanes_could_not_train_are_refused_in_one_line() -> None:
    before = python_state()
    for name, complaint in REFUSED.items():
        with pytest.raises(UsageError) as refused:
            network(task(f"{HERE}:{name}", engine="loop"))
        assert re.match(rf"net='{HERE}:{name}': {complaint}", str(refused.value)), (name, str(refused.value))
        assert "\n" not in str(refused.value), name
        assert python_state() == before, name


def test_parameters_that_the_loss_depends_on_are_found() -> None:
    module = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    module.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    assert dry_run(module, (12,), 3, Way()).trained == {"0.weight", "0.bias", "2.weight", "2.bias"}


class _Hidden(nn.Module):
    """Dropout as a function in a forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x.flatten(1), 0.5, self.training)


@pytest.mark.parametrize("layer", [_Hidden, lambda: nn.Sequential(nn.Flatten(), nn.RReLU())])
def test_layers_that_draw_from_the_global_generator_are_named(
    layer: Callable[[], nn.Module],
) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Identity(), layer(), nn.Linear(64, 4))

    with pytest.raises(UsageError, match=r"layer 1(\.1)? \((_Hidden|RReLU)\) draws random numbers"):
        ModuleNetwork(make, (1, 8, 8), 4)


def test_a_module_that_is_no_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="choose a classifier"):
        ModuleNetwork(lambda: nn.Conv2d(1, 4, 3), (1, 8, 8), 4)


def test_dry_run_of_a_known_module_changes_no_tensor() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    dry_run(module, (1, 8, 8), 4, Way())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
