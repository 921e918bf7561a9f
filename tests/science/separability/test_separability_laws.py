"""Separability: laws, coverage, and answers for surfaces that have none."""

from __future__ import annotations

from math import isfinite, pi, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrwd_sweep.science.separability import Estimate, Verdict, analyse
from lrwd_sweep.science.surface import CellStatus, Float, Surface
from tests.science.separability.surfaces import (
    BOWL,
    RIDGE,
    A,
    L,
    centred,
    every,
    noisy,
    quadratic,
    regret,
    repeated,
    surface,
    value,
)


@given(
    angle=st.floats(-0.7, 0.7),
    anisotropy=st.floats(1.5, 20),
    steps=st.tuples(st.floats(0.3, 1.5), st.floats(0.3, 1.5)),
    uneven=st.floats(0, 0.4),
    centre=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
def test_quadratic_has_the_slopes_and_coupling_of_its_hessian(
    angle: float, anisotropy: float, steps: tuple[float, float], uneven: float, centre: tuple[float, float]
) -> None:
    log_lr, log_decay = (
        step * (centred(count) + uneven * np.sin(9.0 * np.arange(count)))
        for step, count in zip(steps, (11, 13), strict=True)
    )
    y, (aa, al, ll) = quadratic(log_lr, log_decay, angle, flat=0.5, steep=0.5 * anisotropy, centre=centre)
    found = analyse(surface(y, log_lr, log_decay), basin_quantile=1)
    assume(found.ridge_rows >= 3 and found.reverse_slope.value is not None)
    s, reverse, rho = map(value, (found.ridge_slope, found.reverse_slope, found.curvature_coupling))
    assert (s, reverse, rho) == pytest.approx((-al / ll, -al / aa, al / sqrt(aa * ll)), abs=1e-7)
    assert s * reverse == pytest.approx(rho**2, abs=1e-7)


SHIFT = st.floats(-8, 8)
WITHOUT_UNITS = ("ridge_slope", "slope_from_rows", "curvature_coupling", "interaction_share", "bow")


@given(
    shift=st.tuples(SHIFT, SHIFT),
    scale=st.floats(0.01, 100),
    level=st.floats(-10, 10),
    stream=st.integers(0, 1000),
    slant=st.sampled_from([0.3, 1.4]),  # the second leaves the axis
    order=st.permutations(range(3)),
)
def test_shifted_axes_another_unit_and_order_of_seeds_change_nothing_without_units(
    shift: tuple[float, float], scale: float, level: float, stream: int, slant: float, order: list[int]
) -> None:
    y, axis = noisy(0.1 * A**2 + 0.5 * (L + slant * A) ** 2, 3, 0.5, stream), centred(11)
    initial = float(y.max())
    here = analyse(surface(y), initial=initial)
    shifted = surface(scale * y[..., order] + level, axis + shift[0], axis + shift[1])
    there = analyse(shifted, initial=scale * initial + level)
    assert there.windowed is here.windowed
    for name in WITHOUT_UNITS:
        mine, other = getattr(here, name), getattr(there, name)
        assert (other.value, other.low, other.high) == pytest.approx(
            (mine.value, mine.low, mine.high), rel=1e-5, abs=1e-6
        ), name
    assert there.verdict is here.verdict
    pairs = [*zip(here.transfer_regret, there.transfer_regret, strict=True)]
    scaled = [(one.estimate, two.estimate) for one, two in pairs]
    scaled += [(here.sequential_regret[k].estimate, there.sequential_regret[k].estimate) for k in (0, 1)]
    assert here.lr_sensitivity is not None
    assert there.lr_sensitivity is not None
    for mine, other in [*scaled, (here.lr_sensitivity.fixed, there.lr_sensitivity.fixed)]:
        assert value(other) == pytest.approx(scale * value(mine), rel=1e-6, abs=1e-7)


@given(stream=st.integers(0, 1000), tilt=st.floats(-0.4, 0.4))
def test_slope_of_the_sheared_surface_is_less_by_one(stream: int, tilt: float) -> None:
    a, b = np.meshgrid(centred(7), centred(23), indexing="ij")
    wide = noisy((b - tilt * a) ** 2 + 0.3 * a**2 + 0.1 * a * b**2 * (b > 0), 3, 0.3, stream)
    independent = wide[:, 4:19]  # columns λ, and below w = λ/α: the same cells, a step further in every row
    lr_scaled = np.stack([row[4 + shift : 19 + shift] for shift, row in zip(range(-3, 4), wide, strict=True)])
    mine, sheared = (analyse(surface(y), basin_quantile=1).ridge_slope for y in (independent, lr_scaled))
    assert (sheared.value, sheared.low, sheared.high) == pytest.approx(
        tuple(x - 1 for x in (mine.value, mine.low, mine.high) if x is not None)
    )


@given(
    y=arrays(np.float64, (6, 7), elements=st.floats(0, 1)),
    f=arrays(np.float64, (6, 1), elements=st.floats(0, 1)),
    g=arrays(np.float64, (1, 7), elements=st.floats(0, 1)),
)
def test_adding_an_additive_surface_leaves_the_interaction_where_it_was(y: Float, f: Float, g: Float) -> None:
    def interaction(z: Float) -> float:
        assume(np.ptp(z) > 1e-3)
        return value(analyse(surface(z), basin_quantile=1).interaction_share) * float(z.var())

    assert interaction(y + f + g) == pytest.approx(interaction(y), abs=1e-9)


def test_pair_whose_transferred_cell_is_out_is_counted_and_left_out_of_the_mean() -> None:
    whole = surface(repeated(RIDGE))
    holed = whole.values.copy()
    holed[5, 6] = np.nan  # where row 4's best λ lands in row 5
    for status, pairs, out in ((None, 20, 0), (CellStatus.DIVERGED, 19, 1), (CellStatus.MISSING, 19, 0)):
        lanes = whole.lanes.copy()
        lanes[5, 6] = (status or CellStatus.COMPLETE).value
        values = holed if status else whole.values
        found = analyse(Surface(whole.lr, whole.weight_decay, whole.seeds, values, lanes, whole.rule))
        assert (regret(found, 1).pairs, regret(found, 1).pairs_out) == (pairs, out)
        assert value(regret(found, 1).estimate) == pytest.approx(1)
        carrying = [row for row, _ in found.ridge]
        assert (5 in carrying) is (status is None)  # a neighbour of its best cell is lost


def test_degenerate_surface_is_undetermined_with_the_reason() -> None:
    for name, y, reason in (
        ("3x3", repeated(BOWL[4:7, 4:7]), "too few cells: 9 of 9"),
        ("all diverged", np.full((11, 11, 3), np.nan), "too few cells: 0 of 121"),
        ("constant", repeated(np.full((11, 11), 0.1)) + np.array([0.1, 0.2, 0.3]), "flat"),
        ("one short row", repeated(BOWL[5:6]), "interior in 1 of 1"),
        ("one column", repeated(BOWL[:, 5:6]), "interior in 0 of"),
        ("one row", noisy(np.ones((1, 15)), 3, 1.0), "interior in"),
        ("λ idle", repeated(A**2), "interior in 0 of"),
        ("falling to the border", repeated(A**2 - L), "weight_decay:high"),
        ("no seed", np.empty((11, 11, 0)), "too few cells"),
        ("baseline only", np.empty((11, 0, 3)), "not applicable"),
    ):
        column = np.ones((11, 3)) if name == "baseline only" else None
        found = analyse(surface(y, baseline=column))
        assert found.verdict is Verdict.UNDETERMINED, name
        assert reason in found.reason, name
        assert all(map(isfinite, every(float, found))), name
        assert name != "constant" or found.on_edge == ()
    y = noisy(BOWL, 3, 0.1)
    y[8:] *= 1e306
    assert all(map(isfinite, every(float, analyse(surface(y), basin_quantile=1, initial=1e308))))


@given(
    y=st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 5)).flatmap(
        lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, np.nan]))
    ),
    baseline=st.booleans(),
    cap=st.sampled_from([None, 1.0]),
    quantile=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_whatever_the_surface_the_answer_is_finite_or_has_a_reason(
    y: Float, baseline: bool, cap: float | None, quantile: float
) -> None:
    column = np.full((y.shape[0], y.shape[2]), 0.2) if baseline else None
    one = surface(y, cap=cap, baseline=column)
    found = analyse(one, basin_quantile=quantile, resamples=50, initial=0.7)
    assert all(map(isfinite, every(float, found)))
    for estimate in every(Estimate, found):
        assert (estimate.low is None) == (estimate.high is None)
        assert estimate.value is not None or estimate.reason
    assert (found.verdict is not Verdict.UNDETERMINED) or found.reason


def test_intervals_cover_the_truth_nine_times_in_ten() -> None:
    """A sample of `test_simulation`, which is slow."""
    y, (aa, al, ll) = quadratic(centred(11), centred(11), pi / 6)
    truth = {"ridge_slope": -al / ll, "curvature_coupling": al / sqrt(aa * ll)}
    for seeds, noise in ((3, 0.05), (5, 0.3)):
        found = [analyse(surface(noisy(y, seeds, noise, stream)), resamples=200) for stream in range(60)]
        for metric, expected in truth.items():
            known: list[Estimate] = [getattr(each, metric) for each in found]
            held = sum(each.has_interval and not each.excludes(expected) for each in known) / 60
            assert 0.83 <= held <= 0.97, (metric, seeds)
