"""The updates that project, a tensor at a time on a CPU, by compiled loops. Needs numba."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lrwd_sweep.optim import projected_loops
from lrwd_sweep.optim.adamp import Adamp
from lrwd_sweep.optim.decay import Decay
from lrwd_sweep.optim.layout import runs
from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.projected_loops import BLOCK, Runs, Scratch
from lrwd_sweep.optim.projection import DELTA, Projection
from lrwd_sweep.optim.sgdp import Sgdp
from lrwd_sweep.science.decay import WD_RATIO


@dataclass(frozen=True, slots=True)
class ProjectedPass:
    """What `Update.move` does for SGDP and AdamP; g is left as it is."""

    loop: Any  # one of `projected_loops`
    projection: Projection  # in which it counts
    runs: Runs
    scratch: Scratch
    arguments: Sequence[np.ndarray[Any, Any] | float]  # moments and hyperparameters, in the loop's order

    @classmethod
    def of(cls, family: Sgdp | Adamp, decay: Decay, theta: Tensor) -> ProjectedPass:
        """For the arena θ (L, P)."""
        loop, arguments = _call(family)
        watched = _watched(family.projection, decay, theta.shape[1])
        scratch = _scratch(watched, theta.numpy().dtype)
        return cls(loop, family.projection, watched, scratch, arguments)

    def move(self, theta: Tensor, g: Tensor, alpha: Tensor, rate: Tensor, now: Now) -> None:
        """Update θ (L, P) in place; α and the rate of the decay are (L, 1)."""
        self.loop(
            *(x.numpy() for x in (theta, g, alpha, 1 - rate, 1 - WD_RATIO * rate)),
            self.runs,
            self.projection.found.numpy(),
            *(DELTA, self.projection.eps),
            self.scratch,
            *(now.eta, now.rest1, now.root2),
            *self.arguments,
        )
        self.projection.seen += len(self.projection.tensors)


def _call(family: Sgdp | Adamp) -> tuple[Any, list[np.ndarray[Any, Any] | float]]:
    """The family's loop, and its moments and hyperparameters as the loop orders them."""
    match family:
        case Sgdp(beta1, nesterov, m):
            return projected_loops.sgdp, [m.numpy(), float(beta1), nesterov]
        case Adamp(beta1, beta2, _, nesterov, m, v):
            numbers = 1.0 - beta1, float(beta2), 1.0 - beta2
            return projected_loops.adamp, [m.numpy(), v.numpy(), *numbers, nesterov]


def _watched(projection: Projection, decay: Decay, columns: int) -> Runs:
    """Of the watched tensors and what lies between them."""
    rows = {tensor.start: tensor.shape[0] for tensor in projection.tensors}
    ends, decays = runs(decay.parts, columns, [tensor.columns for tensor in projection.tensors])
    return Runs(np.array(ends), np.array(decays), np.array([rows.get(start, 0) for start in ends[:-1]]))


def _scratch(runs: Runs, dtype: np.dtype[Any]) -> Scratch:
    """For the widest of the runs, and the longest of their rows."""
    widths = np.diff(runs.ends)
    longest = max((width // rows for width, rows in zip(widths, runs.rows, strict=True) if rows), default=0)
    return Scratch(
        np.empty(max(widths), dtype),
        np.empty(max(BLOCK, longest), dtype),
        np.ones(longest, dtype),
        np.empty((4, max(runs.rows)), dtype),
    )
