"""Every optimizer as its paper writes it: one run, one tensor, line after line, in the precision of θ.

Written independently of `optim`, which `verify` and the tests compare with these algorithms. Sources:
Loshchilov & Hutter 2019, Algorithms 1 and 2 (SGD, Adam and their decays); Reddi et al. 2018, Algorithm 2;
Duchi et al. 2011; Tieleman & Hinton 2012; Heo et al. 2021, Algorithms 1 and 2; Chen et al. 2023, and 2025
for cautious decay; Zhang et al. 2017; Jordan et al. 2024; Defazio et al. 2024; Taniguchi et al. 2024. K-FAC,
which needs a network, is a class: Martens & Grosse 2015, and Grosse & Martens 2016 for convolutions. A
function's name says which version it is if torch.optim or the authors' package departs from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.science.optimizer import DecayRule, Family, MomentumForm, Optimizer
from lrwd_sweep.spec.task import Task


@dataclass(frozen=True, slots=True)
class Hyper:
    """Hyperparameters of a family."""

    momentum: float
    beta1: float
    beta2: float
    eps: float
    nesterov: bool

    @classmethod
    def of(cls, task: Task) -> Hyper:
        """Take them from a task in which none is left open."""
        values = {name: getattr(task, name) for name in cls.__dataclass_fields__}
        assert None not in values.values()
        return cls(**values)


State = dict[str, Tensor]  # moments of one tensor
Gradient = Callable[[int, int, Tensor], Tensor]  # index of the tensor, t = 0, 1, …, its θ → g
# θ, g, state, hyperparameters, η_t α, t = 1, 2, … → what is subtracted from θ, and the ratio of its decay
Step = Callable[[Tensor, Tensor, State, Hyper, float, int], tuple[Tensor, float]]
Rule = Callable[..., Tensor]  # θ, g, η_t, t = 1, 2, …, N of decay, multiplier of decay → the new θ


def sgd_of_the_paper(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Follow Algorithm 1, line 8: α and η stand inside the buffer."""
    m = h.momentum * state.get("m", torch.zeros_like(g)) + rate * g
    state["m"] = m
    return (h.momentum * m + rate * g if h.nesterov else m), 1.0


def sgd_of_torch(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Follow torch.optim.SGD: α and η stand outside the buffer."""
    m = h.momentum * state.get("m", torch.zeros_like(g)) + g
    state["m"] = m
    return rate * (g + h.momentum * m if h.nesterov else m), 1.0


def adam(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Follow Algorithm 2, lines 7 to 12."""
    m, v = _moments(g, state, h)
    m_hat, v_hat = m / (1 - h.beta1**t), v / (1 - h.beta2**t)
    return rate * m_hat / (v_hat.sqrt() + h.eps), 1.0


def _moments(g: Tensor, state: State, h: Hyper) -> tuple[Tensor, Tensor]:
    """Update m and v as Algorithm 2, lines 7 and 8."""
    state["m"] = h.beta1 * state.get("m", torch.zeros_like(g)) + (1 - h.beta1) * g
    state["v"] = h.beta2 * state.get("v", torch.zeros_like(g)) + (1 - h.beta2) * g**2
    return state["m"], state["v"]


def amsgrad_of_torch(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Follow torch.optim.Adam(amsgrad=True): the maximum of v, bias-corrected when it is used."""
    m, v = _moments(g, state, h)
    state["max"] = torch.maximum(state.get("max", torch.zeros_like(v)), v)
    m_hat, v_hat = m / (1 - h.beta1**t), state["max"] / (1 - h.beta2**t)
    return rate * m_hat / (v_hat.sqrt() + h.eps), 1.0


def adagrad(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Divide by the root of the sum of all squared gradients; ε stands beside the root."""
    state["sum"] = state.get("sum", torch.zeros_like(g)) + g**2
    return rate * g / (state["sum"].sqrt() + h.eps), 1.0


def rmsprop(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Divide by the root of the running mean of squared gradients, uncorrected; a buffer holds the ratio."""
    state["v"] = h.beta2 * state.get("v", torch.zeros_like(g)) + (1 - h.beta2) * g**2
    state["m"] = h.momentum * state.get("m", torch.zeros_like(g)) + g / (state["v"].sqrt() + h.eps)
    return rate * state["m"], 1.0


def projected(
    theta: Tensor, g: Tensor, p: Tensor, eps: float, delta: float = 0.1, wd_ratio: float = 0.1
) -> tuple[Tensor, float]:
    """Project p as Heo et al., equation 12, with the package's ε: by channel, else by layer, else not."""
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
    """Follow the authors' package: without Nesterov the projected step becomes the buffer."""
    m = h.momentum * state.get("m", torch.zeros_like(g)) + g
    p, ratio = projected(theta, g, g + h.momentum * m if h.nesterov else m, 1e-8)
    state["m"] = m if h.nesterov else p
    return rate * p, ratio


def adamp(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Follow Algorithm 2 of Heo et al., with Adam's corrections as in the package."""
    m, v = _moments(g, state, h)
    above = h.beta1 * m + (1 - h.beta1) * g if h.nesterov else m
    p = above / (1 - h.beta1**t) / ((v / (1 - h.beta2**t)).sqrt() + h.eps)
    p, ratio = projected(theta, g, p, h.eps)
    return rate * p, ratio


def lion(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Follow Chen et al. 2023, Algorithm 2."""
    m = state.get("m", torch.zeros_like(g))
    state["m"] = h.beta2 * m + (1 - h.beta2) * g
    return rate * torch.sign(h.beta1 * m + (1 - h.beta1) * g), 1.0


def adopt(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Follow Taniguchi et al. 2024, Algorithm 2, with the authors' clipping at (t−1)^¼."""
    v, m = state.get("v"), state.get("m", torch.zeros_like(g))
    if v is None:
        state["v"] = g**2
        return torch.zeros_like(g), 1.0
    limit = (t - 1) ** 0.25
    state["m"] = h.beta1 * m + (1 - h.beta1) * (g / v.sqrt().clamp_min(h.eps)).clamp(-limit, limit)
    state["v"] = h.beta2 * v + (1 - h.beta2) * g**2
    return rate * state["m"], 1.0


def schedule_free(
    theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int
) -> tuple[Tensor, float]:
    """Follow Defazio et al. 2024, Algorithm 1, lines 5 and 6: the gradient at y, divided by √v̂ + ε."""
    state["v"] = h.beta2 * state.get("v", torch.zeros_like(g)) + (1 - h.beta2) * g**2
    return rate * g / ((state["v"] / (1 - h.beta2**t)).sqrt() + h.eps), 1.0


def averaged(y: Tensor, s: Tensor, state: State, h: Hyper, eta: float) -> Tensor:
    """Follow lines 7 to 9: move z by s, average it into x, and return the next y."""
    z, x = state.get("z", y) - s, state.get("x", y)
    largest = torch.maximum(state.get("largest", torch.zeros(())), torch.tensor(eta, dtype=y.dtype))
    total = state.get("total", torch.zeros(())) + largest**2
    x = x + largest**2 / total * (z - x)
    state.update(z=z, x=x, largest=largest, total=total)
    return (1 - h.beta1) * z + h.beta1 * x


def muon(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Follow Jordan et al. 2024 with the scale of Liu et al. 2025, equation 4; Adam but for matrices."""
    if theta.dim() != 2:
        return adam(theta, g, state, h, rate, t)
    m = state["m"] = h.momentum * state.get("m", torch.zeros_like(g)) + (1 - h.momentum) * g
    u = h.momentum * m + (1 - h.momentum) * g
    x = u / max(float(u.norm()), 1e-7)
    for _ in range(5):  # in the order of the rows, also where the columns are fewer
        square = x @ x.T
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    return rate * 0.2 * math.sqrt(max(theta.shape)) * x, 1.0


def nd_adam(theta: Tensor, g: Tensor, state: State, h: Hyper, rate: float, t: int) -> tuple[Tensor, float]:
    """Follow Zhang et al. 2017, Algorithm 2, row by row; Adam for what is no matrix."""
    if theta.dim() < 2:
        return adam(theta, g, state, h, rate, t)
    moved = []
    w, slopes = theta.flatten(1), g.flatten(1)
    m, v = state.get("m", torch.zeros_like(w)), state.get("v", torch.zeros_like(w[:, 0]))
    tangents = [slope - slope.dot(row) * row for row, slope in zip(w, slopes, strict=True)]
    m = state["m"] = torch.stack([h.beta1 * a + (1 - h.beta1) * b for a, b in zip(m, tangents, strict=True)])
    v = state["v"] = torch.stack(
        [h.beta2 * a + (1 - h.beta2) * b.dot(b) for a, b in zip(v, tangents, strict=True)]
    )
    for row, mean, square in zip(w, m, v, strict=True):
        ahead = row - rate * mean / (1 - h.beta1**t) / ((square / (1 - h.beta2**t)).sqrt() + h.eps)
        moved.append(ahead / ahead.norm())
    return theta - torch.stack(moved).view_as(theta), 1.0


def start_of(optimizer: Optimizer, theta: Tensor) -> Tensor:
    """Return where training begins: for ND-Adam, with rows of the norm 1."""
    if optimizer.family is not Family.NDADAM or theta.dim() < 2:
        return theta
    return torch.stack([row / row.norm() for row in theta])


STEPS: dict[Family, Step] = {  # SGD's in the form of the paper
    Family.SGD: sgd_of_the_paper,
    Family.ADAM: adam,
    Family.AMSGRAD: amsgrad_of_torch,
    Family.ADAGRAD: adagrad,
    Family.RMSPROP: rmsprop,
    Family.SGDP: sgdp_of_the_package,
    Family.ADAMP: adamp,
    Family.LION: lion,
    Family.ADOPT: adopt,
    Family.SCHEDULE_FREE: schedule_free,
    Family.MUON: muon,
    Family.NDADAM: nd_adam,
}


def step_of(optimizer: Optimizer, task: Task) -> Step:
    """Return the algorithm of an optimizer's family, in the task's form of momentum."""
    assert optimizer.family is not None, "an imported study has no algorithm"
    torch_form = optimizer.family is Family.SGD and task.momentum_form is MomentumForm.TORCH
    return sgd_of_torch if torch_form else STEPS[optimizer.family]


def lone_rule(optimizer: Optimizer, task: Task, alpha: float, lam: float, step: Step | None = None) -> Rule:
    """Return the update of one tensor from step to step, with moments of its own.

    `lam` is the decay in the optimizer's own convention, λ_norm if that is normalised.
    """
    task = task.of(optimizer)
    h, state, chosen = Hyper.of(task), State(), step or step_of(optimizer, task)
    gain = 1 / (1 - h.momentum) if optimizer.family is Family.SGDP else 1.0

    def update(
        theta: Tensor, g: Tensor, eta: float, t: int, n: int, decay_eta: float | None = None
    ) -> Tensor:
        own = eta if decay_eta is None else decay_eta  # the multiplier of decay
        decay = lam / math.sqrt(n) if optimizer.normalized else lam
        if optimizer.rule is DecayRule.COUPLED:
            g = g + decay * theta
        p, ratio = chosen(theta, g, state, h, eta * alpha, t)
        taken = {
            DecayRule.COUPLED: 0.0,
            DecayRule.INDEPENDENT: own * decay * ratio,
            DecayRule.LR_SCALED: own * alpha * decay * ratio * gain,
            DecayRule.FIXED: decay * ratio,
            DecayRule.CORRECTED: eta**2 * alpha * decay * ratio,
        }[optimizer.rule]
        shrunk: Tensor | float = taken
        if optimizer.cautious:
            shrunk = taken * (p * theta >= 0).to(theta.dtype)
        if optimizer.family is Family.SCHEDULE_FREE:
            return averaged(theta, shrunk * theta + p, state, h, eta)
        return theta - shrunk * theta - p

    return update


@torch.inference_mode()
def follow(
    optimizer: Optimizer,
    task: Task,
    tensors: Sequence[Tensor],
    gradient: Gradient,
    alpha: float,
    lam: float,
    step: Step | None = None,
) -> Tensor:
    """Take all steps of the task for one α and one λ; return the flat row at the end.

    The tensors are named tensor0, tensor1, …
    """
    found, times = [start_of(optimizer, theta) for theta in tensors], task.timetable
    decays = [
        f"tensor{k}" not in task.undecayed and (task.decay_all or theta.dim() > 1)
        for k, theta in enumerate(tensors)
    ]
    rules = [lone_rule(optimizer, task, alpha, lam if decay else 0.0, step) for decay in decays]
    for t in range(task.steps):
        for k, (theta, rule) in enumerate(zip(found, rules, strict=True)):
            now = (times.eta(t), t + 1, times.steps_of_cycle(t), times.decay_eta(t))
            found[k] = rule(theta, gradient(k, t, theta), *now)
    return torch.cat([x.flatten() for x in found])


class LoneKfac:
    """K-FAC of one network of nn.Linear, nn.Conv2d and a bias of the logits, whose layers hooks find."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        task: Task,
        alpha: float,
        lam: float,
        noise: torch.Generator,
    ) -> None:
        self.net, self.rule, self.task = net, optimizer.rule, task.of(optimizer)
        self.alpha, self.lam, self.noise = alpha, lam, noise  # targets are sampled by the noise
        self.seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # inputs and outputs
        layers = [part for part in net.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
        for layer in layers:
            layer.register_forward_hook(self._keep)
        self.parts: list[list[Tensor]] = [list(layer.parameters()) for layer in layers]
        if isinstance(bias := getattr(net, "bias", None), Tensor):
            self.parts.append([bias])
        self.means: list[list[Tensor]] = []  # A and G of every layer
        self.damped: list[tuple[Tensor, Tensor]] = []
        self.m: dict[Tensor, Tensor] = {}

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.seen[layer] = (inputs[0].detach(), output)
        return output.clone()  # for operations in place

    def step(self, batches: Sequence[tuple[Tensor, Tensor]], t: int) -> None:
        """Update by the mean of the batches' losses, at t = 0, 1, …."""
        self.net.zero_grad()
        found = []
        for x, y in batches:
            logits = self.net(x)
            found.append(self._factors(logits))
            (functional.cross_entropy(logits, y) / len(batches)).backward()  # type: ignore[no-untyped-call]
        new = [[sum(x) / len(found) for x in zip(*pairs, strict=True)] for pairs in zip(*found, strict=True)]
        past = min(1 - 1 / (t + 1), self.task.factor_ema or 0.0)
        both = [zip(*pairs, strict=True) for pairs in zip(self.means or new, new, strict=True)]
        self.means = [[past * old + (1 - past) * now for old, now in pairs] for pairs in both]
        if t % (self.task.inverse_interval or 1) == 0:
            self.damped = [self._damped(a, g) for a, g in self.means]
        with torch.no_grad():
            self._move(self.task.timetable.eta(t))

    def _factors(self, logits: Tensor) -> list[list[Tensor]]:
        """Return A and G of every layer for targets that the softmax draws."""
        count, p = len(logits), logits.detach().softmax(1)
        u = torch.rand(count, 1, generator=self.noise, dtype=torch.float64, device=logits.device)
        picks = [torch.searchsorted(row.cumsum(0), at * row.sum()) for row, at in zip(p, u, strict=True)]
        picked = functional.cross_entropy(logits, torch.cat(picks), reduction="sum")
        outputs = [output for _, output in self.seen.values()]
        *slopes, at_logits = torch.autograd.grad(picked, [*outputs, logits], retain_graph=True)
        pairs = []
        for (layer, (x, _)), slope in zip(self.seen.items(), slopes, strict=True):
            rows, g = x, slope
            if isinstance(layer, nn.Conv2d):
                x = functional.pad(x, layer._reversed_padding_repeated_twice)  # noqa: PLW2901
                sides = zip((2, 3), layer.kernel_size, layer.stride, strict=True)
                for side in sides:
                    x = x.unfold(*side)  # noqa: PLW2901
                rows = x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
                g = slope.permute(0, 2, 3, 1).flatten(0, 2)
            if layer.bias is not None:
                rows = functional.pad(rows, (0, 1), value=1.0)
            pairs.append([rows.T @ rows / count, g.T @ g / len(g)])
        if len(self.parts) > len(pairs):
            pairs.append([torch.ones_like(p[:1, :1]), at_logits.T @ at_logits / count])
        return pairs

    def _damped(self, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        root = math.sqrt(self.task.damping or 0.0)
        pi = math.sqrt(float(a.trace()) / len(a) / (float(g.trace()) / len(g)))
        return a + pi * root * torch.eye(len(a)).to(a), g + root / pi * torch.eye(len(g)).to(g)

    def _move(self, eta: float) -> None:
        shrunk = {
            DecayRule.COUPLED: 0.0,
            DecayRule.INDEPENDENT: eta * self.lam,
            DecayRule.LR_SCALED: eta * self.alpha * self.lam,
        }[self.rule]
        l2 = self.lam if self.rule is DecayRule.COUPLED else 0.0
        for part, (a, g) in zip(self.parts, self.damped, strict=True):
            columns = [
                (value.grad + l2 * value).view(len(value), -1) for value in part if value.grad is not None
            ]
            u = torch.linalg.solve(g, torch.linalg.solve(a, torch.cat(columns, dim=1), left=False))
            sizes = [x.shape[1] for x in columns]
            for value, step in zip(part, u.split(sizes, 1), strict=True):
                self.m[value] = (self.task.momentum or 0) * self.m.get(value, 0) + step.reshape(value.shape)
                value.copy_(value - shrunk * value - eta * self.alpha * self.m[value])
