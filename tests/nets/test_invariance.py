"""The weights that are called scale-invariant are: twice as large, they give the same logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.nets import CONVOLUTIONAL, ModuleNetwork, build
from lrwd_sweep.nets.randomness import Noisy
from lrwd_sweep.nets.resnet import WideResNet

SHAPE = (1, 8, 8)


def _weights(network: ModuleNetwork) -> list[str]:
    return [name for name, shape in network.shapes.items() if len(shape) > 1]


@pytest.mark.parametrize("name", ["cnn-norm", "cnn", "resnet20", "shake26-2x32d"])
def test_all_but_the_last_layer_is_scale_invariant(name: str) -> None:
    network = build(name, SHAPE, 10)
    assert isinstance(network, ModuleNetwork)
    expected = set(_weights(network)) - (set() if name == "cnn-norm" else {"head.weight"})
    assert set(network.scale_invariant) == expected


def test_preactivation_leaves_the_ends_of_the_branches_free() -> None:
    network = ModuleNetwork(partial(WideResNet, 1, 10, depth=10, k=1), SHAPE, 10)
    found = set(network.scale_invariant)
    assert found >= {f"blocks.{k}.conv1.weight" for k in range(3)}
    assert not found & {"head.weight", *(f"blocks.{k}.conv2.weight" for k in range(3))}


class _Mixed(nn.Module):
    """A layer that begins at zero, one in front of a normalisation, and an unused one."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(64, 16)
        self.norm = nn.LayerNorm(16)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(16, 4)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.before.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.before(x.flatten(1)))))
        return logits


def _logits(network: ModuleNetwork, doubled: str = "") -> Tensor:
    module = network.make().double()
    values = network.init(torch.Generator().manual_seed(4))
    module.load_state_dict(
        {name: value * (2 if name == doubled else 1) for name, value in values.items()}, strict=False
    )
    for layer in module.modules():
        if hasattr(layer, "eps"):
            layer.eps = 1e-20  # type: ignore[assignment]
        if isinstance(layer, Noisy):
            layer.noise = torch.Generator().manual_seed(0)
    x = torch.randn(8, *network.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits = module(x)
    assert isinstance(logits, Tensor)
    return logits


@pytest.mark.parametrize(
    "make",
    [
        partial(CONVOLUTIONAL["cnn-norm"], 1, 4),
        partial(CONVOLUTIONAL["cnn"], 1, 4),
        partial(WideResNet, 1, 4, depth=10, k=1),
    ],
)
def test_doubling_agrees(make: Callable[[], nn.Module]) -> None:
    network = ModuleNetwork(make, SHAPE, 4)
    plain = _logits(network)
    for name in _weights(network):
        change = (_logits(network, name) - plain).abs().max() / plain.abs().max()
        assert (change < 1e-9) == (name in network.scale_invariant), name


def test_zeros_and_unused_layers_are_not_mistaken() -> None:
    # the bias, zero at first, makes a difference as soon as it is not
    assert ModuleNetwork(_Mixed, SHAPE, 4).scale_invariant == ()
