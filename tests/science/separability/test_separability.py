"""Separability: known answers, basin, baseline and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.separability import Verdict, analyse
from lrwd_sweep.science.separability.ridge import Minima, RidgeLine, smoothed_curvature
from lrwd_sweep.science.surface import Float, Surface
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

INDEPENDENT = L + A  # log2 λ = log2 w + log2 α, on a lattice of w
ADDITIVE = 0.1 * A**4 + np.exp(0.4 * INDEPENDENT) + np.exp(-0.9 * INDEPENDENT)


def test_known_answers() -> None:
    zero = dict.fromkeys(("ridge_slope", "reverse_slope", "curvature_coupling", "interaction_share"), 0.0)
    in_w = surface(repeated(ADDITIVE), rule=DecayRule.LR_SCALED)
    product: dict[str, float] = {"ridge_slope": -1, "reverse_slope": -1, "curvature_coupling": 1}
    cases: list[tuple[Surface, Verdict, dict[str, float], list[float]]] = [
        (surface(repeated(BOWL)), Verdict.SEPARABLE, zero, [0, 0, 0]),
        (surface(repeated(RIDGE)), Verdict.PRODUCT_COUPLED, product | {"top10_tilt": -1}, [1, 4]),
        (in_w, Verdict.PRODUCT_COUPLED, {"ridge_slope": -1}, []),
        (surface(repeated(np.minimum(BOWL, 12.0)), cap=12.0), Verdict.SEPARABLE, zero, []),
    ]
    for case, (one, verdict, expected, regrets) in enumerate(cases):
        found = analyse(one)
        assert found.verdict is found.point_verdict is verdict, case
        for measure, number in expected.items():
            assert value(getattr(found, measure)) == pytest.approx(number, abs=1e-9), (case, measure)
        for octaves, number in enumerate(regrets, start=1):
            assert value(regret(found, octaves).estimate) == pytest.approx(number, abs=1e-12), (case, octaves)
    bowl = analyse(cases[0][0])
    assert (bowl.reason, bowl.ridge_rows, len(bowl.transfer_regret)) == ("", 11, 3)
    assert "ridge" in analyse(cases[1][0]).curvature_coupling.reason
    assert not analyse(cases[3][0]).basin[0, 0], "a capped cell is out"


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


def test_interaction_share_is_that_of_the_row_and_column_fit_without_noise() -> None:
    y = BOWL + A * L
    found = analyse(surface(y), basin_quantile=1)
    assert value(found.interaction_share) == pytest.approx(((A * L) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    sign = np.where((A + L) % 2 == 0, 1.0, -1.0)[:10, :10]
    assert value(analyse(surface(repeated(sign)), basin_quantile=1).interaction_share) == pytest.approx(1)
    draws = [noisy(BOWL, 3, 1.0, stream) for stream in range(30)]
    corrected = [value(analyse(surface(y), resamples=0).interaction_share) for y in draws]
    raw = [value(analyse(surface(y.mean(axis=2)), resamples=0).interaction_share) for y in draws]
    assert abs(np.mean(corrected)) < 0.01
    assert np.mean(raw) > 0.03


def test_minimum_on_the_border_drops_the_row_and_names_the_side() -> None:
    bent = (L - 2 * A) ** 2 + 0.1 * A**2  # l* = 2a leaves the lattice beyond |a| = 2.5
    found = analyse(surface(repeated(bent)), basin_tolerance=3.0)
    assert [row for row, _ in found.ridge] == [3, 4, 5, 6, 7]
    assert value(found.ridge_slope) == pytest.approx(2)
    slants = {"lr:low": A, "lr:high": -A, "weight_decay:low": L, "weight_decay:high": -L}
    for side, slant in slants.items():
        tilted = analyse(surface(repeated(BOWL + 100 * slant)))
        assert tilted.on_edge == (side,)
        assert side in tilted.basin_on_edge
        assert "edge" in tilted.reason


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


def test_basin_is_the_better_half_with_all_ties_or_what_was_asked() -> None:
    found, limit = analyse(surface(BOWL)), np.sort(BOWL, axis=None)[60]
    assert np.array_equal(found.basin, limit >= BOWL)
    assert found.basin_tolerance == pytest.approx(limit)
    assert analyse(surface(noisy(BOWL, 1, 0.1)), basin_quantile=0.01).basin.sum() == 10
    found = analyse(surface(BOWL + 3), basin_tolerance=2.0)
    assert np.array_equal(found.basin, BOWL <= 2.0)
    assert found.basin_tolerance == 2.0


def test_baseline_column_shifts_the_indices_and_has_a_gain() -> None:
    y = noisy(BOWL, 5, 0.01)
    assert y.mean(axis=(0, 1)).std() > 0.1  # the seeds differ by more than the intervals below: paired
    bare = analyse(surface(y))
    assert "no column" in bare.baseline_gain.reason
    for gain in (2.0, -2.0):
        level = y.min(axis=(0, 1)) + gain
        column = noisy(np.full((11, 1), 0.0), 5, 0.01, stream=1, offset=0)[:, 0] + level
        based = analyse(surface(y, baseline=column))
        assert value(based.baseline_gain) == pytest.approx(gain, abs=0.1)
        assert based.baseline_gain.excludes(0)
        for name in ("ridge_slope", "transfer_regret", "sequential_regret", "bow", "on_edge"):
            assert getattr(based, name) == getattr(bare, name), name
        assert np.array_equal(based.basin[:, 1:], bare.basin)
        assert not based.basin[:, 0].any()
        for name in ("top10", "best_by_row"):
            assert getattr(based, name) == tuple((i, j + 1) for i, j in getattr(bare, name)), name


def test_top10_are_the_ten_best_in_order_and_tilt_is_pearsons_r() -> None:
    y = noisy(RIDGE + BOWL, 3, 0.5)
    found, means = analyse(surface(y)), y.mean(axis=2)
    assert [means[cell] for cell in found.top10] == sorted(means.ravel())[:10]
    i, j = zip(*found.top10, strict=True)
    assert value(found.top10_tilt) == pytest.approx(np.corrcoef(i, j)[0, 1])


def test_verdict_is_undetermined_with_few_seeds_or_a_wide_interval() -> None:
    for seeds in (1, 2):
        found = analyse(surface(repeated(RIDGE, seeds)))
        assert (found.verdict, found.point_verdict) == (Verdict.UNDETERMINED, Verdict.PRODUCT_COUPLED)
        assert f"too few seeds for an interval: {seeds}" in found.reason
    y, _ = quadratic(centred(11), centred(11), 0.25)
    found = analyse(surface(noisy(y, 3, 3.0, stream=3)))
    assert found.verdict is Verdict.UNDETERMINED
    assert found.ridge_slope.has_interval
    assert "noise" in found.reason
    y = noisy((L + 1.8 * A) ** 2 + 0.1 * A**2, 5, 0.05)
    assert analyse(surface(y)).verdict is analyse(surface(y[:, ::-1])).verdict is Verdict.COUPLED


def test_seed_offsets_are_no_noise_and_the_same_surface_gives_the_same_numbers() -> None:
    calm, shifted = (analyse(surface(noisy(BOWL, 3, 0.1, offset=offset))) for offset in (0, 100))
    for name in ("ridge_slope", "interaction_share", "bow"):
        here, there = getattr(calm, name), getattr(shifted, name)
        assert (there.value, there.low) == pytest.approx((here.value, here.low), abs=1e-9), name
    y = noisy(BOWL, 8, 0.5)  # eight seeds are resampled at random
    assert list(every(float, analyse(surface(y)))) == list(every(float, analyse(surface(y))))


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
