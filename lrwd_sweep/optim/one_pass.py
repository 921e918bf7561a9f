"""The whole update in one pass over the arena on a CPU, by compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.optim.decay import Decay
from lrwd_sweep.optim.kernel_call import kernel_call
from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.step import StepFamily

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


def one_pass(family: StepFamily, decay: Decay, theta: Tensor) -> OnePass | None:
    """For the arena θ (L, P), if it is on a CPU, the family has a loop, and numba is there."""
    call = kernel_call(family)
    if call is None or not theta.is_cpu:
        return None
    with suppress(ImportError):
        from lrwd_sweep.optim.loops import LOOPS  # noqa: PLC0415  # slow to load

        modes = list(call.modes.values()) if call.name == "sgd" else []  # the others show by their moments
        ends = sorted({0, theta.shape[1], *(end for part in decay.whole for end in (part.start, part.stop))})
        return OnePass(
            LOOPS[call.name],
            decay.rule is DecayRule.COUPLED,
            np.array(ends),
            np.array([any(part.start <= start < part.stop for part in decay.whole) for start in ends[:-1]]),
            [*(x.numpy() if isinstance(x, Tensor) else x for x in call.arguments), *modes],
        )
    return None
