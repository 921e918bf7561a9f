"""Weights of convolutions lie in memory as their images do, with the same values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.nets import build
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.optim.projection import columns
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

CPU = torch.device("cpu")
NETS = ["cnn", "resnet20", "torchvision:shufflenet_v2_x0_5"]
SHAPE = (3, 8, 8)


def _stacked(init: dict[str, Tensor], lanes: int = 3) -> Arena:
    return Arena.stack(init, lanes, device=CPU, dtype=torch.float64)


@pytest.mark.parametrize("net", NETS)
def test_every_lane_has_the_initial_parameters_and_its_own_gradients(net: str) -> None:
    network = build(net, SHAPE, 4, engine="loop")
    init = network.init(torch.Generator().manual_seed(0))
    arena = _stacked(init)
    for name, value in init.items():
        assert torch.equal(arena.named[name], value.expand(3, *value.shape)), name
        for views in (arena.named, arena.named_grad):
            assert views[name].shape == (3, *value.shape), name
            last = value.dim() == 4
            assert not last or views[name][1].is_contiguous(memory_format=torch.channels_last), name
    assert any(value.dim() == 4 for value in init.values())
    assert [part.shape for part in arena.layout] == [tuple(value.shape) for value in init.values()]
    assert columns(arena.layout) == (slice(0, arena.theta.shape[1]),)

    lanes = network.lanes(arena.named, arena.named_grad, 8)
    assert isinstance(lanes, LoopLanes)
    x, y = torch.randn(8, *SHAPE, dtype=torch.float64), torch.arange(8) % 4
    for _ in range(2):
        with torch.inference_mode():
            lanes.gradient(x, y, [torch.Generator() for _ in range(3)])
        for lane, module in enumerate(lanes.modules):
            for name, parameter in module.named_parameters():
                assert parameter.data_ptr() == arena.named[name][lane].data_ptr(), name
                assert parameter.grad is not None, name
                assert parameter.grad.data_ptr() == arena.named_grad[name][lane].data_ptr(), name
                assert parameter.grad.stride() == arena.named_grad[name][lane].stride(), name
    assert all(bool(value.abs().sum() > 0) for value in arena.named_grad.values())


def test_views_share_the_arena_and_keep_a_row_per_output_channel() -> None:
    weight = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    arena = _stacked({"a": torch.zeros(5), "w": weight.contiguous(memory_format=torch.channels_last)})
    arena.named["w"][2].add_(100)
    rows = arena.theta[:, 5:].view(3, 2, 12)
    for channel in range(2):
        assert set(rows[0, channel].tolist()) == set(weight[channel].flatten().tolist())
        assert set(rows[2, channel].tolist()) == set((weight[channel] + 100).flatten().tolist())
    assert rows[0, 0, :3].tolist() == weight[0, :, 0, 0].tolist()


def test_tensors_in_plain_order_stay_in_it() -> None:
    for shape in ((4, 1, 3, 3), (4, 3, 1, 1), (4, 3, 3, 3), (4, 3), (2, 3, 4, 5, 6), ()):
        value = torch.randn(shape, dtype=torch.float64)
        arena = _stacked({"w": value})
        assert torch.equal(arena.theta[1], value.flatten()), shape
        assert arena.named["w"][1].is_contiguous(), shape
        assert torch.equal(arena.named["w"][1], value), shape


def test_padding_columns_change_nothing(digits32: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    task, cells, stack = Task(epochs=2), [Cell(0.01, 0.01), Cell(0.02, 0.1)], Arena.stack
    for name in ("adamw", "sgd", "adagradw", "adamp"):
        narrow = PackTrainer(Optimizer.parse(name), task, cells, 0, digits32)
        with monkeypatch.context() as patch:
            patch.setattr(
                Arena, "stack", lambda *given, **options: stack(*given, **options | {"align": 1000})
            )
            wide = PackTrainer(Optimizer.parse(name), task, cells, 0, digits32)
        assert wide.arena.theta.shape[1] % 1000 == 0
        assert wide.run() == narrow.run(), name
        assert wide.arena.theta[:, narrow.arena.theta.shape[1] :].abs().max() == 0, name
