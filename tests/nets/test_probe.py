"""The pass without arithmetic counts what a real pass keeps, and finds who draws behind our back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import ModuleNetwork, build
from lrwd_sweep.nets.probe import examine


@pytest.mark.parametrize("name", ["cnn-norm", "resnet20", "torchvision:shufflenet_v2_x0_5"])
def test_kept_is_what_a_real_pass_keeps(name: str) -> None:
    network = build(name, (1, 16, 16), 10)
    assert isinstance(network, ModuleNetwork)
    module, kept = network.make(), {}
    weights = {value.data_ptr() for value in module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = module(torch.randn(24, 1, 16, 16))
    assert logits.shape == (24, 10)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4
    assert 24 * network.footprint.kept == pytest.approx(size, rel=0.1)


def test_footprint_by_hand() -> None:
    # the linear layer keeps its input (12), relu its output (5), which is the second layer's input
    module = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    found = examine(module, (12,), 3)
    assert (found.kept, found.largest) == (17, 5)


class _Hidden(nn.Module):
    """Dropout in the middle of a forward pass, where no module stands for it."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x.flatten(1), 0.5, self.training)


@pytest.mark.parametrize("layer", [_Hidden, lambda: nn.Sequential(nn.Flatten(), nn.RReLU())])
def test_layers_that_draw_from_the_global_generator_are_refused_by_name(
    layer: Callable[[], nn.Module],
) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Identity(), layer(), nn.Linear(64, 4))

    with pytest.raises(UsageError, match=r"layer 1(\.1)? \((_Hidden|RReLU)\) draws random numbers"):
        ModuleNetwork(make, (1, 8, 8), 4)


def test_a_module_that_is_no_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="choose a classifier"):
        ModuleNetwork(lambda: nn.Conv2d(1, 4, 3), (1, 8, 8), 4)


def test_nothing_is_computed_or_changed() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    examine(module, (1, 8, 8), 4)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
