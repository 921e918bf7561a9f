"""Every family under every rule follows its written-out algorithm; lanes do not see each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim import reference
from tests.optim.problem import SHAPES, VARIANTS, smooth, start, train, update_of

REFERENCES: dict[str, reference.Step] = {
    "sgd": reference.sgd_of_the_paper,
    "sgd torch": reference.sgd_of_torch,
    "adam": reference.adam,
    "amsgrad": reference.amsgrad_of_torch,
    "adagrad": reference.adagrad,
    "rmsprop": reference.rmsprop,
    "sgdp": reference.sgdp_of_the_package,
    "adamp": reference.adamp,
}
# Decay of a size that matters: by the rule, λ′, λ, w, d or c.
LAMBDA = {
    DecayRule.COUPLED: 0.1,
    DecayRule.INDEPENDENT: 0.01,
    DecayRule.LR_SCALED: 0.5,
    DecayRule.FIXED: 0.01,
    DecayRule.CORRECTED: 0.5,
}
CASES = [
    pytest.param(variant, rule, id=f"{variant}-{rule}".replace(" ", "-"))
    for variant, (family, _) in VARIANTS.items()
    for rule in DecayRule
    if not (Family(family).projected and rule is DecayRule.COUPLED)
]


def _case(variant: str, rule: DecayRule, **others: Any) -> tuple[Optimizer, Task]:
    family, options = VARIANTS[variant]
    normalized = others.pop("normalized", False)
    task = Task(**{"epochs": 17, **options, **others})
    return Optimizer(Family(family), rule, normalized=normalized), task


def _lanes(rule: DecayRule, normalized: bool) -> list[tuple[float, float]]:
    lam = LAMBDA[rule] * (10 if normalized else 1)  # divided by √N, of about 10
    return [(0.02, lam), (0.005, 3 * lam), (0.04, 0.0)]


@pytest.mark.parametrize(
    ("normalized", "decay_all", "schedule", "undecayed"),
    [
        (False, True, "cosine", ()),
        (False, False, "restarts", ()),
        (True, True, "restarts", ()),
        (True, False, "cosine", ()),
        (False, True, "cosine", ("tensor0", "tensor1")),
        (True, False, "cosine", ("tensor2",)),
    ],
)
@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_lanes_follow_the_written_out_algorithm(
    variant: str,
    rule: DecayRule,
    normalized: bool,
    decay_all: bool,
    schedule: str,
    undecayed: tuple[str, ...],
) -> None:
    decay = {"normalized": normalized, "decay_all": decay_all, "undecayed": undecayed}
    optimizer, task = _case(variant, rule, schedule=schedule, **decay)
    assert task.steps == 102
    lanes, gradient = _lanes(rule, normalized), smooth(task.steps)
    theta, _ = train(optimizer, task, start(), gradient, lanes)
    step = REFERENCES[variant.removesuffix(" nesterov").removesuffix(" momentum")]
    for row, (alpha, lam) in zip(theta, lanes, strict=True):
        alone = reference.follow(step, optimizer, task, start(), gradient, alpha, lam)
        assert (row - torch.cat([x.flatten() for x in alone])).abs().max() < 1e-12


def test_restarts_change_the_n_of_normalised_decay() -> None:
    timetable = _case("adam", DecayRule.INDEPENDENT, schedule="restarts")[1].timetable
    assert {timetable.steps_of_cycle(t) for t in range(102)} == {6, 12, 24, 48, 96}


@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_normalised_decay_is_plain_decay_divided_by_the_root_of_n(variant: str, rule: DecayRule) -> None:
    n, lam = 84, LAMBDA[rule] * 9
    found = []
    for normalized, given in ((True, lam), (False, lam / math.sqrt(n))):
        optimizer, task = _case(variant, rule, normalized=normalized)
        theta = torch.cat([x.flatten() for x in start()])[None]
        update = update_of(optimizer, task, theta, [(0.02, given)])
        for t in range(5):
            update.apply(theta, torch.cos(theta + t), 0.7, t + 1, n)
        found.append(theta)
    assert torch.equal(*found)


@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_only_matrices_decay_without_decay_all(variant: str, rule: DecayRule) -> None:
    optimizer, task = _case(variant, rule, decay_all=False)
    before = torch.cat([x.flatten() for x in start()])[None]
    theta = before.clone()
    update = update_of(optimizer, task, theta, [(0.02, LAMBDA[rule])])
    update.apply(theta, torch.zeros_like(theta), 0.7, 1, 120)  # nothing moves but by decay
    at = 0
    for shape in SHAPES:
        part = slice(at, at := at + math.prod(shape))
        moved = theta[:, part] != before[:, part]
        assert moved.all() if len(shape) > 1 else not moved.any()


# Rows of every length that a reduction might treat in its own way, in single precision.
WIDE = ((17, 27), (17,), (3, 128), (6, 3, 5, 5), (2, 1), (1, 9))


def _wide(lanes: int) -> tuple[Tensor, list[Tensor]]:
    """θ and gradients that stand across it in the first tensor and in some lanes of the others."""
    stream = torch.Generator().manual_seed(5)
    columns = sum(map(math.prod, WIDE))
    theta, *gradients = (torch.randn(lanes, columns, generator=stream) for _ in range(7))
    odd = torch.arange(17 * 27) % 2 == 1
    theta[:, : 17 * 27][:, odd] = 0
    for g in gradients:
        g[:, : 17 * 27][:, ~odd] = 0
    return theta, gradients


def _run(optimizer: Optimizer, task: Task, chosen: slice) -> tuple[Tensor, Tensor | None]:
    """θ and the projection's rate after six steps of these of 33 lanes."""
    theta, gradients = _wide(33)
    theta, gradients = theta[chosen].clone(), [g[chosen].clone() for g in gradients]
    lanes = [(1e-3 * 1.1**k, LAMBDA[optimizer.rule] * 0.9**k) for k in range(33)][chosen]
    update = update_of(optimizer, task, theta, lanes, WIDE)
    for t, g in enumerate(gradients):
        update.apply(theta, g, 1 - t / 6, t + 1, 6)
    return theta, update.projection_rate()


@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_no_bit_depends_on_the_size_of_the_pack(variant: str, rule: DecayRule) -> None:
    optimizer, task = _case(variant, rule, decay_all=False)
    whole, rate = _run(optimizer, task, slice(None))
    for chosen in (slice(1), slice(2), slice(3, 8), slice(22), slice(32, 33)):
        part, part_rate = _run(optimizer, task, chosen)
        assert torch.equal(part, whole[chosen])
        if rate is not None:
            assert part_rate is not None
            assert torch.equal(part_rate, rate[chosen])
            assert 0 < rate.min() <= rate.max() < 1


ILL = {1: math.nan, 3: math.inf, 5: 1e30, 8: -3.0}  # a lane, and what all its θ is when it diverges


@pytest.mark.parametrize("decay_all", [True, False], ids=["all", "matrices"])
@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_lanes_that_diverged_change_no_bit_of_their_neighbours(
    variant: str, rule: DecayRule, decay_all: bool
) -> None:
    optimizer, task = _case(variant, rule, decay_all=decay_all)
    well, gradients = _wide(9)
    mixed = well.clone()
    for lane, value in ILL.items():
        mixed[lane] = value
    alone, beside = (update_of(optimizer, task, x, [(1e-3, LAMBDA[rule])] * 9, WIDE) for x in (well, mixed))
    for t, g in enumerate(gradients):
        g_beside = g.clone()
        if t == 0:  # the step that they die of
            g_beside[[1, 8]] = math.nan
        else:  # frozen, as the trainer does
            for state in (g_beside, beside.alpha, beside.lam, *beside.family.moments()):
                state[list(ILL)] = 0
        alone.apply(well, g, 0.9, t + 1, 6)
        beside.apply(mixed, g_beside, 0.9, t + 1, 6)
    others = [lane for lane in range(9) if lane not in ILL]
    assert torch.equal(mixed[others], well[others])
    rates = alone.projection_rate(), beside.projection_rate()
    if rates[0] is not None and rates[1] is not None:
        assert torch.equal(rates[0][others], rates[1][others])


@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_a_frozen_lane_stays_where_it_is(variant: str, rule: DecayRule) -> None:
    optimizer, task = _case(variant, rule)
    values = [1e30, -3.0, 0.0, math.inf, math.nan]
    theta = torch.tensor(values)[:, None].repeat(1, sum(map(math.prod, WIDE)))
    before = theta.clone()
    update = update_of(optimizer, task, theta, [(0.0, 0.0)] * len(values), WIDE)
    for t in range(3):
        update.apply(theta, torch.zeros_like(theta), 0.9, t + 1, 6)
    assert torch.equal(theta[:3], before[:3])
    assert not theta[3:].isfinite().any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_moments_are_all_that_a_family_remembers(variant: str) -> None:
    optimizer, task = _case(variant, DecayRule.INDEPENDENT)
    gradient = smooth(task.steps)
    theta, used = train(optimizer, task, start(), gradient, [(0.02, 0.01), (0.01, 0.0)])
    fresh = update_of(optimizer, task, theta, [(0.02, 0.01), (0.01, 0.0)])
    assert all(state.shape == theta.shape for state in used.family.moments())
    assert len(used.family.moments()) == len(fresh.family.moments()) > 0
    found = []
    for update in (used, fresh):
        for state in update.family.moments():
            state.zero_()
        after = theta.clone()
        for t in range(3):
            update.apply(after, torch.sin(5 * after), 0.9, t + 1, 120)
        found.append(after)
    assert torch.equal(*found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_projected_families_have_a_projection_rate(variant: str) -> None:
    optimizer, task = _case(variant, DecayRule.LR_SCALED)
    _, update = train(optimizer, task, start(), smooth(task.steps), [(0.02, 0.01)])
    assert (update.projection_rate() is not None) is Family(VARIANTS[variant][0]).projected
