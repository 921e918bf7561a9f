"""The projection of SGDP and AdamP: its threshold, what it removes, and its effect on ‖θ‖.

test_update compares it by channel, by tensor and with vectors with the reference.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrwd_sweep.optim.projection import DELTA, Projection, columns
from lrwd_sweep.science.optimizer import Optimizer
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
    """Return the projected step, and for each lane True if it was projected."""
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
def test_step_is_unchanged_if_the_gradient_has_a_radial_part(size: tuple[int, int], seed: int) -> None:
    theta, p = _normal(seed, 2, *size), _normal(seed + 1, 2, *size)
    after, found = _apply(theta, -2 * theta, p)
    assert not found.any()
    assert torch.equal(after, p)


def test_step_is_unchanged_if_the_norm_overflows() -> None:
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


def test_rate_is_the_share_of_tensors_and_steps_since_the_last_call() -> None:
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


A = torch.diag(torch.tensor([1.0, 2.0, 4.0, 7.0, 11.0, 16.0], dtype=torch.float64))


def _rayleigh(theta: Tensor) -> Tensor:
    """Return the gradient of θᵀAθ/(2‖θ‖²) for every row: f(cθ) = f(θ)."""
    square = (theta * theta).sum(-1, keepdim=True)
    return (theta @ A - theta * (theta @ A * theta).sum(-1, keepdim=True) / square) / square


def _growth(name: str, task: Task) -> tuple[float, float]:
    """Take 50 steps without decay; return the largest radial part of a step, and ‖θ‖ at the end.

    ‖θ‖² grows by the square of an orthogonal step.
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


def test_only_projected_norms_grow_by_orthogonal_steps_on_a_scale_invariant_loss() -> None:
    for (projected, plain), nesterov in product((("sgdp", "sgd"), ("adamp", "adam")), (False, True)):
        task = Task(epochs=1, nesterov=nesterov, momentum_form=MomentumForm.TORCH)
        radial, norm = _growth(projected, task)
        plain_radial, plain_norm = _growth(plain, task)
        assert radial < 1e-7, (projected, nesterov)  # ε = 1e-8 beside ‖θ‖
        assert plain_radial > 1e-3, (plain, nesterov)
        assert _normal(3, 1, 12).norm() < norm < plain_norm, (projected, nesterov)


shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)


@settings(deadline=None)
@given(shapes, st.data())
def test_columns_of_tensors_are_merged_into_the_fewest_slices(
    chosen: list[tuple[int, ...]], data: st.DataObject
) -> None:
    segments = [segment for segment in layout(chosen) if data.draw(st.booleans())]
    found = columns(segments)
    assert [i for part in found for i in range(part.start, part.stop)] == [
        i for segment in segments for i in range(segment.start, segment.stop)
    ]
    assert all(left.stop < right.start for left, right in pairwise(found))
