"""Shake-Shake by hand: one coefficient per image forward, another backward, one half in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from lrwd_sweep.nets.resnet import Shake, ShakeShortcut

F64 = torch.float64


def _branches() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(1)
    a, b = (torch.randn(5, 3, 2, 2, generator=stream, dtype=F64).requires_grad_() for _ in range(2))
    return a, b


def _shaken(a: Tensor, b: Tensor, seed: int) -> Tensor:
    shake = Shake()
    shake.noise = torch.Generator().manual_seed(seed)
    out = shake(a, b)
    assert isinstance(out, Tensor)
    return out


def test_forward_and_backward_use_different_coefficients() -> None:
    a, b = _branches()
    alpha, beta = torch.rand((2, 5, 1, 1, 1), generator=torch.Generator().manual_seed(7), dtype=F64)
    out = _shaken(a, b, 7)
    torch.testing.assert_close(out, alpha * a + (1 - alpha) * b)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    of_a, of_b = torch.autograd.grad(out, (a, b), g)
    torch.testing.assert_close(of_a, beta * g)
    torch.testing.assert_close(of_b, (1 - beta) * g)
    assert (alpha - beta).abs().min() > 1e-3


def test_each_image_has_independent_coefficients_between_0_and_1() -> None:
    a, b = torch.ones(4000, 2, 1, 1, dtype=F64).requires_grad_(), torch.zeros(4000, 2, 1, 1, dtype=F64)
    out = _shaken(a, b, 0)
    alpha = out[:, 0, 0, 0].detach()
    assert torch.equal(out[:, 0], out[:, 1])
    assert len(set(alpha.tolist())) == 4000
    assert 0 < alpha.min() < 0.01
    assert 0.99 < alpha.max() < 1
    (beta,) = torch.autograd.grad(out.sum(), a)
    assert abs(torch.corrcoef(torch.stack([alpha, beta[:, 0, 0, 0]]))[0, 1]) < 0.08  # independent


def test_evaluation_takes_the_mean() -> None:
    a, b = _branches()
    torch.testing.assert_close(Shake().eval()(a, b), (a + b) / 2)


def test_second_path_of_shortcut_sees_odd_pixels() -> None:
    shortcut = ShakeShortcut(1, 2, stride=2).double().eval()
    torch.nn.init.ones_(shortcut.straight.weight)
    torch.nn.init.ones_(shortcut.moved.weight)
    x = torch.arange(1, 17, dtype=F64).view(1, 1, 4, 4)
    out = shortcut(x)[0] * (1 + shortcut.norm.eps) ** 0.5
    torch.testing.assert_close(out[0], x[0, 0, ::2, ::2])
    torch.testing.assert_close(out[1], torch.tensor([[0, 0], [0, 6]], dtype=F64))  # moved right and down
