"""Scale invariance by ℓ2 normalisation; rotation in equilibrium, the angle that a tensor turns in a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.lab.evidence import Check, Relation, Section
from lrwd_sweep.lab.verify.problem import error
from lrwd_sweep.nets import network
from lrwd_sweep.optim import Segment, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

SHAPE = (64, 32)  # large: in few dimensions random gradients are not orthogonal to each other
SETTLING, MEASURED = 2000, 4000  # steps; the norm settles at a rate of 4λ and the measure averages its noise
THREE_DIGITS = 1e-3
ROUNDING, APART = 1e-12, 1e-3
SCALES = (1.0, 3.0, 0.2)  # c of scale invariance, a lane each
_D = math.prod(SHAPE)
_BETA = 0.9


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """The theory of one optimizer at momentum β = 0.9; α and decay are in its own convention."""

    optimizer: str
    formula: str
    cells: tuple[tuple[float, float], ...]  # α and decay
    angle: Callable[[float, float], float]  # of α and decay, in radians
    norm: Callable[[float, float], float]  # ‖θ‖ in equilibrium


def _decoupled(lam: float) -> float:
    return math.sqrt(2 * lam * (1 - _BETA) / (1 + _BETA))


def _sgd_norm(alpha: float, lam: float) -> float:
    """Balance total steps of α/((1−β)‖θ‖) with the decay: ‖θ‖⁴ = α²/(2λ(1−β)²)."""
    return math.sqrt(alpha / (1 - _BETA) / math.sqrt(2 * lam))


def _adam_norm(alpha: float, lam: float) -> float:
    """Balance steps of α√D, independent of the norm, with the decay: ‖θ‖² = α²D/(2λ)."""
    return alpha * math.sqrt(_D / (2 * lam))


EQUILIBRIA = (
    Equilibrium(
        "sgdw",
        "√(2 λ (1−β₁)/(1+β₁))",
        ((0.01, 1e-3), (0.04, 1e-3), (0.16, 1e-3)),
        lambda alpha, lam: _decoupled(lam),
        _sgd_norm,
    ),
    Equilibrium(
        "sgd",
        "√(2 α λ′/(1+β₁))",
        ((0.01, 0.01), (0.04, 0.0025), (0.04, 0.01)),
        lambda alpha, l2: math.sqrt(2 * alpha * l2 / (1 + _BETA)),
        lambda alpha, l2: _sgd_norm(alpha, alpha * l2 / (1 - _BETA)),
    ),
    Equilibrium(
        "adamw",
        "√(2 λ (1−β₁)/(1+β₁))",
        ((0.001, 1e-3), (0.004, 1e-3), (0.016, 1e-3)),
        lambda alpha, lam: _decoupled(lam),
        _adam_norm,
    ),
    Equilibrium(
        "adamw:lr-scaled",
        "√(2 α w (1−β₁)/(1+β₁))",
        ((0.001, 1.0), (0.002, 1.0)),
        lambda alpha, w: _decoupled(alpha * w),
        lambda alpha, w: _adam_norm(alpha, alpha * w),
    ),
)


def scale_invariance(device: torch.device) -> Section:
    """Show that the last matrix and the proxies of embed-norm have no scale, unlike an output layer."""
    checks = []
    for tensor in ("last.weight", "proxies.weight"):
        losses, theta, g, c = _scaled("embed-norm", tensor, device)
        along = float((g[0] * theta[0]).sum().abs() / (g[0].norm() * theta[0].norm()))
        for shown, off in (
            ("L(cW) = L(W)", error(losses, losses[:1])),
            ("∇L(cW) = ∇L(W)/c", error(c * g, g[:1])),
            ("∇L·W = 0", along),
        ):
            checks.append(Check(("embed-norm", tensor, shown), off, ROUNDING))
    losses, *_ = _scaled("mlp", "weight3", device)
    why = "its output layer is an ordinary one"
    off = error(losses, losses[:1])
    checks.append(Check(("mlp", "weight3", "L(cW) = L(W)"), off, APART, Relation.DIFFER, why))
    return Section(
        "Scale invariance by ℓ2 normalisation (Heo et al. 2021): c = 3 and 0.2",
        ("network", "tensor", "shown"),
        tuple(checks),
    )


def _scaled(net: str, tensor: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return losses (L,), a tensor and its gradient (L, out, in), and c (L, 1, 1), by which it is scaled."""
    made, stream = network(Task(net=net, engine="loop")), torch.Generator().manual_seed(0)
    first = {name: value.to(device) for name, value in made.init(stream).items()}
    theta = {name: value.repeat(len(SCALES), *[1] * value.dim()) for name, value in first.items()}
    grad = {name: torch.zeros_like(value) for name, value in theta.items()}
    c = theta[tensor].new_tensor(SCALES)[:, None, None]
    theta[tensor].mul_(c)
    x = torch.randn(64, 1, 8, 8, generator=stream, dtype=torch.float64).to(device)
    y = torch.arange(64, device=device) % 10
    losses, _ = made.lanes(theta, grad, 64).gradient(x, y, [torch.Generator(device) for _ in SCALES])
    return losses, theta[tensor], grad[tensor], c


def equilibrium_rotation(device: torch.device) -> Section:
    """Compare the mean angle between θ before and after a step, in equilibrium, with its formula."""
    return Section(
        "Rotation in equilibrium: the angle a scale-invariant tensor turns in a step (radians, β₁ = 0.9)",
        ("optimizer", "α", "decay", "measured", "formula"),
        tuple(check for case in EQUILIBRIA for check in _checks(case, device)),
        tuple(f"{case.optimizer}: {case.formula}" for case in EQUILIBRIA),
    )


def _checks(case: Equilibrium, device: torch.device) -> list[Check]:
    symbol = Optimizer.parse(case.optimizer).symbol
    checks = []
    for (alpha, decay), measured in zip(case.cells, measure(case, device).tolist(), strict=True):
        expected = case.angle(alpha, decay)
        cells = (f"{alpha:g}", f"{symbol} = {decay:g}", f"{measured:.6f}", f"{expected:.6f}")
        difference = abs(measured - expected) / expected
        checks.append(Check((case.optimizer, *cells), difference, THREE_DIGITS))
    return checks


def measure(case: Equilibrium, device: torch.device) -> Tensor:  # (L,) radians
    """Train on f(cθ) = f(θ) with gradients in random directions of the tangent space, of length 1/‖θ‖."""
    directions = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.randn(len(case.cells), _D, generator=directions).to(device, torch.float64)

    alpha, lam = torch.tensor(case.cells, dtype=torch.float64, device=device).T[:, :, None]
    norms = [[case.norm(*cell)] for cell in case.cells]
    theta = torch.nn.functional.normalize(random()) * torch.tensor(norms).to(alpha)
    task = Task(momentum=_BETA, beta1=_BETA)
    segment = Segment("θ", 0, _D, SHAPE)
    update = make_update(Optimizer.parse(case.optimizer), task, theta, [segment], alpha=alpha, lam=lam)
    norm = theta.norm(dim=1, keepdim=True)
    u, turned = theta / norm, torch.zeros_like(alpha)
    for t in range(1, SETTLING + MEASURED + 1):
        g = random()
        g -= (g * u).sum(dim=1, keepdim=True) * u
        update.apply(theta, g / (g.norm(dim=1, keepdim=True) * norm), 1.0, t, SETTLING + MEASURED)
        norm = theta.norm(dim=1, keepdim=True)
        before, u = u, theta / norm
        if t > SETTLING:
            turned += torch.acos((before * u).sum(dim=1, keepdim=True))
    return (turned / MEASURED).flatten()
