"""The claims of the AdamW paper as numbers: Propositions 1, 2 and 3 (section 2, proofs in appendix A).

Section 3 reads decoupled decay as Bayesian filtering (Aitchison 2018).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lrwd_sweep.lab.evidence import Check, Relation, Section
from lrwd_sweep.lab.verify.problem import STEPS, Gradient, Problem, error, iterates
from lrwd_sweep.optim import Segment, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task

ROUNDING = 1e-12  # rounding error of a hundred steps in float64
APART = 1e-3  # beyond rounding error
_HEADINGS = ("shown",)


def proposition_1(device: torch.device) -> Section:
    """Show that L2 with λ′ = λ/α is decay λ for SGD; with momentum they agree only in the long run."""
    problem = Problem.on(device)
    l2 = problem.lam / problem.alpha

    def compare(momentum: float, factor: float, schedule: Schedule) -> float:
        task = Task(momentum=momentum)
        ours = iterates("sgd", problem, lam=factor * l2, schedule=schedule, task=task)
        decay = iterates("sgdw", problem, lam=problem.lam, schedule=schedule, task=task)
        return error(ours, decay)

    differ = Relation.DIFFER
    equal = (
        Check((f"sgd with λ′ is sgdw with λ, {schedule} schedule",), compare(0.0, 1.0, schedule), ROUNDING)
        for schedule in (Schedule.FIXED, Schedule.COSINE)
    )
    return Section(
        "Proposition 1: without momentum, SGD with L2 λ′ = λ/α is SGD with decay λ",
        _HEADINGS,
        (
            *equal,
            Check(
                ("with momentum 0.9 it is not",),
                compare(0.9, 1.0, Schedule.FIXED),
                APART,
                differ,
                "the buffer holds α λ′ θ too, and repeats it 1/(1−β₁) times",
            ),
            Check(
                ("with momentum 0.9 and λ′ = (1−β₁) λ/α it is not either, step by step",),
                compare(0.9, 0.1, Schedule.FIXED),
                1e-6,
                differ,
                "the buffer delays the decay",
            ),
            Check(("but θ shrinks at that rate in the long run, up to O(λ)",), _long_run(device), 1e-3),
        ),
    )


def _long_run(device: torch.device) -> float:
    """Compare the rates at which θ falls without a gradient, at λ = 1e-4 and β₁ = 0.9.

    The larger root of r² − (1 + β₁ − αλ′) r + β₁ is 1 − λ(1 + λβ₁/(1−β₁) + …) for αλ′ = (1−β₁)λ.
    """
    lam, steps = 1e-4, 400
    alpha = torch.full((1, 1), 0.1, dtype=torch.float64, device=device)
    rates = []
    for name, decay in (("sgd", 0.1 * lam / alpha), ("sgdw", lam * torch.ones_like(alpha))):
        theta = torch.ones_like(alpha)
        update = make_update(
            Optimizer.parse(name),
            Task(momentum=0.9),
            theta,
            [Segment("θ", 0, 1, (1,))],
            alpha=alpha,
            lam=decay,
        )
        middle = theta
        for t in range(1, steps + 1):
            update.apply(theta, torch.zeros_like(theta), 1.0, t, steps)
            if t == steps // 2:
                middle = theta.clone()
        rates.append(torch.log(middle / theta))
    return error(*rates)


# Proposition 2's witness: two coordinates whose gradients differ in size, so that M_t is not a multiple of I.
SIZES = (1.0, 1e-3)


def proposition_2(device: torch.device) -> Section:
    """Show that no L2 equals decay for Adam: each coordinate needs another λ′."""
    decayed = _witness("adamw", torch.full((1, 1), 1e-3, dtype=torch.float64, device=device))
    needed = _needed(decayed)
    large, small = needed.flatten().tolist()
    l2 = _witness("adam", needed)  # (2, 2): a λ′ per lane, a coordinate per column
    names = ("θ₁", "θ₂")
    checks = [
        Check(
            (f"adam with λ′ = {needed[k].item():.4g} {verb} adamw in {names[j]} (|g| ≈ {SIZES[j]:g})",),
            error(l2[k, j], decayed[0, j]),
            bound,
            relation,
            "" if k == j else f"that λ′ is for |g| ≈ {SIZES[k]:g}",
        )
        for k in range(2)
        for j in range(2)
        for verb, bound, relation in [
            ("meets", 1e-10, Relation.AGREE) if k == j else ("misses", APART, Relation.DIFFER)
        ]
    ]
    apart = Check(
        (f"the λ′ that θ₁ needs is {large / small:,.0f} times that of θ₂",),
        abs(large - small) / large,
        0.99,
        Relation.DIFFER,
        "λ′ must be λ √v̂/α, and √v̂ is a matter of the coordinate",
    )
    return Section(
        "Proposition 2: for Adam no λ′ makes L2 of decay λ (here λ = 0.001, α = 0.01)",
        _HEADINGS,
        (*checks, apart),
    )


def _witness(name: str, lam: Tensor) -> Tensor:  # (L, 1) → (L, 2)
    """Return θ after STEPS steps from (1, 1), under gradients that change sign but not size."""
    theta = torch.ones(len(lam), 2, dtype=lam.dtype, device=lam.device)
    sizes = theta.new_tensor(SIZES)
    segment = Segment("θ", 0, 2, (2,))
    update = make_update(
        Optimizer.parse(name), Task(), theta, [segment], alpha=torch.full_like(lam, 0.01), lam=lam
    )
    for t in range(1, STEPS + 1):
        sign = 1 if math.sin(t * t) > 0 else -1
        update.apply(theta, (sign * sizes).expand(len(lam), -1).clone(), 1.0, t, STEPS)
    return theta


def _needed(decayed: Tensor) -> Tensor:  # (1, 2) → (2, 1)
    """Find by bisection of ln λ′, for each coordinate, the λ′ with which Adam ends where AdamW does."""
    low, high = torch.full_like(decayed.T, 1e-7).log(), torch.full_like(decayed.T, 1.0).log()
    for _ in range(50):
        middle = (low + high) / 2
        too_weak = _witness("adam", middle.exp()).diagonal()[:, None] > decayed.T
        low, high = torch.where(too_weak, middle, low), torch.where(too_weak, high, middle)
    return ((low + high) / 2).exp()


def proposition_3(device: torch.device) -> Section:
    """Show that decay λ with a fixed preconditioner diag(s)⁻¹ is L2 of θ ⊙ √s."""
    problem = Problem.on(device)
    j = torch.arange(problem.theta.shape[1], dtype=torch.float64, device=device)
    s = 10 ** torch.sin(j)  # from 0.1 to 10
    task = Task(momentum=0.0)  # SGD whose gradient is M g: the preconditioner of the proposition
    l2 = problem.lam / problem.alpha

    def preconditioned(strength: Tensor, scale: Tensor) -> Gradient:
        """Return M times the gradient of f_t + (strength/2) ‖θ ⊙ √scale‖², the penalty's by autograd."""

        def gradient(theta: Tensor, t: int) -> Tensor:
            at = theta.clone().requires_grad_()
            penalty = (strength / 2 * (at * scale.sqrt()).square()).sum()
            (of_penalty,) = torch.autograd.grad(penalty, at)
            return (problem.gradient(theta, t) + of_penalty) / s

        return gradient

    none = torch.zeros_like(problem.lam)
    decayed = iterates("sgdw", replace(problem, gradient=preconditioned(none, s)), lam=problem.lam, task=task)

    def compare(strength: Tensor, scale: Tensor) -> float:
        penalised = replace(problem, gradient=preconditioned(strength, scale))
        return error(iterates("sgd", penalised, lam=none, task=task), decayed)

    return Section(
        "Proposition 3: with the preconditioner diag(s)⁻¹, decay λ is a penalty that s scales, λ′ = λ/α",
        _HEADINGS,
        (
            Check(("penalty (λ′/2) ‖θ ⊙ √s‖², as in the proof",), compare(l2, s), ROUNDING),
            Check(
                ("penalty (λ′/(2 α)) ‖θ ⊙ √s‖², as equation (2) is printed",),
                compare(l2 / problem.alpha, s),
                APART,
                Relation.DIFFER,
                "a 1/α too many: λ′ = λ/α holds it already",
            ),
            Check(
                ("penalty (λ′/2) ‖θ‖², plain L2",),
                compare(l2, torch.ones_like(s)),
                APART,
                Relation.DIFFER,
                "Proposition 2: M is not a multiple of the identity",
            ),
        ),
    )


_N, _SEEN = 6, 3  # unknowns, and how many numbers a batch measures of them
_LAM, _Q, _R = 5e-3, 1e-3, 0.5  # decay; variances of the drift of θ and of a measurement


def filtering_identity(device: torch.device) -> Section:
    """Show that the filter of a Gaussian with drift N((I − λI)θ, Q) moves its mean by equation (1)."""
    one = torch.ones((1, 1), dtype=torch.float64, device=device)
    start = torch.linspace(-1, 2, _N, dtype=torch.float64, device=device)[None]
    means, covariances = _kalman(start[0])
    layout = (Segment("θ", 0, _N, (_N,)),)
    task = Task(momentum=0.0)

    def drifted(theta: Tensor, t: int) -> Tensor:
        """Evaluate the likelihood's gradient at the prior's mean (1−λ)θ, equation (3)."""
        return _preconditioned((1 - _LAM) * theta, t, covariances[t - 1])

    def penalised(theta: Tensor, t: int) -> Tensor:
        """Replace the drift by L2 of strength λ on average; Σ_post multiplies the penalty too."""
        sigma = covariances[t - 1]
        return _preconditioned(theta, t, sigma) + _LAM * theta @ sigma / sigma.diagonal().mean()

    # α = 1: Σ_post is the whole step.
    decayed = iterates("sgdw", Problem(layout, start, one, one, drifted), lam=_LAM * one, task=task)
    l2 = iterates("sgd", Problem(layout, start, one, one, penalised), lam=0 * one, task=task)
    return Section(
        "Filtering: a drift N((I − A) θ, Q) with A = λ I is decoupled decay, equation (1)",
        ("shown",),
        (
            Check(
                ("the Kalman filter's mean is sgdw with M = Σ_post, g at (1−λ) θ",),
                error(decayed, means),
                ROUNDING,
            ),
            Check(
                ("L2 of the same strength on average is not",),
                error(l2, means),
                APART,
                Relation.DIFFER,
                "it acts through the uncertainty Σ_post, the drift does not",
            ),
        ),
    )


def _batch(t: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the measurement H (seen, n) of batch t and its result y (seen,)."""
    cells = torch.arange(_SEEN * _N, dtype=like.dtype, device=like.device)
    return torch.sin(cells * cells + 1.7 * t).view(_SEEN, _N), torch.cos(0.3 * t + cells[:_SEEN])


def _kalman(mean: Tensor) -> tuple[Tensor, Tensor]:  # (n,) → (steps, 1, n), (steps, n, n)
    """Compute means and covariances of the filter in its textbook form, by the gain K."""
    eye = torch.eye(_N, dtype=mean.dtype, device=mean.device)
    sigma, means, covariances = eye, [], []
    for t in range(1, STEPS + 1):
        H, y = _batch(t, mean)
        mean = (1 - _LAM) * mean
        sigma = (1 - _LAM) ** 2 * sigma + _Q * eye
        K = sigma @ H.T @ torch.linalg.inv(H @ sigma @ H.T + _R * eye[:_SEEN, :_SEEN])
        mean = mean + K @ (y - H @ mean)
        sigma = (eye - K @ H) @ sigma
        means.append(mean[None])
        covariances.append(sigma)
    return torch.stack(means), torch.stack(covariances)


def _preconditioned(theta: Tensor, t: int, sigma: Tensor) -> Tensor:  # (1, n)
    """Compute Σ_post times the gradient of −log P(y | θ)."""
    H, y = _batch(t, theta)
    return (sigma @ (H.T @ (H @ theta[0] - y) / _R))[None]
