"""The algorithms of the papers for a lone lane: one tensor and one line at a time, without an arena.

Sources: Loshchilov & Hutter 2019, Algorithms 1 and 2 (SGD, Adam, and their decays); Reddi et al. 2018,
Algorithm 2; Duchi et al. 2011; Tieleman & Hinton 2012; Heo et al. 2021, Algorithms 1 and 2. If torch.optim
or the package of Heo et al. differs, the name says which one is written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task

State = dict[str, Tensor]  # of one tensor
Gradient = Callable[[int, int, Tensor], Tensor]  # tensor's number, t = 0, 1, …, its θ → g
# θ, g, state, hyperparameters, η_t α, t = 1, 2, … → what is subtracted from θ, and the ratio of its decay
Step = Callable[[Tensor, Tensor, State, "Hyper", float, int], tuple[Tensor, float]]


class Hyper(NamedTuple):
    """The hyperparameters of a family."""

    momentum: float
    beta1: float
    beta2: float
    eps: float
    nesterov: bool


def _of(state: State, name: str, g: Tensor) -> Tensor:
    return state.get(name, torch.zeros_like(g))


def sgd_of_the_paper(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Compute Algorithm 1, line 8: α and η inside the buffer."""
    m = state["m"] = h.momentum * _of(state, "m", g) + rate * g
    return (h.momentum * m + rate * g if h.nesterov else m), 1.0


def sgd_of_torch(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Keep α and η outside the buffer."""
    m = state["m"] = h.momentum * _of(state, "m", g) + g
    return rate * (g + h.momentum * m if h.nesterov else m), 1.0


def _moments_of_adam(g: Tensor, state: State, h: Hyper) -> tuple[Tensor, Tensor]:
    """Compute Algorithm 2, lines 7 and 8."""
    state["m"] = h.beta1 * _of(state, "m", g) + (1 - h.beta1) * g
    state["v"] = h.beta2 * _of(state, "v", g) + (1 - h.beta2) * g**2
    return state["m"], state["v"]


def adam(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Compute Algorithm 2, lines 9, 10 and 12."""
    m, v = _moments_of_adam(g, state, h)
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    return rate * m_hat / (v_hat.sqrt() + h.eps), 1.0


def amsgrad_of_torch(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Take the maximum of v and correct its bias when it is used."""
    m, v = _moments_of_adam(g, state, h)
    state["max"] = torch.maximum(_of(state, "max", g), v)
    m_hat = m / (1 - h.beta1**t)
    return rate * m_hat / ((state["max"] / (1 - h.beta2**t)).sqrt() + h.eps), 1.0


def amsgrad_of_reddi(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Compute Algorithm 2 of Reddi et al.: no bias corrections."""
    m, v = _moments_of_adam(g, state, h)
    state["max"] = torch.maximum(_of(state, "max", g), v)
    return rate * m / state["max"].sqrt(), 1.0


def adagrad(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Divide by the root of the sum of all squared gradients; ε beside the root."""
    state["sum"] = _of(state, "sum", g) + g**2
    return rate * g / (state["sum"].sqrt() + h.eps), 1.0


def rmsprop(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Divide by the root of the uncorrected mean of squared gradients; average the result with momentum."""
    state["v"] = h.beta2 * _of(state, "v", g) + (1 - h.beta2) * g**2
    state["m"] = h.momentum * _of(state, "m", g) + g / (state["v"].sqrt() + h.eps)
    return rate * state["m"], 1.0


def projected(
    theta: Tensor, g: Tensor, p: Tensor, eps: float, delta: float = 0.1, wd_ratio: float = 0.1
) -> tuple[Tensor, float]:
    """Compute equation 12 of Heo et al. with the package's ε: by channel, else by layer, else not at all."""
    if theta.dim() < 2:
        return p, 1.0
    for rows in (theta.shape[0], 1):
        w, dw, step = (x.reshape(rows, -1) for x in (theta, g, p))
        norm, norm_g = w.square().sum(1).sqrt(), dw.square().sum(1).sqrt()
        cosine = (dw * w).sum(1).abs() / (norm_g.clamp_min(eps) * norm.clamp_min(eps))
        if float(cosine.max()) < delta / math.sqrt(w.shape[1]):
            unit = w / (norm + eps)[:, None]
            return (step - unit * (unit * step).sum(1, keepdim=True)).reshape(theta.shape), wd_ratio
    return p, 1.0


def sgdp_of_the_package(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Keep the projected step as the buffer without Nesterov."""
    m = h.momentum * _of(state, "m", g) + g
    p, ratio = projected(theta, g, g + h.momentum * m if h.nesterov else m, 1e-8)
    state["m"] = m if h.nesterov else p
    return rate * p, ratio


def sgdp_of_the_paper(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Compute Algorithm 1 of Heo et al.: the projection does not change the buffer."""
    state["m"] = h.momentum * _of(state, "m", g) + g
    p, ratio = projected(theta, g, state["m"], 1e-8)
    return rate * p, ratio


def adamp(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Compute Algorithm 2 of Heo et al., with Adam's corrections as in the package."""
    m, v = _moments_of_adam(g, state, h)
    above = h.beta1 * m + (1 - h.beta1) * g if h.nesterov else m
    p = above / (1 - h.beta1**t) / ((v / (1 - h.beta2**t)).sqrt() + h.eps)
    p, ratio = projected(theta, g, p, h.eps)
    return rate * p, ratio


class Lane:
    """A lone lane's tensors under one α and one λ (λ_norm if normalised)."""

    def __init__(self, step: Step, optimizer: Optimizer, task: Task, alpha: float, lam: float) -> None:
        self.step, self.optimizer, self.task = step, optimizer, task.of(optimizer)
        self.alpha, self.lam = alpha, lam
        self.hyper = Hyper(*(getattr(self.task, name) for name in Hyper._fields))
        self.states: dict[str, State] = {}

    def updated(self, name: str, theta: Tensor, g: Tensor, eta: float, t: int, n: int = 1) -> Tensor:
        """Compute the new θ of one tensor at step t = 1, 2, …; N is the cycle of normalised decay."""
        rule, task = self.optimizer.rule, self.task
        decay = self.lam / math.sqrt(n) if self.optimizer.normalized else self.lam
        if name in task.undecayed or (not task.decay_all and theta.dim() == 1):
            decay = 0.0
        if rule is DecayRule.COUPLED:
            g = g + decay * theta
        p, ratio = self.step(theta, g, self.states.setdefault(name, {}), self.hyper, eta * self.alpha, t)
        gain = 1 / (1 - self.hyper.momentum) if self.optimizer.family is Family.SGDP else 1.0
        taken = {
            DecayRule.COUPLED: 0.0,
            DecayRule.INDEPENDENT: eta * decay * ratio,
            DecayRule.LR_SCALED: eta * self.alpha * decay * ratio * gain,
            DecayRule.FIXED: decay * ratio,
            DecayRule.CORRECTED: eta**2 * self.alpha * decay * ratio,
        }[rule]
        return theta - taken * theta - p


@torch.inference_mode()
def follow(lane: Lane, tensors: Sequence[Tensor], gradient: Gradient) -> Tensor:
    """Take all steps of the task from these tensors; return the flat row at the end."""
    found, times = list(tensors), lane.task.timetable
    for t in range(lane.task.steps):
        eta, n = times.eta(t), times.steps_of_cycle(t)
        found = [
            lane.updated(f"tensor{k}", theta, gradient(k, t, theta), eta, t + 1, n)
            for k, theta in enumerate(found)
        ]
    return torch.cat([x.flatten() for x in found])
