"""The gradient that is written out is the one that autograd finds; `mlp-norm` is scale-invariant."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.nets.lane_layers import BatchNorm
from lrwd_sweep.nets.mlp import LOGIT_SCALE, Mlp, MlpLanes

F64 = torch.float64
NOISE = [torch.Generator()]  # not used


def _lanes(net: Mlp, count: int, batch: int, seed: int = 0) -> tuple[Arena, MlpLanes]:
    arena = Arena.stack(
        net.init(torch.Generator().manual_seed(seed)), count, device=torch.device("cpu"), dtype=F64
    )
    arena.theta.add_(
        0.1 * torch.randn(arena.theta.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    )
    return arena, MlpLanes(net, arena.named, arena.named_grad, batch)


def _batch(net: Mlp, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, net.widths[0], generator=stream, dtype=F64)
    return x, torch.randint(0, net.widths[-1], (batch,), generator=stream)


def _loss_by_autograd(net: Mlp, theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    h = x
    depth = len(net.widths) - 1
    for k in range(1, depth + 1):
        h = h @ theta[f"weight{k}"].T
        if k < depth or net.norm_logits:
            h = nn.functional.batch_norm(h, None, None, training=True)
        h = torch.relu(h) if k < depth else h * (LOGIT_SCALE if net.norm_logits else 1.0)
    return nn.functional.cross_entropy(h + theta["bias"], y)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=5),
    st.booleans(),
    st.integers(1, 4),
    st.integers(3, 12),
    st.integers(0, 99),
)
def test_gradient_is_autograds(
    widths: list[int], norm_logits: bool, count: int, batch: int, seed: int
) -> None:
    net = Mlp(tuple(widths), norm_logits)
    arena, lanes = _lanes(net, count, batch, seed)
    x, y = _batch(net, batch, seed)
    losses, logits = lanes.gradient(x, y, NOISE)
    assert logits.shape == (count, widths[-1], batch)
    for lane in range(count):
        theta = {name: value[lane].clone().requires_grad_() for name, value in arena.named.items()}
        loss = _loss_by_autograd(net, theta, x, y)
        assert losses[lane].item() == pytest.approx(loss.item(), abs=1e-11)
        grads = torch.autograd.grad(loss, list(theta.values()))
        for found, expected in zip(arena.named_grad.values(), grads, strict=True):
            torch.testing.assert_close(found[lane], expected, rtol=1e-8, atol=1e-9)


def test_batch_norm_keeps_the_statistics_of_torch_nn() -> None:
    ours, theirs = BatchNorm(1, 7, 5, torch.zeros(0, dtype=F64)), nn.BatchNorm1d(7, affine=False, dtype=F64)
    for seed in range(20):
        z = 3 * torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(seed), dtype=F64) + seed
        torch.testing.assert_close(ours.forward(z)[0].T, theirs(z[0].T), rtol=0, atol=1e-12)
    assert theirs.running_mean is not None
    assert theirs.running_var is not None
    torch.testing.assert_close(ours.running_mean[0, :, 0], theirs.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.running_var[0, :, 0], theirs.running_var, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("norm_logits", "invariant"), [(True, True), (False, False)])
def test_gradient_is_orthogonal_to_scale_invariant_matrices(norm_logits: bool, invariant: bool) -> None:
    net = Mlp(norm_logits=norm_logits)
    arena, lanes = _lanes(net, 2, 64)
    lanes.gradient(*_batch(net, 64), NOISE)
    for k in (1, 2, 3):
        theta, g = arena.named[f"weight{k}"], arena.named_grad[f"weight{k}"]
        cosine = (theta * g).sum() / (theta.norm() * g.norm())
        if invariant or k < 3:
            assert abs(cosine) < 1e-4  # ε in the normalisation leaves a little
        else:
            assert abs(cosine) > 1e-2


def test_wide_logits_give_a_finite_loss_where_softmax_is_saturated() -> None:
    net = Mlp((4, 6, 3), norm_logits=False)
    arena, lanes = _lanes(net, 1, 8)
    arena.named["weight2"].mul_(1e6)
    losses, _ = lanes.gradient(*_batch(net, 8), NOISE)
    assert torch.isfinite(losses).all()
    assert losses[0] > 1e4
    assert torch.isfinite(arena.grad).all()


def test_predictions_of_the_folded_network_are_the_networks() -> None:
    net = Mlp((5, 8, 8, 3))
    arena, lanes = _lanes(net, 2, 16)
    for seed in range(30):
        lanes.gradient(*_batch(net, 16, seed), NOISE)
    x, _ = _batch(net, 9, 99)
    logits = lanes.predictor().predict(x)
    for lane in range(2):
        h = x
        for k, norm in enumerate(lanes.norms, 1):
            mean, var = norm.running_mean[lane, :, 0], norm.running_var[lane, :, 0]
            h = nn.functional.batch_norm(h @ arena.named[f"weight{k}"][lane].T, mean, var)
            h = torch.relu(h) if k < 3 else LOGIT_SCALE * h + arena.named["bias"][lane]
        torch.testing.assert_close(logits[lane].T, h, rtol=0, atol=1e-10)
