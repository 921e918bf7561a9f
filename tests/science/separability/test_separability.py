"""Separability: known answers, basin, baseline and seeds."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest

from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability import Verdict, analyse
from lrwd_sweep.science.separability.ridge import Minima, RidgeLine, smoothed_curvature
from lrwd_sweep.science.surface import Float
from tests.science.separability.surfaces import (
    BOWL,
    RIDGE,
    A,
    L,
    centred,
    noisy,
    numbers,
    quadratic,
    regret,
    repeated,
    surface,
    value,
)


def test_bowl_along_the_axes_is_separable_in_every_metric() -> None:
    found = analyse(surface(repeated(BOWL)))
    assert found.verdict is found.point_verdict is Verdict.SEPARABLE
    assert (found.reason, found.ridge_rows) == ("", 11)
    for estimate in (found.ridge_slope, found.reverse_slope, found.curvature_coupling):
        assert value(estimate) == pytest.approx(0, abs=1e-12)
    assert value(found.interaction_share) == pytest.approx(0, abs=1e-12)
    assert [each.octaves for each in found.transfer_regret] == [1, 2, 3]
    assert [value(each.estimate) for each in found.transfer_regret] == pytest.approx([0, 0, 0], abs=1e-12)


def test_perfect_ridge_is_product_coupled_and_reported_as_a_ridge() -> None:
    found = analyse(surface(repeated(RIDGE)))
    assert found.verdict is Verdict.PRODUCT_COUPLED
    assert value(found.ridge_slope) == pytest.approx(-1)
    assert value(found.reverse_slope) == pytest.approx(-1)
    assert value(found.curvature_coupling) == pytest.approx(1)
    assert "ridge" in found.curvature_coupling.reason
    assert value(regret(found, 1).estimate) == pytest.approx(1)
    assert value(regret(found, 2).estimate) == pytest.approx(4)
    assert value(found.top10_tilt) == pytest.approx(-1)


def test_additive_surface_under_lr_scaled_decay_has_slope_minus_one_exactly() -> None:
    independent = L + A  # log2 λ = log2 w + log2 α
    lopsided = np.exp(0.4 * independent) + np.exp(-0.9 * independent)
    found = analyse(surface(repeated(0.1 * A**4 + lopsided), rule=DecayRule.LR_SCALED))
    assert value(found.ridge_slope) == pytest.approx(-1, abs=1e-9)
    assert found.verdict is Verdict.PRODUCT_COUPLED
    assert found.slope_by_convention["independent"] == pytest.approx(0, abs=1e-9)


def test_capping_an_additive_surface_makes_no_interaction() -> None:
    found = analyse(surface(repeated(np.minimum(BOWL, 12.0)), cap=12.0))
    assert value(found.interaction_share) == pytest.approx(0, abs=1e-12)
    assert value(found.ridge_slope) == pytest.approx(0, abs=1e-12)
    assert not found.basin[0, 0]


def test_noise_is_taken_out_of_the_interaction_share() -> None:
    draws = [noisy(BOWL, 3, 1.0, stream) for stream in range(30)]
    corrected = [value(analyse(surface(y), resamples=0).interaction_share) for y in draws]
    raw = [value(analyse(surface(y.mean(axis=2))).interaction_share) for y in draws]
    assert abs(np.mean(corrected)) < 0.01
    assert np.mean(raw) > 0.03


def test_interaction_share_is_that_of_the_row_and_column_fit() -> None:
    y = BOWL + A * L
    found = analyse(surface(y), basin_quantile=1)
    assert value(found.interaction_share) == pytest.approx(((A * L) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    sign = np.where((A + L) % 2 == 0, 1.0, -1.0)[:10, :10]
    assert value(analyse(surface(repeated(sign)), basin_quantile=1).interaction_share) == pytest.approx(1)


def test_minimum_on_the_border_drops_the_row_and_names_the_side() -> None:
    bent = (L - 2 * A) ** 2 + 0.1 * A**2  # l* = 2a leaves the lattice beyond |a| = 2.5
    found = analyse(surface(repeated(bent)), basin_tolerance=3.0)
    assert [row for row, _ in found.ridge] == [3, 4, 5, 6, 7]
    assert value(found.ridge_slope) == pytest.approx(2)
    for slant, side in (
        (A, "lr:low"),
        (-A, "lr:high"),
        (L, "weight_decay:low"),
        (-L, "weight_decay:high"),
    ):
        tilted = analyse(surface(repeated(BOWL + 100 * slant)))
        assert tilted.on_edge == (side,)
        assert side in tilted.basin_on_edge
        assert "edge" in tilted.reason


def test_surface_falling_to_the_border_is_undetermined_for_want_of_rows() -> None:
    found = analyse(surface(repeated(A**2 - L)))
    assert (found.ridge_slope.value, found.ridge_rows) == (None, 0)
    assert "interior in 0 of" in found.reason
    assert "weight_decay:high" in found.reason


def parabolas(position: Float, curvature: Float) -> Float:
    """Rows of the given λ* and half second derivatives, (11, 11)."""
    return np.asarray(curvature[:, None] * (L - position[:, None]) ** 2)


def test_rows_weigh_in_the_slopes_by_their_smoothed_squared_curvature() -> None:
    rng = np.random.default_rng(0)
    position, curvature = rng.uniform(-3, 3, 11), rng.uniform(0.1, 2, 11)
    smoothed = [float(np.median(curvature[max(k - 2, 0) : k + 3])) for k in range(11)]
    weighted = np.polyfit(A[:, 0], position, 1, w=smoothed)[0]
    y = parabolas(position, curvature)
    found = analyse(surface(y), basin_quantile=1)
    assert [l_star for _, l_star in found.ridge] == pytest.approx(position)
    assert value(found.ridge_slope) == pytest.approx(weighted)
    assert value(analyse(surface(y.T), basin_quantile=1).reverse_slope) == pytest.approx(weighted)
    y[4] = np.arange(11.0)  # falls to the lowest λ: lends no curvature and has no weight
    found, rest = analyse(surface(y), basin_quantile=1), np.delete(np.arange(11), 4)
    weights = [np.median([curvature[k] for k in range(i - 2, i + 3) if k in rest]) for i in rest]
    assert [row for row, _ in found.ridge] == list(rest)
    weighted = np.polyfit(A[rest, 0], position[rest], 1, w=np.asarray(weights))[0]
    assert value(found.ridge_slope) == pytest.approx(weighted)
    steep, flat = np.eye(11)[10], np.ones(11)  # one steep row does not outvote the others
    found = analyse(surface(parabolas(4 * steep, flat + 99 * steep)), basin_quantile=1)
    assert value(found.ridge_slope) == pytest.approx(np.polyfit(A[:, 0], 4 * steep, 1)[0])


def test_weights_are_those_of_the_sample_in_every_resample() -> None:
    position, curvature = np.zeros((2, 5)), np.array([[1.0, 1, 1, 1, 1], [1, 50, 1, 0, 1]])
    axis = np.arange(5.0)
    position[1] = [0.0, 3, 1, 9, 2]
    slopes = RidgeLine.fit(Minima(position, curvature), axis, np.ones(5, dtype=bool)).slope
    carrying = [0, 1, 2, 4]
    assert slopes == pytest.approx([0, np.polyfit(axis[carrying], position[1, carrying], 1)[0]])
    rows = np.array([1, 0, 1, 1, 1, 1, 0], dtype=bool)  # neighbours are the next rows of the basin
    assert list(smoothed_curvature(np.array([3.0, 7, 1, 0, 2, 9, 9]), rows)) == [2, 0, 2, 2.5, 2, 5.5, 0]


def test_uneven_axes_keep_the_slope_of_a_quadratic_exact() -> None:
    log_lr = np.array([-4.0, -3.1, -1.5, -1.0, 0.3, 1.9, 2.2, 4.0])
    log_decay = np.array([-5.0, -3.0, -2.5, -0.7, 0.1, 0.6, 2.3, 3.0, 4.9])
    y, (_, al, ll) = quadratic(log_lr, log_decay, pi / 7)
    found = analyse(surface(y, log_lr, log_decay), basin_quantile=1)
    assert value(found.ridge_slope) == pytest.approx(-al / ll)
    for row, position in found.ridge:
        assert position == pytest.approx(-al / ll * log_lr[row])


def test_slope_by_convention_is_a_shear() -> None:
    for rule, independent, lr_scaled in (
        (DecayRule.INDEPENDENT, -1, -2),
        (DecayRule.LR_SCALED, 0, -1),
        (DecayRule.COUPLED, None, None),
        (DecayRule.FIXED, None, None),
        (DecayRule.CORRECTED, None, None),
    ):
        found = analyse(surface(repeated(RIDGE), rule=rule)).slope_by_convention
        assert found == {"independent": pytest.approx(independent), "lr-scaled": pytest.approx(lr_scaled)}


def test_basin_is_the_better_half_with_all_ties_or_what_was_asked() -> None:
    found, limit = analyse(surface(BOWL)), np.sort(BOWL, axis=None)[60]
    assert np.array_equal(found.basin, limit >= BOWL)
    assert found.basin_tolerance == pytest.approx(limit)
    assert analyse(surface(noisy(BOWL, 1, 0.1)), basin_quantile=0.01).basin.sum() == 10
    found = analyse(surface(BOWL + 3), basin_tolerance=2.0)
    assert np.array_equal(found.basin, BOWL <= 2.0)
    assert found.basin_tolerance == 2.0


def test_baseline_column_shifts_the_indices_and_nothing_else() -> None:
    y = noisy(BOWL, 3, 0.3)
    bare, based = analyse(surface(y)), analyse(surface(y, baseline=np.full((11, 3), -50.0)))
    for name in ("ridge_slope", "transfer_regret", "sequential_regret", "bow", "on_edge"):
        assert getattr(based, name) == getattr(bare, name), name
    assert np.array_equal(based.basin[:, 1:], bare.basin)
    assert not based.basin[:, 0].any()
    assert based.top10 == tuple((i, j + 1) for i, j in bare.top10)
    assert based.best_by_row == tuple((i, j + 1) for i, j in bare.best_by_row)


def test_baseline_gain_tells_if_decay_helps_and_by_how_much() -> None:
    y = noisy(BOWL, 5, 0.01)
    assert "no column" in analyse(surface(y)).baseline_gain.reason
    for gain in (2.0, -2.0):
        level = y.min(axis=(0, 1)) + gain
        column = noisy(np.full((11, 1), 0.0), 5, 0.01, stream=1, offset=0)[:, 0] + level
        found = analyse(surface(y, baseline=column)).baseline_gain
        assert value(found) == pytest.approx(gain, abs=0.1)
        assert found.excludes(0)
    assert y.mean(axis=(0, 1)).std() > 0.1  # the seeds differ by more than the interval: it is paired


def test_top10_are_the_ten_best_in_order_and_tilt_is_pearsons_r() -> None:
    y = noisy(RIDGE + BOWL, 3, 0.5)
    found, means = analyse(surface(y)), y.mean(axis=2)
    assert [means[cell] for cell in found.top10] == sorted(means.ravel())[:10]
    i, j = zip(*found.top10, strict=True)
    assert value(found.top10_tilt) == pytest.approx(np.corrcoef(i, j)[0, 1])


def test_too_few_seeds_leave_the_point_verdict_and_the_reason() -> None:
    for seeds in (1, 2):
        found = analyse(surface(repeated(RIDGE, seeds)))
        assert found.verdict is Verdict.UNDETERMINED
        assert found.point_verdict is Verdict.PRODUCT_COUPLED
        assert f"too few seeds for an interval: {seeds}" in found.reason


def test_wide_interval_is_undetermined_and_says_noise() -> None:
    y, _ = quadratic(centred(11), centred(11), 0.25)
    found = analyse(surface(noisy(y, 3, 3.0, stream=3)))
    assert found.verdict is Verdict.UNDETERMINED
    assert found.ridge_slope.has_interval
    assert "noise" in found.reason


def test_coupled_is_neither_separable_nor_a_product() -> None:
    y = noisy((L + 1.8 * A) ** 2 + 0.1 * A**2, 5, 0.05)
    assert analyse(surface(y)).verdict is analyse(surface(y[:, ::-1])).verdict is Verdict.COUPLED


def test_seed_offsets_are_no_noise() -> None:
    calm, shifted = (analyse(surface(noisy(BOWL, 3, 0.1, offset=offset))) for offset in (0, 100))
    for name in ("ridge_slope", "interaction_share", "bow"):
        here, there = getattr(calm, name), getattr(shifted, name)
        assert (there.value, there.low) == pytest.approx((here.value, here.low), abs=1e-9), name


def test_same_surface_gives_the_same_numbers() -> None:
    y = noisy(BOWL, 8, 0.5)  # eight seeds are resampled at random
    assert list(numbers(analyse(surface(y)))) == list(numbers(analyse(surface(y))))


def test_verdict_at_half_and_double_the_basin_is_reported_and_a_change_is_said() -> None:
    steady = analyse(surface(repeated(RIDGE)))
    assert [other.basin for other in steady.robustness] == [0.25, 1.0]
    assert {other.verdict for other in steady.robustness} == {Verdict.PRODUCT_COUPLED}
    away = np.sign(A) * np.maximum(np.abs(A) - 2, 0)
    bent = (L - 2 * away) ** 2 + A**2  # separable only near the optimum
    found = analyse(surface(repeated(bent)), basin_quantile=0.2)
    assert found.verdict is Verdict.SEPARABLE
    assert [other.verdict for other in found.robustness] == [Verdict.SEPARABLE, Verdict.COUPLED]
    assert "with the basin at 0.4 the verdict is coupled" in found.reason
