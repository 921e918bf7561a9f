"""The projection of SGDP and AdamP: what it removes, where it acts, and what it does to ‖θ‖."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrwd_sweep.optim.projection import DELTA, Projection
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import MomentumForm, Task
from tests.optim.problem import across, layout, update_of

EPS = 1e-8
sizes = st.tuples(st.integers(1, 5), st.integers(2, 7))


def _projection(lanes: int, *shapes: tuple[int, ...]) -> Projection:
    found = torch.zeros(lanes, dtype=torch.float64)
    return Projection(tuple(s for s in layout(shapes) if s.is_matrix), found, EPS)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _apply(theta: Tensor, g: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """The projected step, and by lane whether it was; all (L, channels, row length)."""
    lanes, channels, length = theta.shape
    after = p.flatten(1).clone()
    projection = _projection(lanes, (channels, length))
    (found,) = projection.apply(theta.flatten(1), g.flatten(1), after)
    return after.view_as(p), found[:, 0]


@settings(deadline=None)
@given(sizes, st.integers(0, 2**20), st.floats(-6, 6))
def test_every_row_of_a_projected_step_is_orthogonal_to_the_weight(
    size: tuple[int, int], seed: int, scale: float
) -> None:
    theta, g, p = (
        10**scale * _normal(seed, 3, *size),
        _normal(seed + 1, 3, *size),
        _normal(seed + 2, 3, *size),
    )
    after, found = _apply(theta, across(theta, g), p)
    assert found.all()
    norm = theta.norm(dim=2)
    inner = (after * theta).sum(2).abs() / (norm * p.norm(dim=2))
    assert (inner <= 2 * EPS / norm + 1e-14).all()  # what θ/(‖θ‖ + ε) lacks of a unit vector
    removed = p - after
    assert torch.allclose(across(theta, removed), torch.zeros_like(p), atol=1e-12)  # nothing else


@settings(deadline=None)
@given(sizes, st.integers(0, 2**20))
def test_a_tensor_across_as_a_whole_loses_what_lies_along_the_whole(size: tuple[int, int], seed: int) -> None:
    theta, g, p = (_normal(seed + k, 1, size[0] + 1, size[1]) for k in range(3))
    g[:, 0] += 3 * theta[:, 0]  # along in one row; the others make up for it
    g = across(theta.flatten(1), g.flatten(1)).view_as(g)
    assume(torch.cosine_similarity(theta, g, dim=2).abs().max() > DELTA / math.sqrt(size[1]))
    after, found = _apply(theta, g, p)
    assert found.all()
    expected = across(theta.flatten(1), p.flatten(1)).view_as(p)
    torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(sizes, st.integers(0, 2**20))
def test_a_step_is_left_alone_where_the_gradient_has_a_radial_part(size: tuple[int, int], seed: int) -> None:
    theta, p = _normal(seed, 2, *size), _normal(seed + 1, 2, *size)
    after, found = _apply(theta, -2 * theta, p)
    assert not found.any()
    assert torch.equal(after, p)


def test_a_weight_whose_norm_overflows_leaves_the_step_alone() -> None:
    theta = torch.full((1, 2, 3), 1e200, dtype=torch.float64)
    after, found = _apply(theta, theta, theta)
    assert not found.any()
    assert torch.equal(after, theta)


@settings(deadline=None)
@given(st.floats(0, 2), sizes)
def test_threshold_is_delta_over_the_root_of_the_row_length(times: float, size: tuple[int, int]) -> None:
    assume(abs(times - 1) > 1e-9)
    cosine = min(1.0, times * DELTA / math.sqrt(size[1]))
    theta, g = torch.zeros(2, 1, *size, dtype=torch.float64)
    theta[..., 0] = 5
    g[..., 0], g[..., 1] = cosine, math.sqrt(1 - cosine**2)
    assert bool(_apply(theta, g, g)[1]) is (times < 1)  # the bound of the whole is the stricter one


def test_it_is_the_gradient_that_decides_and_not_the_step() -> None:
    theta, g = _normal(0, 1, 3, 4), _normal(1, 1, 3, 4)
    assert _apply(theta, across(theta, g), theta)[1].all()
    assert not _apply(theta, theta, across(theta, g))[1].any()


def test_every_lane_decides_for_itself() -> None:
    theta, g, p = _normal(0, 4, 3, 5), _normal(1, 4, 3, 5), _normal(2, 4, 3, 5)
    g[1:3] = across(theta, g)[1:3]
    g[0] = g[3] = theta[0]
    theta[3] = theta[0]
    after, found = _apply(theta, g, p)
    assert found.tolist() == [False, True, True, False]
    for lane in range(4):
        alone, _ = _apply(theta[lane][None], g[lane][None], p[lane][None])
        assert torch.equal(alone[0], after[lane])


def test_vectors_are_never_projected() -> None:
    theta, g, p = _normal(0, 1, 9), torch.zeros(1, 9, dtype=torch.float64), _normal(1, 1, 9)
    after = p.clone()
    assert len(_projection(1, (4,), (1, 3), (2,)).apply(theta, g, after)) == 1
    assert torch.equal(after[:, :4], p[:, :4])
    assert torch.equal(after[:, 7:], p[:, 7:])
    assert not torch.equal(after[:, 4:7], p[:, 4:7])


def test_rate_is_the_share_of_tensors_and_steps_since_it_was_last_asked() -> None:
    shapes = ((2, 3), (3,), (4, 2))
    theta = torch.ones(2, 17, dtype=torch.float64)
    along, none = theta.clone(), torch.zeros_like(theta)
    first = along.clone()
    first[1, :6] = 0  # of the second lane the first tensor is across
    projection = _projection(2, *shapes)
    for g in (first, along):
        projection.apply(theta, g, theta.clone())
    assert projection.take_rate().tolist() == [0.0, 0.25]
    projection.apply(theta, none, theta.clone())
    assert projection.take_rate().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("rule", [rule for rule in DecayRule if rule is not DecayRule.COUPLED])
@pytest.mark.parametrize("name", ["sgdp", "adamp"])
def test_projected_matrices_decay_by_a_tenth_and_vectors_in_full(name: str, rule: DecayRule) -> None:
    family = Family(name)
    theta = torch.ones(1, 8, dtype=torch.float64)
    update = update_of(Optimizer(family, rule), Task(), theta, [(0.1, 0.5)], ((2, 3), (2,)))
    update.apply(theta, torch.zeros_like(theta), 0.8, 1, 100)  # no gradient stands across everything
    rate = {
        DecayRule.INDEPENDENT: 0.8 * 0.5,
        DecayRule.LR_SCALED: 0.8 * 0.1 * 0.5 * (10 if family is Family.SGDP else 1),  # 1/(1−β₁)
        DecayRule.FIXED: 0.5,
        DecayRule.CORRECTED: 0.8**2 * 0.1 * 0.5,
    }[rule]
    expected = [1 - 0.1 * rate] * 6 + [1 - rate] * 2
    assert theta[0].tolist() == pytest.approx(expected, abs=1e-12)


A = torch.diag(torch.tensor([1.0, 2.0, 4.0, 7.0, 11.0, 16.0], dtype=torch.float64))


def _rayleigh(theta: Tensor) -> Tensor:
    """The gradient of θᵀAθ/(2‖θ‖²) for every row: f(cθ) = f(θ)."""
    square = (theta * theta).sum(-1, keepdim=True)
    return (theta @ A - theta * (theta @ A * theta).sum(-1, keepdim=True) / square) / square


def _growth(name: str, task: Task) -> tuple[float, float]:
    """Over 50 steps without decay: how far a row's ‖θ‖² ever grew by more or less than the square of its
    step, which is by how much steps were not orthogonal; and ‖θ‖ at the end.
    """
    theta = _normal(3, 1, 12)
    update = update_of(Optimizer.parse(name), task, theta, [(0.05, 0.0)], ((2, 6),))
    radial = 0.0
    for t in range(50):
        before, rows = theta.clone().view(2, 6), theta.view(2, 6)
        update.apply(theta, _rayleigh(before).view(1, 12), 1.0, t + 1, 50)
        excess = rows.square().sum(1) - before.square().sum(1) - (rows - before).square().sum(1)
        radial = max(radial, excess.abs().max().item())
    return radial, theta.norm().item()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("projected", "plain"), [("sgdp", "sgd"), ("adamp", "adam")])
def test_norm_grows_by_orthogonal_steps_alone_on_a_scale_invariant_loss(
    projected: str, plain: str, nesterov: bool
) -> None:
    task = Task(epochs=1, nesterov=nesterov, momentum_form=MomentumForm.TORCH)
    radial, norm = _growth(projected, task)
    plain_radial, plain_norm = _growth(plain, task)
    assert radial < 1e-7  # ε = 1e-8 beside ‖θ‖
    assert plain_radial > 1e-3
    assert _normal(3, 1, 12).norm() < norm < plain_norm
