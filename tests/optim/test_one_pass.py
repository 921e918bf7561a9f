"""Compiled loops update as torch's operators do, and leave alone what does not move."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lrwd_sweep.optim import Update
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim.problem import SHAPES, VARIANTS, start, update_of

LANES = [(0.02, 0.1), (0.005, 0.3), (0.04, 0.0)]
ELEMENTWISE = [name for name in VARIANTS if not name.startswith(("sgdp", "adamp"))]
COLUMNS = sum(map(math.prod, SHAPES))


def _made(
    variant: str, rule: DecayRule, dtype: torch.dtype, **options: object
) -> tuple[torch.Tensor, Update]:
    family, chosen = VARIANTS[variant]
    theta = torch.cat([x.flatten() for x in start()]).repeat(3, 1).to(dtype)
    task = Task(**{**chosen, **options})  # type: ignore[arg-type]
    return theta, update_of(Optimizer(Family(family), rule), task, theta, LANES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [{"decay_all": False}, {}, {"undecayed": ("tensor1", "tensor3")}])
@pytest.mark.parametrize("rule", DecayRule)
@pytest.mark.parametrize("variant", ELEMENTWISE)
def test_it_moves_as_torch_does(
    variant: str, rule: DecayRule, decay: dict[str, object], dtype: torch.dtype
) -> None:
    theta, update = _made(variant, rule, dtype, **decay)
    expected, by_torch = _made(variant, rule, dtype, **decay)
    by_torch = replace(by_torch, one_pass=None)
    stream, alive = torch.Generator().manual_seed(2), torch.tensor([True, False, True])
    assert update.one_pass is not None
    for t in range(1, 9):
        g = torch.randn(3, COLUMNS, generator=stream, dtype=torch.float64).to(dtype)
        if t == 5:
            stays = theta[1].clone()
        if t >= 5:
            g[1] = math.nan
            for each in (update, by_torch):
                each.freeze(g, alive)
        update.apply(theta, g.clone(), 0.5 + 0.05 * t, t, 8)
        by_torch.apply(expected, g, 0.5 + 0.05 * t, t, 8)
    near = 1e-13 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(theta, expected, rtol=near, atol=near)
    assert torch.equal(theta[1], stays)
    for found, moment in zip(update.family.moments(), by_torch.family.moments(), strict=True):
        torch.testing.assert_close(found, moment, rtol=near, atol=near)


@pytest.mark.usefixtures("without_numba")
def test_without_numba_torch_updates() -> None:
    assert _made("adam", DecayRule.COUPLED, torch.float32)[1].one_pass is None
