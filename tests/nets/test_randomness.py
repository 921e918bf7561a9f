"""Dropout from a generator that is handed in: torch's dropout but for where the numbers come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.nets.randomness import Dropout, replace_dropout

ONES = torch.ones(40, 50, 6, 6)


def _dropped(layer: Dropout, seed: int = 0, x: Tensor = ONES) -> Tensor:
    layer.noise = torch.Generator().manual_seed(seed)
    out = layer(x)
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize(("dims", "draws"), [(None, 72000), (2, 2000), (1, 40), (0, 1)])
def test_one_draw_serves_all_that_lies_behind(dims: int | None, draws: int) -> None:
    out = _dropped(Dropout(0.25, dims))
    units = out.reshape(draws, -1)
    assert torch.equal(units, units[:, :1].expand_as(units))
    assert set(out.flatten().tolist()) <= {0.0, ONES[0, 0, 0, 0].div(0.75).item()}
    if draws > 100:
        share = (units[:, 0] == 0).double().mean().item()
        assert share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / draws) ** 0.5)


def test_the_same_seed_drops_the_same() -> None:
    layer = Dropout(0.5)
    assert torch.equal(_dropped(layer, 1), _dropped(layer, 1))
    assert not torch.equal(_dropped(layer, 1), _dropped(layer, 2))


def test_nothing_is_dropped_in_evaluation_and_all_of_it_at_one() -> None:
    layer = Dropout(0.5)
    assert layer.eval()(ONES) is ONES
    assert Dropout(0.0)(ONES) is ONES
    assert not _dropped(Dropout(1.0)).any()


def test_every_dropout_of_torch_is_replaced_by_ours() -> None:
    inner = nn.Sequential(nn.Dropout2d(0.2), nn.ReLU())
    module = nn.Sequential(nn.Dropout(0.1), inner, nn.Dropout1d(0.3), nn.Dropout3d(0.4))
    replace_dropout(module)
    found = [layer for layer in module.modules() if isinstance(layer, Dropout)]
    assert [(layer.p, layer.dims) for layer in found] == [(0.1, None), (0.2, 2), (0.3, 2), (0.4, 2)]
    assert isinstance(inner[1], nn.ReLU)
