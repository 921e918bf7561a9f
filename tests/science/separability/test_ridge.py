"""The ridge where it leaves the axis, its interval from rows, its shape, and small lattices without one."""

from math import sqrt

import numpy as np
import pytest

from lrwd_sweep.science.separability import Verdict, analyse
from lrwd_sweep.science.separability.bootstrap import t95
from lrwd_sweep.science.separability.ridge import Minima, slope_from_rows, windowed_minima
from lrwd_sweep.science.surface import Float
from tests.science.separability.surfaces import A, L, centred, noisy, repeated, surface, value


def valley(slope: float, columns: int, *, steep: float = 0.5, step: float = 1.0) -> Float:
    """A straight valley l* = slope · a over 11 rows, (11, columns)."""
    a, b = np.meshgrid(centred(11), centred(columns, step), indexing="ij")
    return np.asarray(0.02 * a**2 + steep * (b - slope * a) ** 2)


def test_window_follows_a_ridge_that_leaves_a_fine_axis_and_is_exact_without_noise() -> None:
    for slope in (-1.0, 1.0):
        draws = [noisy(valley(slope, 7, steep=0.1), 5, 0.3, stream) for stream in range(15)]
        found = [each for each in (analyse(surface(y), resamples=0) for y in draws) if each.windowed]
        assert len(found) >= 14
        assert all("a longer axis there would settle it" in each.reason for each in found)
        slopes = [(value(each.ridge_slope), value(each.three_cell_slope)) for each in found]
        windowed, three = np.abs(np.mean(slopes, axis=0) - slope)
        assert windowed < 0.05 < three
    stays = analyse(surface(repeated(valley(-1, 15))))
    coarse = analyse(surface(repeated(valley(-1, 5, step=1.5)), None, centred(5, 1.5)))
    assert (stays.rows_on_edge, bool(coarse.rows_on_edge)) == ({}, True)
    assert "which draws the slope towards 0" in coarse.reason
    for each in (stays, coarse):
        assert (each.windowed, each.three_cell_slope) == (False, each.ridge_slope)
    y, axis = (L - 9 * A)[None] ** 2, centred(11)  # fewer than three rows inside
    assert not windowed_minima(y, axis, axis, np.ones(11, dtype=bool)).curvature.any()
    # Without noise it is exact, whatever the spacing.
    log_lr, log_decay = centred(11), np.array([-3.2, -2.5, -1.4, -0.6, 0.4, 1.1, 1.9, 3.0])
    y = 0.02 * log_lr[:, None] ** 2 + 0.5 * np.add.outer(log_lr, log_decay) ** 2
    y[4, 3] = np.nan  # a cell on the ridge
    exact = analyse(surface(repeated(y), log_lr, log_decay))
    assert (exact.windowed, value(exact.ridge_slope)) == pytest.approx((True, -1))
    inside = {row: -log_lr[row] for row in (3, 4, 5, 6, 7)}  # the line is half a step inside of the axis
    assert dict(exact.ridge) == pytest.approx(inside)


def test_row_that_noise_pulls_in_from_the_end_of_the_axis_does_not_carry_the_slope() -> None:
    for slope in (-1.0, 1.0):
        straight, pulled = valley(slope, 11), valley(slope, 11)
        for row in (0, 10):  # whose optimum is the last cell of the axis
            pulled[row, pulled[row].argmin()] += 2
        for y in (straight, pulled):
            found, turned = (analyse(surface(repeated(z)), basin_quantile=1) for z in (y, y.T))
            assert [row for row, _ in found.ridge] == list(range(1, 10))
            assert (value(found.ridge_slope), value(turned.reverse_slope)) == pytest.approx((slope, slope))


def test_one_seed_has_an_interval_from_rows_and_no_verdict_on_seeds() -> None:
    a, l_star = centred(8), np.random.default_rng(0).standard_normal(8)
    rows = slope_from_rows(Minima(l_star[None], np.repeat(3.0, 8)[None]), a, np.ones(8, dtype=bool))
    x = np.stack([np.ones_like(a), a], axis=1)
    hat = np.linalg.pinv(x)
    slope, score = hat[1] @ l_star, hat[1] * (l_star - x @ hat @ l_star) / (1 - np.diag(x @ hat))
    half = t95((a @ a) ** 2 / (a**4).sum() - 1) * sqrt(score @ score)  # HC3
    assert (rows.value, rows.low, rows.high) == pytest.approx((slope, slope - half, slope + half))
    found = analyse(surface(noisy(valley(-1, 15), 1, 0.2)))
    verdicts = found.ridge_slope.low, found.verdict, found.verdict_from_rows
    assert verdicts == (None, Verdict.UNDETERMINED, Verdict.PRODUCT_COUPLED)
    assert found.slope_from_rows.value == pytest.approx(value(found.ridge_slope))
    few = analyse(surface(noisy(valley(-1, 15)[3:7], 1, 0.2), centred(4))).slope_from_rows
    assert "4 rows carry the ridge, an interval from rows needs 5" in few.reason


def test_bow_and_time_scale_are_those_of_the_ridge() -> None:
    for bow, slope in ((-2.0, 0.3), (0.0, -0.5), (1.5, 0.5)):  # the middle lies below the chord of the ends
        l_star = slope * A[:, 0] + bow * (A[:, 0] / 5) ** 2
        found = analyse(surface(repeated((centred(19) - l_star[:, None]) ** 2)), basin_quantile=1)
        assert (value(found.bow), value(found.ridge_slope)) == pytest.approx((bow, slope), abs=1e-6)
    y = noisy(0.05 * A**2 + 0.5 * (L - 0.3) ** 2, 5, 0.1)
    centre = analyse(surface(y, centred(11) - 6, centred(11) - 9)).ridge_centre
    assert centre is not None
    assert centre.log_decay.value == pytest.approx(-8.7, abs=0.05)
    tau = centre.timescale(lambda lr, lam: 1 / lam, 100, 10)
    best = centre.log_decay
    ends = [2.0 ** -(end or 0) for end in (best.value, best.high, best.low)]
    assert [tau.steps.value, tau.steps.low, tau.steps.high] == pytest.approx(ends)
    assert [tau.epochs.value, tau.share.value] == pytest.approx([ends[0] / 100, ends[0] / 1000])
    assert "no time scale" in centre.timescale(lambda lr, lam: None, 100, 10).epochs.reason


def test_contour_slope_describes_a_wall_and_contrast_a_small_lattice() -> None:
    wall = surface(repeated(np.exp2(L + 0.7 * A)))  # rows are best at the lowest λ
    found = analyse(wall, basin_tolerance=0.5)
    assert (found.ridge_rows, value(found.contour_slope)) == pytest.approx((0, -0.7), abs=0.05)
    assert analyse(surface(repeated(-L + 0.0 * A))).contour_slope.value is None  # it leaves the axis
    assert "the ridge slope says more" in analyse(surface(repeated(valley(0, 11)))).contour_slope.reason
    for seeds in (2, 3):
        y = noisy((0.2 * A * L + L**2)[4:7, 4:7], seeds, 0.05)
        contrast = analyse(surface(y, baseline=np.ones((3, seeds)))).contrast
        assert contrast is not None
        assert (contrast.rows, contrast.columns, contrast.octaves) == ((0, 2), (1, 3), (2.0, 2.0))
        by_seed = y[2, 2] - y[2, 0] - y[0, 2] + y[0, 0]
        mean, half = by_seed.mean(), t95(seeds - 1) * by_seed.std(ddof=1) / sqrt(seeds)
        assert (contrast.estimate.low, contrast.estimate.high) == pytest.approx((mean - half, mean + half))
    y[2, 2] = np.nan  # the outermost cells that count
    contrast = analyse(surface(y)).contrast
    assert contrast is not None
    assert (contrast.rows, contrast.columns) == ((0, 1), (0, 2))
    assert analyse(surface(repeated(valley(0, 11)))).contrast is None  # large enough for a slope
    assert analyse(surface(y[..., :1])).contrast is None  # one seed
