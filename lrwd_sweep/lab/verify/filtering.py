"""Decoupled decay as Bayesian filtering (Aitchison 2018; AdamW paper, section 3), as numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from lrwd_sweep.lab.evidence import Check, Relation, Section
from lrwd_sweep.lab.verify.problem import STEPS, Problem, error, iterates
from lrwd_sweep.lab.verify.propositions import APART, ROUNDING
from lrwd_sweep.optim import Segment
from lrwd_sweep.spec.task import Task

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
