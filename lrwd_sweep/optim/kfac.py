"""K-FAC: every layer's step is preconditioned by the inverse of its Fisher block, A ⊗ G.

Martens & Grosse 2015 (arXiv 1503.05671). y = W ā, with ā the inputs and a 1 for the bias:

    A ← εA + (1−ε) E[ā āᵀ],  G ← εG + (1−ε) E[g gᵀ],  ε = min(1 − 1/t, ε₀)       section 5
    π² = (tr A/dim A)/(tr G/dim G)                                              section 6.3
    U = (G + √γ/π I)⁻¹ ∇W (A + π√γ I)⁻¹                                         sections 4.2 and 6.3
    m ← β₁m + U ; θ ← θ − η_t α m

g are gradients at the outputs of log-likelihoods of targets that are sampled from the network's predictions:
the true Fisher, as in the paper and in Zhang et al. 2018 (arXiv 1810.12281), who compare decay under it. With
the targets of the data the factors would cost half, and be those of the empirical Fisher, which is another
matrix. Of a convolution A is summed over its positions and G is their mean (Grosse & Martens 2016).

γ is the damping, so that for a small A ⊗ G the step is ∇W/γ. L2 enters ∇W and is preconditioned, decoupled
decay is not: the two that Zhang et al. compare. Their code and the paper also limit or rescale each step
by the quadratic model; here α is the length of the step, as it is an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from lrwd_sweep.optim.families import known
from lrwd_sweep.optim.projection import Segment
from lrwd_sweep.optim.update import Now, Step
from lrwd_sweep.spec.task import Task


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
class Kfac:
    """m ← β₁m + (A⊗G)⁻¹g ; the step is η_t α m. Columns that belong to no layer keep g."""

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
        columns = {segment.name: segment.columns for segment in layout}
        places = [
            tuple(columns[name] for name in (layer.weight, layer.bias) if name) for layer in batch.layers
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
            slopes = [g[:, columns].view(len(g), layer.outputs, -1) for columns in places]
            u = b @ torch.cat(slopes, dim=2) @ a
            for columns, part in zip(places, u.split([x.shape[2] for x in slopes], 2), strict=True):  # type: ignore[no-untyped-call]
                g[:, columns] = part.flatten(1)
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

    def moments(self) -> list[Tensor]:
        """Return m, the averages of the factors, and their inverses."""
        return [self.m, self.means, self.inverses]


def _mean_diagonal(x: Tensor) -> Tensor:  # (L, n, n) → (L, 1, 1)
    return x.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]


def _inverse(x: Tensor, damping: Tensor) -> Tensor:  # (L, n, n), (L, 1, 1)
    """Compute (x + damping·I)⁻¹ of every lane by Cholesky's decomposition; NaN if it fails."""
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    root, failed = torch.linalg.cholesky_ex(x + damping * eye)
    return torch.where(failed[:, None, None] == 0, torch.cholesky_inverse(root), torch.nan)
