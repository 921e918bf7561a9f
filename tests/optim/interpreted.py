"""Every kernel beside torch, on the host: run with TRITON_INTERPRET=1; writes what came of each case as JSON.

Triton reads that variable when it is imported: this is a process of its own.
"""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch
from torch import Tensor

from lrwd_sweep.optim import TabledUpdate, fused_projection, table
from lrwd_sweep.optim.fastest import agrees, by_kernels
from lrwd_sweep.optim.fused import Launch
from lrwd_sweep.optim.tabled import DeviceUpdate
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim.problem import VARIANTS, layout, smooth, update_of

COLUMNS = layout()[-1].stop  # 46
BLOCK = 32  # one whole block and a part of one
SHORT = 2  # of a projection: less than most rows have numbers, and tensors rows
STEPS = 3
LANES = [(0.02, 0.3), (0.5, 0.3), (0.1, 0.0)]  # the one in the middle dies at the second step
CASES = [
    (variant, rule)
    for variant, (family, _) in VARIANTS.items()
    for rule in DecayRule
    if not Family(family).projected or rule in (DecayRule.LR_SCALED, DecayRule.INDEPENDENT)
]


def tabled(variant: str, rule: DecayRule, *, other: bool, device: str = "cpu") -> TabledUpdate:
    """An update with its table; `other` for normalised decay, of some of the matrices."""
    family, options = VARIANTS[variant]
    decay = {"decay_all": not other, "undecayed": ("tensor2",) if other else ()}
    task = Task(**{"epochs": 3, "schedule": "restarts", **decay, **options})  # type: ignore[arg-type]
    optimizer = Optimizer(Family(family), rule, normalized=other)
    theta = torch.zeros(len(LANES), COLUMNS, device=device)
    update = update_of(optimizer, task, theta, LANES)
    return TabledUpdate(update, table(task.timetable, update.betas, theta))


def trained(update: DeviceUpdate, *, ill: bool) -> list[Tensor]:
    """θ ahead of every step and at the end; whether a lane dies of NaN in the middle."""
    theta = torch.randn(len(LANES), COLUMNS, generator=torch.Generator().manual_seed(0))
    gradient = smooth(STEPS)
    died_at = torch.full((len(LANES),), -1)
    found = [theta.clone()]
    for t in range(STEPS):
        pieces = [
            gradient(k, t, theta[:, s.columns].view(-1, *s.shape).double()).flatten(1)
            for k, s in enumerate(layout())
        ]
        g = torch.cat(pieces, dim=1).float()
        if ill and t >= 1:
            died_at[1] = 1
            g[1] = torch.nan
        update.apply(theta, g, torch.tensor([4 * t]), died_at)
        found.append(theta.clone())
    return found


def case(variant: str, rule: DecayRule, *, other: bool) -> dict[str, object]:
    """How far the kernel is from torch, relative to the largest number, and what a lane that dies does."""
    by_torch, by_kernel, alone = (tabled(variant, rule, other=other) for _ in range(3))
    fused, fused_alone = (
        by_kernels(one, COLUMNS, SHORT if one.update.projection else BLOCK) for one in (by_kernel, alone)
    )
    expected, found, well = (
        trained(by_torch, ill=True),
        trained(fused, ill=True),
        trained(fused_alone, ill=False),
    )
    pairs = [(expected[-1], found[-1])]
    moments = zip(by_torch.update.family.moments(), by_kernel.update.family.moments(), strict=True)
    pairs += [(one[::2], another[::2]) for one, another in moments]  # of lanes that live
    rates = [one.update.projection_rate() for one in (by_torch, by_kernel)]
    return {
        "error": max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs),
        "moved": float((expected[-1] - expected[0]).abs().min()),
        "stays": torch.equal(found[1][1], found[-1][1]),
        "apart": torch.equal(found[-1][::2], well[-1][::2]),
        "projected": [None if rate is None else rate[::2].tolist() for rate in rates],
    }


def check() -> dict[str, bool]:
    """What the comparison on the user's own machine says of good kernels and of wrong ones."""
    one = tabled("adam", DecayRule.INDEPENDENT, other=False)
    projected = tabled("adamp", DecayRule.LR_SCALED, other=False)
    run = Launch.run

    def with_(update: TabledUpdate, **changes: object) -> bool:
        def wrong(launch: Launch) -> None:
            known = {name: value for name, value in changes.items() if name in launch.modes}
            run(launch._replace(modes={**launch.modes, **known}))

        return _agrees_where(Launch, "run", wrong, update)

    return {
        "good": with_(one),
        "projected": with_(projected),
        "other rule": with_(one, RULE="fixed"),
        "normalised": with_(one, NORMALIZED=True),
        "raises": with_(one, BLOCK=3),
        "projected, other rule": with_(projected, RULE="fixed"),
        "projected, no bias corrections": with_(projected, CORRECTED=False),
        "projected, Nesterov": with_(projected, NESTEROV=True),
        "projected, raises": with_(projected, BLOCK=3),
        "never projected": _agrees_where(fused_projection, "DELTA", 0.0, projected),
    }


def _agrees_where(thing: object, name: str, value: object, update: TabledUpdate) -> bool:
    """What the comparison says where a thing's attribute has another value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thing, name, value)
        return agrees(update, COLUMNS, BLOCK)


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    torch.set_num_threads(1)
    cases = {
        f"{variant} {rule}": case(variant, rule, other=(j + k) % 2 == 1)
        for j, variant in enumerate(VARIANTS)
        for k, rule in enumerate(DecayRule)
        if (variant, rule) in CASES
    }
    sys.stdout.write(json.dumps({"cases": cases, "check": check()}))
