"""The ridge and the verdict on its slope: interval, margin, noise test; two surfaces compared in pairs."""

from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.separability import Estimate, Verdict, analyse, compare
from lrwd_sweep.science.separability import verdict as rules
from lrwd_sweep.science.separability.bootstrap import t95
from lrwd_sweep.science.separability.ridge import Minima, slope_from_rows, windowed_minima
from lrwd_sweep.science.surface import Bool, Float
from tests.refusal import assert_raises
from tests.report.view.examples import known
from tests.science.separability import surfaces
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, centred, noisy, repeated, surface, value

SEPARABLE, PRODUCT, COUPLED, UNDETERMINED = Verdict
TILTED = (L + A) ** 2 + 0.2 * A**2


def f_of(y: Float) -> rules.NoiseTest:
    return known(analyse(surface(y), resamples=0).noise_test)


@given(st.tuples(st.floats(-3, 2), st.floats(-3, 2)).map(sorted), st.floats(0.05, 0.45))
def test_interval_allows_the_verdicts_of_the_values_that_it_holds(ends: list[float], margin: float) -> None:
    low, high = ends
    slope = Estimate((low + high) / 2, low, high)
    edges = [e for e in (-1 - margin, -1 + margin, -margin, margin) if low <= e <= high]
    values = np.array([low, high, *edges, *np.linspace(low, high, 200)])
    held = {rules.point_verdict(Estimate(float(s)), margin) for s in values}
    allowed = set(rules.possible_verdicts(slope, margin))
    assert held <= allowed
    assert len(allowed - held) <= (high - low < 0.05)  # an open band may be touched by its end only
    assert len(held) > 1 or {rules.interval_verdict(slope, margin)} == held


def test_open_slope_says_what_is_not_excluded_and_how_many_seeds_would_settle_it() -> None:
    y = noisy((L + 0.72 * A) ** 2 + 0.1 * A**2, 5, 0.5)
    found, wide = analyse(surface(y)), analyse(surface(y), margin=0.5)
    assert (found.verdict, found.product_not_excluded) == (COUPLED, True)
    assert (found.allowed, found.excluded) == ((PRODUCT, COUPLED), (SEPARABLE,))
    assert (wide.verdict, wide.product_not_excluded, wide.allowed) == (PRODUCT, False, (PRODUCT,))
    assert (wide.margin, wide.margin_octaves, found.margin_octaves) == (0.5, 5.0, 2.5)
    one = surface(repeated(BOWL))
    for margin in (0.0, -0.1, 0.6, float("nan"), float("inf")):
        assert_raises("margin", analyse, one, margin=margin)
        assert_raises("margin", compare, one, one, margin=margin)
    found = analyse(surface(noisy(0.05 * A**2 + 0.1 * L**2, 3, 1.0, 3)))
    slope = found.ridge_slope
    assert (found.verdict, SEPARABLE in found.allowed) == (UNDETERMINED, True)
    half, room = ((slope.high or 0) - (slope.low or 0)) / 2, 0.25 - abs(value(slope))
    assert found.seeds_to_settle == ceil(3 * (half / room) ** 2) > 3
    assert rules.seeds_to_settle(Estimate(-0.24, -0.5, 0.02), 5, 0.25) is None
    near = analyse(surface(noisy(BOWL + 0.23 * A * L, 3, 0.3)), margin=0.23)
    assert (near.verdict, near.seeds_to_settle, near.too_near_margin) == (UNDETERMINED, None, True)


def by_hand(y: Float, inside: Bool) -> tuple[float, int]:
    """F and its first degrees of freedom, as the definition reads."""
    rows = [y[i, inside[i]] for i in range(len(y)) if inside[i].any()]  # (J′, R) each
    d = np.concatenate([row - row.mean(axis=0) for row in rows])
    m, seeds, freedom = d.mean(axis=1), y.shape[2], len(d) - len(rows)
    noise = ((d - m[:, None]) ** 2).sum() / ((seeds - 1) * freedom)
    return float(seeds * (m @ m) / freedom / noise), freedom


def test_f_is_that_of_the_definition_and_absent_without_noise() -> None:
    for seeds in (2, 3, 7):
        whole, holed = noisy(BOWL, seeds, 3.0), noisy(BOWL, seeds, 3.0)
        holed[0, 1:, 1] = np.nan  # a row with one cell
        holed[1], holed[4, 7] = np.nan, np.inf
        for y, expected in ((whole, 110), (holed, 89)):
            f, freedom = by_hand(y, np.asarray(np.isfinite(y).all(axis=2)))
            found = f_of(y)
            assert found.f == pytest.approx(f)
            assert found.freedom == (freedom, (seeds - 1) * freedom) == (expected, (seeds - 1) * expected)
            assert f_of(y * 1e305).f == pytest.approx(f)
            levels = np.arange(11.0 * seeds).reshape(11, 1, seeds)  # of a row and seed
            assert f_of((y + levels)[:, ::-1, ::-1]).f == pytest.approx(f)
    assert analyse(surface(whole, baseline=np.full((11, 7), -50.0))).noise_test == f_of(whole)
    tabulated = rules.noise_test(noisy(BOWL[:3, :6], 3, 1.0), np.repeat([[True], [True], [False]], 6, axis=1))
    assert (known(tabulated).freedom, round(known(tabulated).needed, 2)) == ((10, 20), 3.37)
    assert analyse(surface(noisy(BOWL, 1, 1.0))).noise_test is None
    agreed = analyse(surface(repeated(RIDGE / 7) + np.arange(3.0) / 3))  # seeds differ by an offset only
    assert (agreed.noise_test, agreed.verdict) == (None, PRODUCT)
    for y, inside in ((noisy(BOWL, 3, 1.0), np.eye(11, dtype=bool)), (np.zeros((11, 11, 3)), A < 99),
                      (np.empty((0, 0, 3)), np.empty((0, 0), dtype=bool))):  # fmt: skip
        assert rules.noise_test(y, inside) is None


def test_reason_says_that_the_test_and_not_the_interval_left_the_verdict_open() -> None:
    # A level f(α) only gives an interval that would decide in some of a hundred draws.
    draws = (surface(surfaces.NO_EFFECT["level"](np.random.default_rng(stream), 5)) for stream in range(200))
    found = next(e for e in map(analyse, draws) if len(rules.possible_verdicts(e.ridge_slope, 0.25)) == 1)
    assert (found.verdict, found.point_verdict is UNDETERMINED) == (UNDETERMINED, False)
    assert found.reason.startswith(f"λ has no measurable effect within rows: {known(found.noise_test).text}")
    assert "allows more than one verdict" not in found.reason
    for f, r, shown, ranks in (0.912, 1.02, "0.91", "1.02, 1.45"), (1.02, 1.4544, "1.020", "1.454, 1.455"):
        text = f"F(110, 220) = {shown}, of ranks {ranks} needed"
        assert rules.NoiseTest(f, r, (110, 220), 1.4548).text == text


def test_levels_of_rows_and_an_unstable_row_do_not_hide_what_decay_does() -> None:
    calm = noisy(RIDGE, 3, 0.3)  # offsets of rows and seeds are no noise
    shifted = calm + 30 * np.random.default_rng(1).standard_normal((11, 1, 3))
    here, there = analyse(surface(calm), basin_quantile=1), analyse(surface(shifted), basin_quantile=1)
    assert f_of(shifted).f == pytest.approx(f_of(calm).f)
    assert there.verdict is here.verdict is PRODUCT
    assert value(there.ridge_slope) == pytest.approx(value(here.ridge_slope))
    wild = noisy(BOWL, 3, 0.3)
    wild[-1] += 1e4 + 1e3 * np.random.default_rng(5).standard_normal((11, 3))
    test = f_of(wild)
    assert test.f < test.needed <= (test.f_of_ranks or 0)
    assert analyse(surface(wild)).verdict is SEPARABLE
    alike = f_of(noisy(BOWL, 3, 0.0) * np.array([1.0, 2.0, 3.0]))  # seeds order all cells alike
    assert (alike.f_of_ranks, alike.passed) == (None, True)


def test_closer_to_separable_is_named_and_nothing_claimed_of_failures() -> None:
    ridge, bowl = surface(noisy(TILTED, 3, 0.1)), surface(noisy(BOWL, 3, 0.1, stream=1))
    found = compare(ridge, bowl, name_a="adam", name_b="adamw")
    slopes = [value(analyse(each).ridge_slope) for each in (ridge, bowl)]
    assert value(found.slope_difference) == pytest.approx(slopes[1] - slopes[0])
    for part in ("adam is product-coupled (ridge slope −", "adamw is separable", "their slopes differ by",
                 "the latter is the closer to separable"):  # fmt: skip
        assert part in found.verdict
    assert "a difference of their slopes is not shown" in compare(bowl, bowl).verdict
    found = compare(surface(noisy(0.3 * A**2, 3, 1.0)), surface(noisy(BOWL, 3, 0.1)))
    assert "; λ has no measurable effect within rows) and b is separable (ridge slope" in found.verdict
    lost = surface(np.full((11, 11, 3), np.nan))
    assert compare(lost, lost).best_difference.value is None
    assert compare(lost, lost).verdict == (
        "a is undetermined (no ridge slope) and b is undetermined (no ridge slope); "
        "whether their slopes differ is undetermined: a ridge slope is undetermined"
    )
    found = compare(surface(repeated(BOWL + 0.002 * A * L)), surface(repeated(BOWL)))
    assert found.verdict.startswith("a is separable (ridge slope 0.00) and b is separable (ridge slope 0.00)")


def test_common_seeds_are_paired_which_cancels_what_a_seed_does_to_both() -> None:
    offset = np.array([-3.0, 0.5, 4.0])
    a = noisy(BOWL, 3, 0.01, offset=0) + offset
    b = noisy(BOWL + 0.5, 3, 0.01, stream=1, offset=0) + offset
    for other in (surface(b), surface(b[..., ::-1], seeds=(2, 1, 0))):
        difference = compare(surface(a), other).best_difference
        assert 0.4 < (difference.low or 0) < (difference.high or 0) < 0.6
    a, b = noisy(TILTED, 4, 0.2), noisy(BOWL, 5, 0.2, stream=1)
    found = compare(surface(a, seeds=(0, 1, 2, 9)), surface(b, seeds=(0, 1, 2, 7, 8)))
    same = compare(surface(a[..., :3]), surface(b[..., :3]))
    assert found.slope_difference == same.slope_difference
    assert found.best_difference == same.best_difference
    assert "b is undetermined" in compare(surface(a), surface(b), margin=0.01).verdict
    for seeds in ((5, 6, 7), (1, 2, 8)):  # fewer than three in common: values without intervals
        found = compare(surface(a[..., :3]), surface(b[..., :3], seeds=seeds))
        for one in (found.slope_difference, found.best_difference):
            said = one.value is None, one.has_interval, "too few common seeds" in one.reason
            assert said == (False, False, True), seeds
        assert "whether their slopes differ is undetermined: too few common seeds" in found.verdict


def test_regret_ratio_and_best_difference_need_a_loss_and_one_metric() -> None:
    a, b = surface(repeated(RIDGE)), surface(repeated(2 * RIDGE[::2]), np.arange(-5.0, 6.0, 2), None)
    assert compare(a, b).regret_ratio.value == pytest.approx(2 * 4 / 4)  # at the smallest common distance
    bowl = surface(repeated(BOWL))
    nothing = compare(bowl, a).regret_ratio
    assert (nothing.value, "not above 0" in nothing.reason) == (None, True)
    found = compare(bowl, surface(repeated(BOWL), baseline=np.full((11, 3), -2.0)))
    assert found.best_difference.value == pytest.approx(-2)  # the baseline counts
    found = compare(bowl, surface(repeated(RIDGE), metric="val_error"))
    assert (found.best_difference.value, found.regret_ratio.value) == (None, None)
    assert "val_loss and val_error" in found.best_difference.reason
    assert found.slope_difference.value == pytest.approx(-1)


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
    centre = known(analyse(surface(y, centred(11) - 6, centred(11) - 9)).ridge_centre)
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
        contrast = known(analyse(surface(y, baseline=np.ones((3, seeds)))).contrast)
        assert (contrast.rows, contrast.columns, contrast.octaves) == ((0, 2), (1, 3), (2.0, 2.0))
        by_seed = y[2, 2] - y[2, 0] - y[0, 2] + y[0, 0]
        mean, half = by_seed.mean(), t95(seeds - 1) * by_seed.std(ddof=1) / sqrt(seeds)
        assert (contrast.estimate.low, contrast.estimate.high) == pytest.approx((mean - half, mean + half))
    y[2, 2] = np.nan  # the outermost cells that count
    contrast = known(analyse(surface(y)).contrast)
    assert (contrast.rows, contrast.columns) == ((0, 1), (0, 2))
    assert analyse(surface(repeated(valley(0, 11)))).contrast is None  # large enough for a slope
    assert analyse(surface(y[..., :1])).contrast is None  # one seed
