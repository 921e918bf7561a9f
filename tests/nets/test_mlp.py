"""Perceptrons by torch's operators and by numba's loops give autograd's gradients, lane by lane."""

import math
from collections.abc import Mapping
from pathlib import Path

import numba
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.nets.lane_layers import Windows
from lrwd_sweep.nets.mlp import LOGIT_SCALE, Mlp, MlpLanes
from lrwd_sweep.nets.mlp_numba import COLUMNS, NumbaMlpLanes, row_means
from lrwd_sweep.nets.network import Way
from lrwd_sweep.optim.jit import compiled
from tests.small import CPU, F64

NOISE = [torch.Generator()]  # not used


def _arena(net: Mlp, lanes: int, dtype: torch.dtype = F64, align: int = 1) -> Arena:
    stream = torch.Generator().manual_seed(1)
    arena = Arena.stack(net.init(stream), lanes, device=CPU, dtype=dtype, align=align)
    for value in arena.named.values():
        value.add_(0.1 * torch.randn(value.shape, generator=stream, dtype=dtype))
    return arena


def _by_torch(net: Mlp, lanes: int, batch: int) -> tuple[Arena, MlpLanes]:
    arena = _arena(net, lanes)
    return arena, MlpLanes(net, arena.named, arena.named_grad, batch)


def _batch(net: Mlp, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, net.widths[0], generator=stream, dtype=F64)
    return x, torch.randint(0, net.widths[-1], (batch,), generator=stream)


def _logits(
    net: Mlp, theta: Mapping[str, Tensor], x: Tensor, norms: list[list[Tensor]] | None = None
) -> Tensor:
    """Compute the logits of one lane in torch.nn, by running statistics if those are given."""
    h, depth = x, len(net.widths) - 1
    for k in range(1, depth + 1):
        h = h @ theta[f"weight{k}"].T
        if k < depth or net.norm_logits:
            mean, var = norms[k - 1] if norms else (None, None)
            h = nn.functional.batch_norm(h, mean, var, training=not norms)
        h = torch.relu(h) if k < depth else h * (LOGIT_SCALE if net.norm_logits else 1.0)
    return h + theta["bias"]


@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=5), st.booleans(), st.integers(1, 4), st.integers(3, 12)
)
@example([5, 129, 128, 3], True, 2, 64)  # whose products are multiplied in halves, one of them odd
def test_gradients_statistics_and_predictions_are_those_of_torch(
    widths: list[int], norm_logits: bool, count: int, batch: int
) -> None:
    net = Mlp(tuple(widths), norm_logits)
    arena, lanes = _by_torch(net, count, batch)
    other = _arena(net, count)
    compiled = net.lanes(other.named, other.named_grad, batch)
    assert isinstance(compiled, NumbaMlpLanes)
    for seed in range(3):
        x, y = _batch(net, batch, seed)
        losses, logits = lanes.gradient(x, y, NOISE)
        for one, two in zip((losses, logits), compiled.gradient(x, y, NOISE), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(other.grad, arena.grad, rtol=1e-8, atol=1e-10)
    for lane in range(count):
        theta = {name: value[lane].clone().requires_grad_() for name, value in arena.named.items()}
        loss = nn.functional.cross_entropy(_logits(net, theta, x), y)
        assert losses[lane].item() == pytest.approx(loss.item(), abs=1e-11)
        grads = torch.autograd.grad(loss, list(theta.values()))
        for found, expected in zip(arena.named_grad.values(), grads, strict=True):
            torch.testing.assert_close(found[lane], expected, rtol=1e-8, atol=1e-9)
    images, _ = _batch(net, 2 * COLUMNS + 7, 99)
    predicted = lanes.predictor().predict(images)
    torch.testing.assert_close(compiled.predictor().predict(images), predicted, rtol=1e-9, atol=1e-11)
    for lane in range(count):
        norms = [[norm.running_mean[lane, :, 0], norm.running_var[lane, :, 0]] for norm in lanes.norms]
        expected = _logits(net, {name: value[lane] for name, value in arena.named.items()}, images, norms)
        torch.testing.assert_close(predicted[lane].T, expected, rtol=1e-9, atol=1e-10)


def test_saturated_softmax_gives_a_finite_loss() -> None:
    net = Mlp((4, 6, 3), norm_logits=False)
    arena, lanes = _by_torch(net, 1, 8)
    arena.named["weight2"].mul_(1e6)
    losses, _ = lanes.gradient(*_batch(net, 8), NOISE)
    assert 1e4 < losses[0] < math.inf
    assert torch.isfinite(arena.grad).all()


def test_numba_trains_only_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = _arena(Mlp(), 2, torch.float32)
    assert isinstance(Mlp().lanes(arena.named, arena.named_grad, 8), NumbaMlpLanes)
    assert isinstance(Mlp(way=Way(precision="bfloat16")).lanes(arena.named, arena.named_grad, 8), MlpLanes)
    monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
    assert isinstance(Mlp().lanes(arena.named, arena.named_grad, 8), MlpLanes)


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
