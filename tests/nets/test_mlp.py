"""Perceptrons by torch's operators and by numba's loops give autograd's gradients, lane by lane."""

import math
from pathlib import Path

import numba
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.nets.cnn import Windows
from lrwd_sweep.nets.loss import DEFAULT_LOSS
from lrwd_sweep.nets.mlp import Mlp, MlpLanes, MlpModule
from lrwd_sweep.nets.mlp_numba import COLUMNS, NumbaMlpLanes, row_means
from lrwd_sweep.nets.network import Way
from lrwd_sweep.optim.jit import compiled
from tests.small import CPU, F64

WAY = Way(DEFAULT_LOSS)
NOISE = [torch.Generator()]  # not used


def _arena(net: Mlp, lanes: int, dtype: torch.dtype = F64) -> Arena:
    stream = torch.Generator().manual_seed(1)
    arena = Arena.stack(net.init(stream), lanes, device=CPU, dtype=dtype)
    for value in arena.named.values():
        value.add_(0.1 * torch.randn(value.shape, generator=stream, dtype=dtype))
    return arena


def _batch(net: Mlp, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, net.widths[0], generator=stream, dtype=F64)
    return x, torch.randint(0, net.widths[-1], (batch,), generator=stream)


@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=5), st.booleans(), st.integers(1, 4), st.integers(3, 12)
)
@example([5, 129, 128, 3], True, 2, 64)  # whose products are multiplied in halves, one of them odd
def test_gradients_statistics_and_predictions_are_those_of_torch(
    widths: list[int], norm_logits: bool, count: int, batch: int
) -> None:
    net = Mlp(tuple(widths), norm_logits, WAY)
    arena, other = _arena(net, count), _arena(net, count)
    lanes = MlpLanes(net, arena.named, arena.named_grad, batch)
    compiled = net.lanes(other.named, other.named_grad, batch)
    assert isinstance(compiled, NumbaMlpLanes)
    alone = [MlpModule(net).double() for _ in range(count)]
    for lane, module in enumerate(alone):
        module.load_state_dict({name: value[lane] for name, value in arena.named.items()}, strict=False)
    for seed in range(3):
        x, y = _batch(net, batch, seed)
        losses, logits = lanes.gradient(x, y, NOISE)
        for one, two in zip((losses, logits), compiled.gradient(x, y, NOISE), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(other.grad, arena.grad, rtol=1e-8, atol=1e-10)
        for lane, module in enumerate(alone):
            loss = nn.functional.cross_entropy(module(x), y)
            assert losses[lane].item() == pytest.approx(loss.item(), abs=1e-11)
            grads = torch.autograd.grad(loss, list(module.parameters()))
            for found, expected in zip(arena.named_grad.values(), grads, strict=True):
                torch.testing.assert_close(found[lane], expected, rtol=1e-8, atol=1e-9)
    images, _ = _batch(net, 2 * COLUMNS + 7, 99)
    predicted = lanes.predictor().predict(images)
    torch.testing.assert_close(compiled.predictor().predict(images), predicted, rtol=1e-9, atol=1e-11)
    for lane, module in enumerate(alone):
        torch.testing.assert_close(predicted[lane].T, module.eval()(images), rtol=1e-9, atol=1e-10)


def test_saturated_softmax_gives_a_finite_loss() -> None:
    net = Mlp((4, 6, 3), False, WAY)
    arena = _arena(net, 1)
    arena.named["weight2"].mul_(1e6)
    losses, _ = MlpLanes(net, arena.named, arena.named_grad, 8).gradient(*_batch(net, 8), NOISE)
    assert 1e4 < losses[0] < math.inf
    assert torch.isfinite(arena.grad).all()


def test_numba_trains_only_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = [Mlp((8, 6, 3), True, way) for way in (WAY, Way(DEFAULT_LOSS, precision="bfloat16"))]
    arena = _arena(nets[0], 2, torch.float32)
    found = [net.lanes(arena.named, arena.named_grad, 8) for net in nets]
    monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
    found.append(nets[0].lanes(arena.named, arena.named_grad, 8))
    assert [type(lanes) for lanes in found] == [NumbaMlpLanes, MlpLanes, MlpLanes]


def test_compiled_and_cached_loops_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    x, found = torch.randn(50, 60, generator=torch.Generator().manual_seed(0)).numpy(), []
    for hits in (0, 1):
        means, loop = torch.zeros(50).numpy(), compiled(row_means.py_func)
        loop(x, torch.full((60,), 1 / 60).numpy(), means)
        found.append(means.tobytes())
        assert sum(loop.stats.cache_hits.values()) == hits
    assert found[0] == found[1]
    assert list(tmp_path.rglob("mlp_numba.row_means*.nbc"))


def test_nine_windows_of_bfloat16_are_added_without_rounding() -> None:
    windows = Windows((1, 1, 3, 3, 1), 1, torch.empty(0, dtype=torch.bfloat16))
    windows.gradient.fill_(1 + 2**-7)
    found = windows.sum()
    assert found.dtype is torch.float32
    assert float(found[0, 0, 4]) == 9 * (1 + 2**-7)
