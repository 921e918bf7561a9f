"""SGDP and AdamP in compiled loops move, and project, as by torch's operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lrwd_sweep.optim import Update
from lrwd_sweep.optim.projected_loops import BLOCK
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim.problem import SHAPES, VARIANTS, layout, smooth, start, update_of

LANES = [(0.02, 0.1), (0.005, 0.3), (0.04, 0.0)]
PROJECTED = [name for name in VARIANTS if name.startswith(("sgdp", "adamp"))]
RULES = [rule for rule in DecayRule if rule is not DecayRule.COUPLED]
STEPS = 12
LARGE = (
    (3, BLOCK + 5),
    (7,),
    (300, 70),
    (1, 40),
    (2 * BLOCK // 64, 64),
)  # rows longer than a block, and many


def _both(
    variant: str,
    rule: DecayRule,
    dtype: torch.dtype,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    **options: object,
) -> list[tuple[Tensor, Update]]:
    """Lanes that begin alike, moved by loops and by torch."""
    family, chosen = VARIANTS[variant]
    task = Task(**{**chosen, **options})  # type: ignore[arg-type]
    found = []
    for _ in range(2):
        theta = torch.cat([x.flatten() for x in start(shapes)]).repeat(3, 1).to(dtype)
        found.append((theta, update_of(Optimizer(Family(family), rule), task, theta, LANES, shapes)))
    (theta, by_loops), (expected, by_torch) = found
    assert by_loops.one_pass is not None
    return [(theta, by_loops), (expected, replace(by_torch, one_pass=None))]


def _move(theta: Tensor, update: Update, shapes: Sequence[tuple[int, ...]], steps: int = STEPS) -> None:
    """Steps of which every third is across rows, and every third across tensors; lane 1 dies on the way."""
    gradient = smooth(steps, shapes)
    for t in range(steps):
        pieces = [
            gradient(k, t, theta[:, s.columns].view(-1, *s.shape).double()).flatten(1)
            for k, s in enumerate(layout(shapes))
        ]
        g = torch.cat(pieces, dim=1).to(theta.dtype)
        if t >= steps // 2:
            g[1] = math.nan
            update.freeze(g, torch.tensor([True, False, True]))
        update.apply(theta, g, 0.5 + 0.02 * t, t + 1, steps)


def _assert_same(both: list[tuple[Tensor, Update]], near: float) -> None:
    (theta, by_loops), (expected, by_torch) = both
    torch.testing.assert_close(theta, expected, rtol=near, atol=near)
    for found, moment in zip(by_loops.family.moments(), by_torch.family.moments(), strict=True):
        torch.testing.assert_close(found, moment, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("decay_all", "undecayed"),
    [(False, ()), (True, ()), (True, ("tensor1", "tensor2")), (False, ("tensor0",))],
)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("variant", PROJECTED)
def test_it_moves_and_projects_as_torch_does(
    variant: str, rule: DecayRule, decay_all: bool, undecayed: tuple[str, ...], dtype: torch.dtype
) -> None:
    both = _both(variant, rule, dtype, decay_all=decay_all, undecayed=undecayed)
    for theta, update in both:
        _move(theta, update, SHAPES)
    _assert_same(both, 1e-13 if dtype is torch.float64 else 1e-5)
    rate, expected = (update.projection_rate() for _, update in both)
    assert rate is not None
    assert expected is not None
    assert torch.equal(rate, expected)
    assert 0 < rate[0] < 1


@pytest.mark.parametrize("variant", PROJECTED)
def test_long_rows_and_many_rows_are_summed_whole(variant: str) -> None:
    both = _both(variant, DecayRule.LR_SCALED, torch.float64, LARGE)
    for theta, update in both:
        _move(theta, update, LARGE, steps=6)
    _assert_same(both, 1e-12)


@pytest.mark.parametrize("variant", PROJECTED)
def test_a_lane_that_dies_stays_and_its_neighbours_go_on(variant: str) -> None:
    (theta, update), _ = _both(variant, DecayRule.INDEPENDENT, torch.float32)
    _move(theta, update, SHAPES, steps=2)
    before = theta.clone()
    g = torch.full_like(theta, math.nan)
    g[0] = 1
    update.apply(theta, g, 1.0, 3, 9)
    assert theta[0].isfinite().all()
    assert not torch.equal(theta[0], before[0])
    assert theta[1:].isnan().all()  # nobody has frozen them yet
    assert update.projection_rate()[2] < 1  # type: ignore[index]  # NaN stands across nothing


def test_weights_of_zero_are_projected_as_torch_does() -> None:
    both = _both("adamp", DecayRule.INDEPENDENT, torch.float64)
    for theta, update in both:
        theta.zero_()
        update.apply(theta, torch.ones_like(theta), 1.0, 1, 9)
    _assert_same(both, 1e-13)


@pytest.mark.usefixtures("without_numba")
def test_without_numba_torch_updates() -> None:
    family = Optimizer(Family.ADAMP, DecayRule.LR_SCALED)
    assert (
        update_of(family, Task(), start(((4, 3),))[0].view(1, -1), [(0.1, 0.1)], ((4, 3),)).one_pass is None
    )
