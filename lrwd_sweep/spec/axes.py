"""Default axes: an optimizer's own, or those of its nearest kin.

Optimizers whose basins lie at the same place need no axes of their own: most of them differ by a known factor
in the meaning of λ, or take steps of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Family, Optimizer

_RULES = {  # that are another rule where η = 1
    DecayRule.FIXED: DecayRule.INDEPENDENT,
    DecayRule.CORRECTED: DecayRule.LR_SCALED,
}
_FAMILIES = {  # whose steps are as large as another's
    Family.AMSGRAD: Family.ADAM,
    Family.RMSPROP: Family.ADAM,
    Family.ADAMP: Family.ADAM,
    Family.SGDP: Family.SGD,
}


def default_lattice(axes: Mapping[str, Lattice], optimizer: Optimizer, steps: int) -> Lattice | None:
    """Return the optimizer's lattice in `axes` (by canonical name), else its nearest kin's, else None.

    Normalised decay takes the axes of the plain one, λ_norm = λ√N with N = `steps`; `fixed` those of
    `independent`, `corrected` those of `lr-scaled`; of these two each takes the other's, w = λ/α in the
    middle of the α axis. Then AMSGrad, RMSProp and AdamP take Adam's, SGDP takes SGD's. Factors are rounded
    to powers of two, so that such axes stay powers of two.
    """
    own = axes.get(str(optimizer))
    family, rule = optimizer.family, optimizer.rule
    if own is not None or family is None:
        return own
    if optimizer.normalized:
        plain = default_lattice(axes, replace(optimizer, normalized=False), steps)
        return plain and _times(plain, math.sqrt(steps))
    if rule in _RULES:
        return default_lattice(axes, replace(optimizer, rule=_RULES[rule]), steps)
    for other, exponent in ((DecayRule.INDEPENDENT, -1), (DecayRule.LR_SCALED, 1)):
        sibling = axes.get(str(replace(optimizer, rule=other)))
        if sibling is not None and rule is not DecayRule.COUPLED:
            return _times(sibling, math.sqrt(sibling.lr[0] * sibling.lr[-1]) ** exponent)
    if family in _FAMILIES:
        return default_lattice(axes, replace(optimizer, family=_FAMILIES[family]), steps)
    return None


def _times(lattice: Lattice, factor: float) -> Lattice:
    """Multiply every λ by the power of two nearest to `factor`."""
    power = 2.0 ** round(math.log2(factor))
    return Lattice(lattice.lr, tuple(power * value for value in lattice.weight_decay))
