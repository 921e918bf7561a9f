"""The optimizer families: each formula once, in torch, in the letters of its paper.

Moments have the shape of the arena, (L, P). The bias corrections of Adam and its relatives cost no pass
over the arena: m̂/(√v̂ + ε) = m/(√v + ε√(1−β₂ᵗ)) · √(1−β₂ᵗ)/(1−β₁ᵗ).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lrwd_sweep.optim.matrices import Muon, NdAdam, known
from lrwd_sweep.optim.update import Now, Projection, Segment, Step, StepFamily
from lrwd_sweep.science.optimizer import Family, MomentumForm
from lrwd_sweep.spec.task import Task


@dataclass(frozen=True, slots=True)
class Sgd(StepFamily):
    """m ← β₁m + η_t α g ; the step is m, with Nesterov β₁m + η_t α g.

    Algorithm 1 of Loshchilov & Hutter 2019: α and η_t act inside the buffer.
    """

    beta1: float
    nesterov: bool
    m: Tensor

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Compute line 8 of Algorithm 1."""
        if not self.nesterov:
            return Step(self.m.mul_(self.beta1).addcmul_(g, now.eta * alpha))
        g.mul_(now.eta * alpha)
        self.m.mul_(self.beta1).add_(g)
        return Step(g.add_(self.m, alpha=self.beta1))


@dataclass(frozen=True, slots=True)
class TorchSgd(StepFamily):
    """m ← β₁m + g ; the step is η_t α m, with Nesterov η_t α (g + β₁m), as in torch.optim.SGD.

    It agrees with `Sgd` while η_t is constant.
    """

    beta1: float
    nesterov: bool
    m: Tensor

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Scale the whole buffer by η_t α."""
        self.m.mul_(self.beta1).add_(g)
        return Step(g.add_(self.m, alpha=self.beta1) if self.nesterov else self.m, now.eta * alpha)


@dataclass(frozen=True, slots=True)
class Sgdp(StepFamily):
    """m ← Π(β₁m + g) ; the step is η_t α m. With Nesterov m ← β₁m + g ; the step is η_t α Π(g + β₁m).

    Heo et al. 2021. Without Nesterov the buffer itself is projected, as in the authors' package; their
    Algorithm 1 projects a copy.
    """

    beta1: float
    nesterov: bool
    m: Tensor
    projection: Projection

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Scale the whole projected buffer by η_t α."""
        self.m.mul_(self.beta1).add_(g)
        p = torch.add(g, self.m, alpha=self.beta1) if self.nesterov else self.m
        projected = self.projection.apply(theta, g, p)
        return Step(p, now.eta * alpha, projected)


@dataclass(frozen=True, slots=True)
class Adam(StepFamily):
    """m ← β₁m + (1−β₁) g ; v ← β₂v + (1−β₂) g² ; the step is η_t α m̂/(√v̂ + ε).

    Algorithm 2 of Loshchilov & Hutter 2019, with ε outside the bias correction as in torch.optim.
    """

    beta1: float
    beta2: float
    eps: float
    m: Tensor
    v: Tensor

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Compute lines 7 to 12 of Algorithm 2, with m̂ = m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ)."""
        self.m.lerp_(g, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        denominator = torch.sqrt(self.v, out=g).add_(self.eps * now.root2)
        scale = alpha * (now.eta * now.root2 / now.rest1)
        return Step(torch.div(self.m, denominator, out=g), scale)


@dataclass(frozen=True, slots=True)
class Amsgrad(StepFamily):
    """m, v as in Adam ; u ← max(u, v) ; the step is η_t α m̂/(√û + ε), û = u/(1−β₂ᵗ).

    Reddi et al. 2018 in the form of torch.optim.Adam(amsgrad=True): the maximum is taken of the uncorrected
    v. Algorithm 2 of the paper has no corrections: its step is η_t α m/√u.
    """

    beta1: float
    beta2: float
    eps: float
    m: Tensor
    v: Tensor
    u: Tensor  # the largest v so far

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Compute Adam's step with u in place of v."""
        self.m.lerp_(g, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        torch.maximum(self.u, self.v, out=self.u)
        denominator = torch.sqrt(self.u, out=g).add_(self.eps * now.root2)
        scale = alpha * (now.eta * now.root2 / now.rest1)
        return Step(torch.div(self.m, denominator, out=g), scale)


@dataclass(frozen=True, slots=True)
class Adamp(StepFamily):
    """m, v as in Adam ; the step is η_t α Π(m̂/(√v̂ + ε)). Heo et al. 2021.

    With Nesterov β₁m + (1−β₁) g replaces m in the step.
    """

    beta1: float
    beta2: float
    eps: float
    nesterov: bool
    m: Tensor
    v: Tensor
    projection: Projection

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Project Adam's step; Π is linear, so the bias corrections stay in the scale."""
        self.m.lerp_(g, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        p = torch.sqrt(self.v).add_(self.eps * now.root2)
        torch.div(torch.lerp(self.m, g, 1 - self.beta1) if self.nesterov else self.m, p, out=p)
        projected = self.projection.apply(theta, g, p)
        return Step(p, alpha * (now.eta * now.root2 / now.rest1), projected)


@dataclass(frozen=True, slots=True)
class Adagrad(StepFamily):
    """v ← v + g² ; the step is η_t α g/(√v + ε).

    Duchi et al. 2011, with ε beside the root as in torch.optim.
    """

    eps: float
    v: Tensor

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Divide g by the root of the sum of all squares."""
        self.v.addcmul_(g, g)
        return Step(g.div_(torch.sqrt(self.v).add_(self.eps)), now.eta * alpha)


@dataclass(frozen=True, slots=True)
class Rmsprop(StepFamily):
    """v ← β₂v + (1−β₂) g² ; d = g/(√v + ε) ; the step is η_t α d, with momentum η_t α m, m ← β₁m + d.

    Tieleman & Hinton 2012, with ε beside the root and α outside the buffer as in torch.optim. v starts at 0
    and is not corrected for it.
    """

    beta1: float
    beta2: float
    eps: float
    v: Tensor
    m: Tensor | None  # None without momentum

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Divide g by the root of the mean square, and average with momentum."""
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        denominator = torch.sqrt(self.v).add_(self.eps)
        if self.m is None:
            return Step(g.div_(denominator), now.eta * alpha)
        return Step(self.m.mul_(self.beta1).addcdiv_(g, denominator), now.eta * alpha)


@dataclass(frozen=True, slots=True)
class Lion(StepFamily):
    """The step is η_t α sign(β₁m + (1−β₁) g) ; m ← β₂m + (1−β₂) g. Chen et al. 2023, Algorithm 2."""

    beta1: float
    beta2: float
    m: Tensor

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Compute the sign of the interpolation, then update m."""
        c = torch.lerp(self.m, g, 1 - self.beta1)
        direction = torch.where(c.isnan(), c, c.sign())  # torch's sign of NaN is 0, which hides divergence
        self.m.lerp_(g, 1 - self.beta2)
        return Step(direction, now.eta * alpha)


@dataclass(frozen=True, slots=True)
class Adopt(StepFamily):
    """The step is η_t α m, m ← β₁m + (1−β₁) clip(g/max(√v, ε), (t−1)^¼) ; v ← β₂v + (1−β₂) g² after it.

    Taniguchi et al. 2024, Algorithm 2. The first step only sets v = g², and decays.
    """

    beta1: float
    beta2: float
    eps: float
    m: Tensor
    v: Tensor

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Divide g by the root of the v of the step before, so that they are independent."""
        most = torch.as_tensor((now.t - 1) ** 0.25, dtype=g.dtype)  # 0 at the first step: m stays 0
        ratio = (g / torch.sqrt(self.v).clamp_min_(self.eps)).clamp_(-most, most)
        self.m.lerp_(ratio, 1 - self.beta1)
        share = 1 - self.beta2 + self.beta2 * torch.as_tensor(now.t == 1, dtype=g.dtype)
        self.v.mul_(self.beta2).addcmul_(g, g * share)
        return Step(self.m, now.eta * alpha)


@dataclass(frozen=True, slots=True)
class ScheduleFree(StepFamily):
    """z ← z − s, s = η_t α g/(√v̂ + ε) and decay at y ; x ← (1−c)x + cz ; y ← (1−β₁)z + β₁x.

    Defazio et al. 2024, Algorithm 1: θ is y, where gradients are taken, and the result is the average x. A
    step weighs c = w/Σw, w the square of the largest η so far, as in the authors' AdamWScheduleFree. x is not
    stored: y ← y + c(z − y) − (1 − β₁(1−c)) s.
    """

    beta1: float
    beta2: float
    eps: float
    z: Tensor
    v: Tensor
    weights: Tensor  # (L, 2): the largest η, and Σw
    averages = True

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Divide g by √v̂ + ε."""
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        direction = g.div_(torch.sqrt(self.v).add_(self.eps * now.root2))
        return Step(direction, alpha * (now.eta * now.root2))

    def settle(self, before: Tensor, theta: Tensor, alpha: Tensor, now: Now) -> None:
        """Move y and z by s, which is `before` − θ, and y to the new average. Lanes with α = 0 stay."""
        s = before - theta
        largest, total = self.weights[:, :1], self.weights[:, 1:]
        largest.clamp_min_(now.eta)
        w = torch.where(alpha > 0, largest**2, 0)
        total.add_(w)
        c = torch.where(w > 0, w / total, 0)
        torch.lerp(before, self.z, c, out=theta)
        theta.sub_(s * (1 - self.beta1 * (1 - c)))
        self.z.sub_(s)

    def average(self, theta: Tensor) -> Tensor:
        """Return x = (y − (1−β₁)z)/β₁."""
        return torch.lerp(theta, self.z, 1 - 1 / self.beta1)


def new_family(
    family: Family, task: Task, theta: Tensor, layout: Sequence[Segment], projection: Projection
) -> StepFamily:
    """Make the family with its hyperparameters and fresh moments."""
    momentum, eps = known(task.momentum), known(task.eps)
    beta1, beta2 = known(task.beta1), known(task.beta2)
    zeros = partial(torch.zeros_like, theta)
    made: StepFamily
    match family:
        case Family.SGD:
            sgd = Sgd if task.momentum_form is MomentumForm.PAPER else TorchSgd
            made = sgd(momentum, task.nesterov, zeros())
        case Family.ADAM:
            made = Adam(beta1, beta2, eps, zeros(), zeros())
        case Family.AMSGRAD:
            made = Amsgrad(beta1, beta2, eps, zeros(), zeros(), zeros())
        case Family.ADAGRAD:
            made = Adagrad(eps, zeros())
        case Family.RMSPROP:
            made = Rmsprop(momentum, beta2, eps, zeros(), zeros() if momentum else None)
        case Family.SGDP:
            made = Sgdp(momentum, task.nesterov, zeros(), projection)
        case Family.ADAMP:
            made = Adamp(beta1, beta2, eps, task.nesterov, zeros(), zeros(), projection)
        case Family.LION:
            made = Lion(beta1, beta2, zeros())
        case Family.ADOPT:
            made = Adopt(beta1, beta2, eps, zeros(), zeros())
        case Family.SCHEDULE_FREE:
            made = ScheduleFree(beta1, beta2, eps, theta.clone(), zeros(), theta.new_zeros(len(theta), 2))
        case Family.MUON:
            m, v = zeros(), zeros()
            made = Muon.of(momentum, m, v, layout, partial(_restricted, beta1, beta2, eps, m, v))
        case Family.NDADAM:
            m, v = zeros(), zeros()
            adam = partial(_restricted, beta1, beta2, eps, m, v)
            made = NdAdam.of((beta1, beta2, eps), m, v, theta, layout, adam)
    return made


def _restricted(beta1: float, beta2: float, eps: float, m: Tensor, v: Tensor, part: slice) -> StepFamily:
    """Make Adam for some columns."""
    return Adam(beta1, beta2, eps, m[:, part], v[:, part])
