"""The whole update in compiled loops on a CPU: one pass over the arena, or a tensor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrwd_sweep.optim import jit
from lrwd_sweep.optim.adamp import Adamp
from lrwd_sweep.optim.decay import Decay
from lrwd_sweep.optim.kernel_call import kernel_call
from lrwd_sweep.optim.layout import runs
from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.sgdp import Sgdp
from lrwd_sweep.optim.step import StepFamily
from lrwd_sweep.science.decay import DecayRule

if TYPE_CHECKING:
    from lrwd_sweep.optim.projected_pass import ProjectedPass

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class OnePass:
    """What `Update.move` does, for a family whose every number needs no other; g is left as it is."""

    loop: Any  # one of `loops`
    coupled: bool
    ends: Array  # where runs of columns that decay or do not begin, and where the last one ends
    decays: Array  # whether they do
    arguments: Sequence[Array | float | bool | None]  # moments, hyperparameters, modes, in the loop's order

    def move(self, theta: Tensor, g: Tensor, alpha: Tensor, rate: Tensor, now: Now) -> None:
        """Update θ (L, P) in place; α and the rate of the decay are (L, 1)."""
        self.loop(
            *(x.numpy() for x in (theta, g, alpha, rate if self.coupled else 1 - rate)),
            self.coupled,
            self.ends,
            self.decays,
            *(now.eta, now.rest1, now.root2),
            *self.arguments,
        )


def compiled_on(device: torch.device) -> bool:
    """Whether updates there are compiled loops, which need no memory besides θ, g and moments."""
    return device.type == "cpu" and jit.usable()


def one_pass(family: StepFamily, decay: Decay, theta: Tensor) -> OnePass | ProjectedPass | None:
    """For the arena θ (L, P), if it is on a CPU and numba can be used."""
    if not compiled_on(theta.device):
        return None
    if isinstance(family, Sgdp | Adamp):
        from lrwd_sweep.optim.projected_pass import ProjectedPass  # noqa: PLC0415

        return ProjectedPass.of(family, decay, theta)
    return _elementwise(family, decay, theta)


def _elementwise(family: StepFamily, decay: Decay, theta: Tensor) -> OnePass:
    """For a family whose every number needs no other."""
    from lrwd_sweep.optim.loops import LOOPS  # noqa: PLC0415  # slow to load

    call = kernel_call(family)
    assert call is not None, "every other family has a loop"
    modes = list(call.modes.values()) if call.name == "sgd" else []  # the others show by their moments
    ends, decays = runs(decay.whole, theta.shape[1])
    return OnePass(
        LOOPS[call.name],
        decay.rule is DecayRule.COUPLED,
        np.array(ends),
        np.array(decays),
        [*(x.numpy() if isinstance(x, Tensor) else x for x in call.arguments), *modes],
    )
