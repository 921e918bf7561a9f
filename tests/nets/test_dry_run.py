"""What lanes of somebody's network would train otherwise than torch does is refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import network
from lrwd_sweep.nets.randomness import python_state
from tests.nets.conftest import task

HERE = "tests.nets.test_dry_run"


class Plain(nn.Module):
    """Two layers, for others to do something to."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 4)
        self.more()

    def more(self) -> None:
        """Whatever it has besides."""

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
    """One network for all seeds."""
    return ONE


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Hooked", r"its parameter body\.weight has a hook, .*; let forward register it"),
        ("HookedAfter", r"its parameter head\.bias has a hook"),
        ("Recomputed", r"the layer drop \(Dropout\) runs again in the backward pass, .*; leave it out"),
        ("Enclosed", r"its parameter slope is used by a lambda .*; write a method"),
        ("Numpy", r"it draws random numbers from the global generator of numpy or random"),
        ("Python", r"it draws random numbers .* such as numpy\.random\.default_rng\(\)"),
        ("OldNorm", r"it cannot be copied, .*; use torch\.nn\.utils\.parametrizations"),
        ("Scripted", r"its layer act is a ScriptModule, which lanes cannot copy; do not script it"),
        ("Outside", r"it cannot be copied, .* keep locks, files and what forward computes out of it"),
        ("same", r"it returns the same network at every call; make a new one for every seed"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(weight_norm|torch.jit)")
def test_it_is_refused_in_one_line(name: str, complaint: str) -> None:
    before = python_state()
    with pytest.raises(UsageError, match=rf"--net {HERE}:{name}: {complaint}") as refused:
        network(task(f"{HERE}:{name}", engine="loop"))
    assert "\n" not in str(refused.value)
    assert python_state() == before
