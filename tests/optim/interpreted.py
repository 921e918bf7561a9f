"""Every kernel beside torch, on the host: run with TRITON_INTERPRET=1; writes what came of each case as JSON.

Triton reads that variable when it is imported: this is a process of its own.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.optim import TabledUpdate, table
from lrwd_sweep.optim import fused as module
from lrwd_sweep.optim.fused import FusedUpdate, agrees
from lrwd_sweep.optim.tabled import DeviceUpdate
from lrwd_sweep.optimizer import Family, Optimizer
from lrwd_sweep.training import Training
from tests.optim.problem import VARIANTS, layout, update_of

COLUMNS = layout()[-1].stop  # 46
BLOCK = 32  # one whole block and a part of one
STEPS = 3
LANES = [(0.02, 0.3), (0.5, 0.3), (0.1, 0.0)]  # the one in the middle dies at the second step
ELEMENTWISE = [name for name, (family, _) in VARIANTS.items() if not Family(family).projected]


def tabled(variant: str, rule: DecayRule, *, other: bool) -> TabledUpdate:
    """An update with its table; `other` for normalised decay, of matrices alone."""
    family, options = VARIANTS[variant]
    training = Training(**{"epochs": 3, "schedule": "restarts", "decay_all": not other, **options})  # type: ignore[arg-type]
    optimizer = Optimizer(Family(family), rule, normalized=other)
    theta = torch.zeros(len(LANES), COLUMNS)
    update = update_of(optimizer, training, theta, LANES)
    return TabledUpdate(update, table(training.timetable, update.betas, theta))


def trained(update: DeviceUpdate, *, ill: bool) -> list[Tensor]:
    """θ ahead of every step and at the end; whether a lane dies of NaN in the middle."""
    stream = torch.Generator().manual_seed(0)
    theta, *gradients = torch.randn(STEPS + 1, len(LANES), COLUMNS, generator=stream)
    died_at = torch.full((len(LANES),), -1)
    found = [theta.clone()]
    for t, g in enumerate(gradients):
        if ill and t >= 1:
            died_at[1] = 1
            g[1] = torch.nan
        update.apply(theta, g, torch.tensor([4 * t]), died_at)
        found.append(theta.clone())
    return found


def case(variant: str, rule: DecayRule, *, other: bool) -> dict[str, object]:
    """How far the kernel is from torch, relative to the largest number, and what a lane that dies does."""
    by_torch, by_kernel, alone = (tabled(variant, rule, other=other) for _ in range(3))
    fused, fused_alone = (FusedUpdate.of(one, COLUMNS, BLOCK) for one in (by_kernel, alone))
    expected, found, well = (
        trained(by_torch, ill=True),
        trained(fused, ill=True),
        trained(fused_alone, ill=False),
    )
    pairs = [(expected[-1], found[-1])]
    moments = zip(by_torch.update.family.moments(), by_kernel.update.family.moments(), strict=True)
    pairs += [(one[::2], another[::2]) for one, another in moments]  # of lanes that live
    return {
        "error": max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs),
        "moved": float((expected[-1] - expected[0]).abs().min()),
        "stays": torch.equal(found[1][1], found[-1][1]),
        "apart": torch.equal(found[-1][::2], well[-1][::2]),
    }


def check() -> dict[str, bool]:
    """What the comparison on the user's own machine says of a good kernel and of wrong ones."""
    good = tabled("adam", DecayRule.INDEPENDENT, other=False)
    found = {"good": agrees(good, COLUMNS, BLOCK)}
    of = FusedUpdate.of

    def with_(**changes: object) -> bool:
        def wrong(*arguments: object) -> FusedUpdate:
            made = of(*arguments)  # type: ignore[arg-type]
            return replace(made, modes=made.modes | changes)

        module.FusedUpdate.of = wrong  # type: ignore[assignment, method-assign]
        try:
            return agrees(good, COLUMNS, BLOCK)
        finally:
            module.FusedUpdate.of = of  # type: ignore[method-assign]

    return found | {
        "other rule": with_(RULE="fixed"),
        "normalised": with_(NORMALIZED=True),
        "raises": with_(BLOCK=3),
    }


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    torch.set_num_threads(1)
    pairs = product(enumerate(ELEMENTWISE), enumerate(DecayRule))
    cases = {f"{name} {rule}": case(name, rule, other=(j + k) % 2 == 1) for (j, name), (k, rule) in pairs}
    sys.stdout.write(json.dumps({"cases": cases, "check": check()}))
