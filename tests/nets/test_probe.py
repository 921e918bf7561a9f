"""The pass without arithmetic finds what trains, and who draws behind our back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import ModuleNetwork
from lrwd_sweep.nets.dry_run import examine


def test_what_the_loss_depends_on_by_hand() -> None:
    module = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    module.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    assert examine(module, (12,), 3) == {"0.weight", "0.bias", "2.weight", "2.bias"}


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
