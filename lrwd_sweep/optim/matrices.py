"""Families that step by matrix: Muon, ND-Adam and K-FAC, whose step every layer's Fisher block preconditions.

Nothing crosses lanes. With Muon and ND-Adam, what is no matrix follows Adam with the same α.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor
from torch.linalg import vector_norm

from lrwd_sweep.optim.update import Now, Segment, Step, StepFamily, columns, rows_of
from lrwd_sweep.spec.task import Task

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton–Schulz polynomial, as in torch.optim.Muon
ITERATIONS = 5
LEAST_NORM = 1e-7  # of a matrix that is divided by its norm
RMS = 0.2  # of a step's entries, like AdamW's: Liu et al. 2025


Restricted = Callable[[slice], StepFamily]  # columns → Adam on them


@dataclass(frozen=True, slots=True)
class Others:
    """Adam on the columns that belong to no matrix."""

    parts: tuple[tuple[slice, StepFamily], ...]

    @classmethod
    def of(cls, adam: Restricted, layout: Sequence[Segment], matrices: Sequence[Segment]) -> Self:
        """Make Adam for the segments that are not among the matrices."""
        found = columns(segment for segment in layout if segment not in matrices)
        return cls(tuple((part, adam(part)) for part in found))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now, scale: Tensor | float) -> None:
        """Replace their g by `scale` times m̂/(√v̂ + ε)."""
        for part, adam in self.parts:
            step = adam.step(theta[:, part], g[:, part].contiguous(), alpha, now)
            g[:, part] = step.direction * (scale * (now.root2 / now.rest1))


@dataclass(frozen=True, slots=True)
class Muon(StepFamily):
    """m ← β₁m + (1−β₁) g ; the step is η_t α · 0.2 √max(a, b) · NS(β₁m + (1−β₁) g) of an a×b matrix.

    Jordan et al. 2024 with Nesterov's momentum, as torch.optim.Muon(adjust_lr_fn="match_rms_adamw"): the
    factor of Liu et al. 2025, equation 4, lets matrices share α with the parameters that follow Adam. Those
    are, as torch.optim.Muon has it, all that do not have two dimensions, convolutions too. The iterations
    have the type of the parameters; torch's are in bfloat16.
    """

    beta1: float
    m: Tensor
    v: Tensor
    matrices: tuple[Segment, ...]
    others: Others

    @classmethod
    def of(cls, momentum: float, m: Tensor, v: Tensor, layout: Sequence[Segment], adam: Restricted) -> Self:
        """Tell matrices, which use m only, from the others, which follow Adam."""
        matrices = tuple(segment for segment in layout if len(segment.shape) == 2)
        return cls(momentum, m, v, matrices, Others.of(adam, layout, matrices))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Orthogonalise every matrix's momentum."""
        for segment in self.matrices:
            slope, m = g[:, segment.columns], self.m[:, segment.columns]
            m.lerp_(slope, 1 - self.beta1)
            u = torch.lerp(slope, m, self.beta1).view(-1, *segment.shape)
            slope.copy_(orthogonalised(u).flatten(1).mul_(RMS * math.sqrt(max(segment.shape))))
        self.others.step(theta, g, alpha, now, 1.0)
        return Step(g, now.eta * alpha)


def orthogonalised(u: Tensor) -> Tensor:  # (L, a, b)
    """Approximate the nearest orthogonal matrix of each: singular values go to about 1, vectors stay.

    x ← ax + (b xxᵀ + c (xxᵀ)²)x five times, from u/‖u‖; with the smaller side first.
    """
    a, b, c = COEFFICIENTS
    tall = u.shape[1] > u.shape[2]
    x = u.mT if tall else u
    x = x / vector_norm(x, dim=(1, 2), keepdim=True).clamp_min(LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x.mT.contiguous() if tall else x
    return found


@dataclass(frozen=True, slots=True)
class NdAdam(StepFamily):
    """g ← g − (g·w)w ; m, v as in Adam with v ← β₂v + (1−β₂)‖g‖² ; w ← w − η_t α m̂/(√v̂ + ε) ; w ← w/‖w‖.

    Zhang et al. 2017, Algorithm 2, for every row w of a weight of several dimensions, that is, for the input
    weights of a unit: its step has a length that is the same for all of its weights, and its norm stays 1.
    """

    beta1: float
    beta2: float
    eps: float
    m: Tensor
    v: Tensor  # of a matrix the first columns, one for each row
    matrices: tuple[Segment, ...]
    others: Others

    @classmethod
    def of(
        cls,
        hyperparameters: tuple[float, float, float],  # β₁, β₂, ε
        m: Tensor,
        v: Tensor,
        theta: Tensor,
        layout: Sequence[Segment],
        adam: Restricted,
    ) -> Self:
        """Set every row of θ (L, P) to the norm 1 in place; what is no matrix follows Adam."""
        matrices = tuple(segment for segment in layout if segment.is_matrix)
        for segment in matrices:
            rows = rows_of(theta, segment)
            rows.div_(vector_norm(rows, dim=2, keepdim=True).clamp_min(LEAST_NORM))
        return cls(*hyperparameters, m, v, matrices, Others.of(adam, layout, matrices))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Move along the sphere, by the difference of two of its points."""
        scale = alpha * (now.eta * now.root2 / now.rest1)
        for segment in self.matrices:
            w, slope, m = (rows_of(x, segment) for x in (theta, g, self.m))  # (L, rows, n)
            v = self.v[:, segment.start : segment.start + w.shape[1]].unsqueeze(2)
            slope.sub_((slope * w).sum(2, keepdim=True) * w)
            m.lerp_(slope, 1 - self.beta1)
            v.mul_(self.beta2).add_((slope * slope).sum(2, keepdim=True), alpha=1 - self.beta2)
            moved = w - scale.unsqueeze(2) * m / (v.sqrt() + self.eps * now.root2)
            moved = moved / vector_norm(moved, dim=2, keepdim=True).clamp_min(LEAST_NORM)
            stays = (alpha == 0).unsqueeze(2)  # frozen: rounding would move it
            slope.copy_(torch.where(stays, 0, w - moved))
        self.others.step(theta, g, alpha, now, now.eta * alpha)
        return Step(g)


@dataclass(frozen=True, slots=True)
class FactoredLayer:
    """A layer y = W a + b, at one or several positions; the names of its parameters, "" for none.

    A bias that stands alone is a layer whose only input is the 1.
    """

    weight: str
    bias: str
    inputs: int  # of a, without the 1
    outputs: int

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of A and G."""
        return self.inputs + bool(self.bias), self.outputs


@dataclass(frozen=True, slots=True)
class Factors:
    """A and G of every layer for L lanes, in one flat tensor."""

    layers: tuple[FactoredLayer, ...]
    flat: Tensor  # (L, F)

    @classmethod
    def of(cls, layers: Sequence[FactoredLayer], like: Tensor) -> Self:  # (L, P)
        """Make factors of zeros, with the type of θ and on its device."""
        size = sum(n**2 for layer in layers for n in layer.sizes)
        return cls(tuple(layers), like.new_zeros(len(like), size))

    def pairs(self, flat: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return A (L, n, n) and G (L, m, m) of every layer: views of these factors, or of others alike."""
        flat = self.flat if flat is None else flat
        sizes = [n for layer in self.layers for n in layer.sizes]
        ends = accumulate(n**2 for n in sizes)
        views = [flat[:, end - n**2 : end].view(-1, n, n) for n, end in zip(sizes, ends, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Kfac(StepFamily):
    """m ← β₁m + (A⊗G)⁻¹g ; the step is η_t α m. Columns that belong to no layer keep g.

    Martens & Grosse 2015 (arXiv 1503.05671). y = W ā, with ā the inputs and a 1 for the bias:

        A ← εA + (1−ε) E[ā āᵀ],  G ← εG + (1−ε) E[g gᵀ],  ε = min(1 − 1/t, ε₀)       section 5
        π² = (tr A/dim A)/(tr G/dim G)                                              section 6.3
        U = (G + √γ/π I)⁻¹ ∇W (A + π√γ I)⁻¹                                         sections 4.2 and 6.3
        m ← β₁m + U ; θ ← θ − η_t α m

    g are gradients at the outputs of log-likelihoods of targets that are sampled from the network's
    predictions: the true Fisher, as in the paper and in Zhang et al. 2018 (arXiv 1810.12281), who compare
    decay under it. With the targets of the data the factors would cost half, and be those of the empirical
    Fisher, which is another matrix. Of a convolution A is summed over its positions and G is their mean
    (Grosse & Martens 2016).

    γ is the damping, so that for a small A ⊗ G the step is ∇W/γ. L2 enters ∇W and is preconditioned,
    decoupled decay is not: the two that Zhang et al. compare. Their code and the paper also limit or rescale
    each step by the quadratic model; here α is the length of the step, as it is an axis.
    """

    beta1: float
    damping: float  # γ
    ema: float  # ε₀
    interval: int  # steps from one inverse to the next
    batches: int  # that the factors of a step are the sum of
    m: Tensor
    batch: Factors  # of this step, written with g
    means: Tensor  # (L, F)
    inverses: Tensor  # (L, F)
    places: tuple[tuple[slice, ...], ...]  # columns of W and b of every layer

    @classmethod
    def of(cls, task: Task, m: Tensor, layout: Sequence[Segment], batch: Factors) -> Self:
        """Begin with empty averages."""
        interval = int(known(task.inverse_interval))
        how = (known(task.momentum), known(task.damping), known(task.factor_ema), interval, task.accumulate)
        of_name = {segment.name: segment.columns for segment in layout}
        places = [
            tuple(of_name[name] for name in (layer.weight, layer.bias) if name) for layer in batch.layers
        ]
        means, inverses = torch.zeros_like(batch.flat), torch.zeros_like(batch.flat)
        return cls(*how, m, batch, means, inverses, tuple(places))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Average the factors, invert them if it is due, and precondition g layer by layer."""
        t = int(now.t)
        moves = alpha != 0  # not frozen: a diverged lane's factors are not finite
        found = torch.where(moves, self.batch.flat / self.batches, 0)
        self.means.lerp_(found, 1 - min(1 - 1 / t, self.ema))
        if (t - 1) % self.interval == 0:
            self._invert()
        pairs = self.batch.pairs(self.inverses)
        for layer, places, (a, b) in zip(self.batch.layers, self.places, pairs, strict=True):
            slopes = [g[:, place].view(len(g), layer.outputs, -1) for place in places]
            u = b @ torch.cat(slopes, dim=2) @ a
            for place, part in zip(places, u.split([x.shape[2] for x in slopes], 2), strict=True):  # type: ignore[no-untyped-call]
                g[:, place] = part.flatten(1)
        self.m.mul_(self.beta1).add_(g)
        return Step(self.m, now.eta * alpha)

    def _invert(self) -> None:
        """Invert the damped averages; those of a lane that have no inverse become NaN, and it diverges."""
        root = math.sqrt(self.damping)
        both = zip(self.batch.pairs(self.means), self.batch.pairs(self.inverses), strict=True)
        for (a, g), (inverse_a, inverse_g) in both:
            pi = (_mean_diagonal(a) / _mean_diagonal(g)).sqrt()
            pi = torch.where(pi.isfinite() & (pi > 0), pi, 1.0)  # a factor of zeros
            inverse_a.copy_(_inverse(a, pi * root))
            inverse_g.copy_(_inverse(g, root / pi))


def _mean_diagonal(x: Tensor) -> Tensor:  # (L, n, n) → (L, 1, 1)
    return x.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]


def _inverse(x: Tensor, damping: Tensor) -> Tensor:  # (L, n, n), (L, 1, 1)
    """Compute (x + damping·I)⁻¹ of every lane by Cholesky's decomposition; NaN if it fails."""
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    root, failed = torch.linalg.cholesky_ex(x + damping * eye)
    return torch.where(failed[:, None, None] == 0, torch.cholesky_inverse(root), torch.nan)


def known(hyperparameter: float | None) -> float:
    """Return a hyperparameter that `Task.of` has set."""
    assert hyperparameter is not None
    return hyperparameter
