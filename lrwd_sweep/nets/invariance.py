"""Which weights of a module a normalisation makes scale-invariant, found numerically."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lrwd_sweep.nets.module_lanes import ModuleLanes
from lrwd_sweep.nets.noise import Noisy

BATCH = 8  # of two, batch normalisation makes ±1 whatever the input, and all in front of it seems invariant
TOLERANCE = 1e-9  # of the cosine; rounding leaves 1e-13, an ordinary layer of 10⁸ weights more than 1e-6


def scale_invariant(module: nn.Module, init: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[str, ...]:
    """The parameters of more than one dimension with f(cθ) = f(θ) in training.

    By Euler's theorem those with ∇f·θ = 0, f a random combination of the logits: one backward pass finds them
    all. It takes place in float64, at a generic point, and with the ε of every normalisation at almost 0.
    """
    stream = torch.Generator().manual_seed(0)
    with torch.inference_mode(mode=False):
        theta = {name: _nearby(value, stream).unsqueeze(0) for name, value in init.items()}
        grad = {name: torch.zeros_like(value) for name, value in theta.items()}
        (net,) = ModuleLanes(module, theta, grad).lanes
        for layer in net.modules():
            if hasattr(layer, "eps"):
                layer.eps = 1e-20  # type: ignore[assignment]
            if isinstance(layer, Noisy):
                layer.noise = stream
        logits = net(torch.randn(BATCH, *shape, generator=stream, dtype=torch.float64))
        f = (logits * torch.randn(logits.shape, generator=stream, dtype=torch.float64)).sum()
        torch.autograd.backward(f)
    return tuple(name for name, value in theta.items() if value.dim() > 2 and _orthogonal(grad[name], value))


def _nearby(value: Tensor, stream: torch.Generator) -> Tensor:
    """A tenth away, so that layers that begin at zero take part."""
    spread = value.square().mean().sqrt().item() or 1.0
    return value + 0.1 * spread * torch.randn(value.shape, generator=stream, dtype=value.dtype)


def _orthogonal(g: Tensor, theta: Tensor) -> bool:
    size = g.norm() * theta.norm()
    return bool(size > 0 and (g * theta).sum().abs() < TOLERANCE * size)
