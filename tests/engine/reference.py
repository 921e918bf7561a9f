"""A lone run in torch.nn, with the algorithms of the paper line by line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lrwd_sweep.nets.mlp import LOGIT_SCALE

Rule = Callable[[Tensor, Tensor, float, int], Tensor]  # θ, g, η_t, t = 1, 2, … → the new θ


class Network(nn.Module):
    """`mlp-norm` or `mlp` of 64-128-128-10 in torch.nn."""

    def __init__(self, norm_logits: bool) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(64, 128, bias=False), nn.Linear(128, 128, bias=False)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(128, affine=False), nn.BatchNorm1d(128, affine=False)])
        self.last = nn.Linear(128, 10, bias=False)
        self.last_norm = nn.BatchNorm1d(10, affine=False) if norm_logits else None
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = torch.relu(norm(linear(x)))
        x = self.last(x)
        if self.last_norm is not None:
            x = LOGIT_SCALE * self.last_norm(x)
        return x + self.bias

    def in_order(self) -> list[Tensor]:
        """Return the parameters in a lane's order."""
        return [*self.hidden.parameters(), self.last.weight, self.bias]

    @torch.no_grad()
    def load(self, init: dict[str, Tensor]) -> None:
        """Take the parameters of a lane's initialisation, by position."""
        for target, value in zip(self.in_order(), init.values(), strict=True):
            target.copy_(value)

    def flat(self) -> Tensor:
        """Return all parameters in a lane's order, (P,)."""
        return torch.cat([target.detach().flatten() for target in self.in_order()])


def eta(schedule: str, t: int, n: int) -> float:
    """Compute η of batch t = 0, 1, … of n."""
    if schedule == "fixed":
        return 1.0
    if schedule == "step":
        return 0.1 ** ((t / n >= 0.3) + (t / n >= 0.6) + (t / n >= 0.8))
    if schedule == "linear":
        return 1 - t / n
    if schedule == "restarts":  # nine epochs: cycles of 1, 2, 4 and the beginning of one of 8
        epoch = 9 * t / n
        start, length = next((a, b - a) for a, b in ((0, 1), (1, 3), (3, 7), (7, 15)) if epoch < b - 1e-9)
        return 0.5 * (1 + math.cos(math.pi * (epoch - start) / length))
    return 0.5 * (1 + math.cos(math.pi * t / n))


def paper_sgd(alpha: float, lam: float, rule: str, beta1: float = 0.9) -> Rule:
    """Follow Algorithm 1: SGD with L2 (line 6) or SGDW (line 9), never both."""
    m: Tensor | float = 0.0

    def step(theta: Tensor, g: Tensor, eta_t: float, t: int) -> Tensor:
        nonlocal m
        if rule == "coupled":
            g = g + lam * theta
        m = beta1 * m + eta_t * alpha * g
        decay = {"coupled": 0.0, "independent": eta_t * lam, "lr-scaled": eta_t * alpha * lam}[rule]
        return theta - m - decay * theta

    return step


def paper_adam(alpha: float, lam: float, rule: str, betas: tuple[float, float] = (0.9, 0.999)) -> Rule:
    """Follow Algorithm 2: Adam with L2 (line 6) or AdamW (line 12), never both; ε = 1e-8 beside √v̂."""
    m, v = torch.zeros(()), torch.zeros(())

    def step(theta: Tensor, g: Tensor, eta_t: float, t: int) -> Tensor:
        nonlocal m, v
        if rule == "coupled":
            g = g + lam * theta
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        decay = {"coupled": 0.0, "independent": lam, "lr-scaled": alpha * lam}[rule]
        return theta - eta_t * (alpha * m_hat / (v_hat.sqrt() + 1e-8) + decay * theta)

    return step


def follow(
    net: Network, batches: list[tuple[Tensor, Tensor]], schedule: str, steps: int, rule: Rule
) -> Iterator[float]:
    """Train `net` by `rule`; yield the loss of every batch before its update."""
    for t, (x, y) in enumerate(batches):
        net.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        g = torch.cat([p.grad.flatten() for p in net.in_order() if p.grad is not None])
        theta = rule(net.flat(), g, eta(schedule, t, steps), t + 1)
        parts = torch.split(theta, [p.numel() for p in net.in_order()])
        net.load(
            {str(k): part.view_as(p) for k, (p, part) in enumerate(zip(net.in_order(), parts, strict=True))}
        )
        yield loss.item()
