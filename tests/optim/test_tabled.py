"""An update that reads its numbers from a table takes the steps of one that is told them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lrwd_sweep.optim import TabledUpdate, table
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim.problem import SHAPES, VARIANTS, start, update_of

LANES = [(0.02, 0.1), (0.005, 0.3), (0.04, 0.0)]
COLUMNS = sum(map(math.prod, SHAPES))


@pytest.mark.parametrize("rule", [DecayRule.INDEPENDENT, DecayRule.CORRECTED])
@pytest.mark.parametrize("variant", VARIANTS)
def test_its_steps_are_those_that_are_told_bit_for_bit(variant: str, rule: DecayRule) -> None:
    family, options = VARIANTS[variant]
    task = Task(**{"epochs": 5, "schedule": "restarts", "warmup": 1, **options})  # type: ignore[arg-type]
    optimizer, times = Optimizer(Family(family), rule, normalized=True), task.timetable
    told, read = (torch.cat([x.flatten() for x in start()]).repeat(3, 1) for _ in range(2))
    first, second = (
        replace(update_of(optimizer, task, theta, LANES), one_pass=None) for theta in (told, read)
    )
    tabled = TabledUpdate(second, table(times, second.betas, read))
    stream, died_at = torch.Generator().manual_seed(2), torch.full((3,), -1)
    for t in range(task.steps):
        g = torch.randn(3, COLUMNS, generator=stream, dtype=torch.float64)
        if t >= 8:
            died_at[1], g[1] = 8, math.nan
            first.freeze(g, died_at < 0)
        first.apply(told, g.clone(), times.eta(t), t + 1, times.steps_of_cycle(t))
        tabled.apply(read, g, torch.tensor([t]), died_at)
    assert torch.equal(told, read)
    assert read.isfinite().all()
    rates = first.projection_rate(), second.projection_rate()
    assert rates == (None, None) or torch.equal(*rates)  # type: ignore[arg-type]


def test_a_table_holds_every_step_computed_in_float64() -> None:
    task = Task(epochs=4, warmup=1, schedule="restarts", t_0=1, t_mult=2)  # type: ignore[arg-type]
    found = table(task.timetable, (0.9, 0.999), torch.zeros(1))
    assert found.dtype is torch.float32
    assert found.shape == (24, 4)
    eta, root_n, rest1, root2 = found.to(torch.float64).t()
    assert eta[:7].tolist() == pytest.approx([k / 6 for k in range(1, 7)] + [1.0])
    assert set(root_n.square().round().tolist()) == {6.0, 12.0}
    assert rest1[:2].tolist() == pytest.approx([0.1, 0.19], rel=1e-7)
    # 1 − 0.999 in float32 would be 5e-5 off
    assert root2[0].item() == pytest.approx(math.sqrt(0.001), rel=1e-7)
