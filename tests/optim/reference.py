"""A lone lane as its paper writes it: one tensor after the other, one line after the other, no arena.

Sources: Loshchilov & Hutter 2019, Algorithms 1 and 2 (SGD, Adam, and their decays); Reddi et al. 2018,
Algorithm 2; Duchi et al. 2011; Tieleman & Hinton 2012; Heo et al. 2021, Algorithms 1 and 2. Where
torch.optim or the package of Heo et al. does otherwise, a name says which is written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task


@dataclass(frozen=True, slots=True)
class Hyper:
    """The numbers of a family."""

    momentum: float
    beta1: float
    beta2: float
    eps: float
    nesterov: bool

    @classmethod
    def of(cls, task: Task) -> Hyper:
        """Those of a training in which none is left open."""
        values = {name: getattr(task, name) for name in cls.__dataclass_fields__}
        assert None not in values.values()
        return cls(**values)


State = dict[str, Tensor]  # of one tensor
Gradient = Callable[[int, int, Tensor], Tensor]  # which tensor, t = 0, 1, …, its θ → g
# θ, g, state, hyperparameters, η_t α, t = 1, 2, … → what is subtracted from θ, and the ratio of its decay
Step = Callable[[Tensor, Tensor, State, Hyper, float, int], tuple[Tensor, float]]


def sgd_of_the_paper(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Algorithm 1, line 8: α and η inside the buffer."""
    m = h.momentum * state.get("m", torch.zeros_like(g)) + rate * g
    state["m"] = m
    return (h.momentum * m + rate * g if h.nesterov else m), 1.0


def sgd_of_torch(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """α and η outside the buffer."""
    m = h.momentum * state.get("m", torch.zeros_like(g)) + g
    state["m"] = m
    return rate * (g + h.momentum * m if h.nesterov else m), 1.0


def _moments_of_adam(g: Tensor, state: State, h: Hyper) -> tuple[Tensor, Tensor]:
    """Algorithm 2, lines 7 and 8."""
    state["m"] = h.beta1 * state.get("m", torch.zeros_like(g)) + (1 - h.beta1) * g
    state["v"] = h.beta2 * state.get("v", torch.zeros_like(g)) + (1 - h.beta2) * g**2
    return state["m"], state["v"]


def adam(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Algorithm 2, lines 9, 10 and 12."""
    m, v = _moments_of_adam(g, state, h)
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    return rate * m_hat / (v_hat.sqrt() + h.eps), 1.0


def amsgrad_of_torch(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """The maximum of v, bias-corrected when it is used."""
    m, v = _moments_of_adam(g, state, h)
    state["max"] = torch.maximum(state.get("max", torch.zeros_like(v)), v)
    m_hat = m / (1 - h.beta1**t)
    return rate * m_hat / ((state["max"] / (1 - h.beta2**t)).sqrt() + h.eps), 1.0


def amsgrad_of_reddi(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Algorithm 2 of Reddi et al.: no bias corrections."""
    m, v = _moments_of_adam(g, state, h)
    state["max"] = torch.maximum(state.get("max", torch.zeros_like(v)), v)
    return rate * m / state["max"].sqrt(), 1.0


def adagrad(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """The sum of all squared gradients; ε beside the root."""
    state["sum"] = state.get("sum", torch.zeros_like(g)) + g**2
    return rate * g / (state["sum"].sqrt() + h.eps), 1.0


def rmsprop(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """The running mean of squared gradients, from 0 and uncorrected; a buffer of what it gives."""
    state["v"] = h.beta2 * state.get("v", torch.zeros_like(g)) + (1 - h.beta2) * g**2
    state["m"] = h.momentum * state.get("m", torch.zeros_like(g)) + g / (state["v"].sqrt() + h.eps)
    return rate * state["m"], 1.0


def projected(
    theta: Tensor, g: Tensor, p: Tensor, eps: float, delta: float = 0.1, wd_ratio: float = 0.1
) -> tuple[Tensor, float]:
    """Heo et al., equation 12 with the package's ε: by channel, else by layer, else not at all."""
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
    """Without Nesterov the projected step is the buffer from then on."""
    m = h.momentum * state.get("m", torch.zeros_like(g)) + g
    p, ratio = projected(theta, g, g + h.momentum * m if h.nesterov else m, 1e-8)
    state["m"] = m if h.nesterov else p
    return rate * p, ratio


def sgdp_of_the_paper(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Algorithm 1 of Heo et al.: the buffer is not touched by the projection."""
    state["m"] = h.momentum * state.get("m", torch.zeros_like(g)) + g
    p, ratio = projected(theta, g, state["m"], 1e-8)
    return rate * p, ratio


def adamp(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Algorithm 2 of Heo et al., with Adam's corrections as in the package."""
    m, v = _moments_of_adam(g, state, h)
    above = h.beta1 * m + (1 - h.beta1) * g if h.nesterov else m
    p = above / (1 - h.beta1**t) / ((v / (1 - h.beta2**t)).sqrt() + h.eps)
    p, ratio = projected(theta, g, p, h.eps)
    return rate * p, ratio


@torch.inference_mode()
def follow(
    step: Step,
    optimizer: Optimizer,
    task: Task,
    tensors: Sequence[Tensor],
    gradient: Gradient,
    alpha: float,
    lam: float,
) -> list[Tensor]:
    """The tensors after all steps of the training, for one α and one λ (λ_norm where it is normalised)."""
    task = task.of(optimizer)
    h = Hyper.of(task)
    gain = 1 / (1 - h.momentum) if optimizer.family is Family.SGDP else 1.0
    states: list[State] = [{} for _ in tensors]
    found = list(tensors)
    for t in range(task.steps):
        eta, n = task.timetable.eta(t), task.timetable.steps_of_cycle(t)
        for k, theta in enumerate(found):
            decay = lam / math.sqrt(n) if optimizer.normalized else lam
            if f"tensor{k}" in task.undecayed or (not task.decay_all and theta.dim() == 1):
                decay = 0.0
            g = gradient(k, t, theta)
            if optimizer.rule is DecayRule.COUPLED:
                g = g + decay * theta
            p, ratio = step(theta, g, states[k], h, eta * alpha, t + 1)
            taken = {
                DecayRule.COUPLED: 0.0,
                DecayRule.INDEPENDENT: eta * decay * ratio,
                DecayRule.LR_SCALED: eta * alpha * decay * ratio * gain,
                DecayRule.FIXED: decay * ratio,
                DecayRule.CORRECTED: eta**2 * alpha * decay * ratio,
            }[optimizer.rule]
            found[k] = theta - taken * theta - p
    return found
