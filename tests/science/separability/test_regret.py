"""The bootstrap over seeds; what simpler tuning costs, scored on seeds that were left out."""

from dataclasses import replace
from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy.special import fdtri, stdtrit  # type: ignore[import-untyped]

from lrwd_sweep.science.separability import SequentialRegret, analyse
from lrwd_sweep.science.separability.bootstrap import HALVES, Estimate, LeftOut, Resamples, f99, t95
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Direction
from tests.report.view.examples import known
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, regret, repeated, surface, value

TURNED = 0.5 * (A + L) ** 2 + 0.1 * (A - L) ** 2  # tuned one at a time from 0, it is off by ρ² per sweep


def test_quantiles_are_those_of_scipy() -> None:
    freedom = (1, 1.0001, 1.7, 2, 3, 4.4, 10, 33, 110, 440, 996, 1001, 1e5, 1e9)
    for nu in freedom:
        assert t95(nu) == pytest.approx(float(stdtrit(nu, 0.95)), rel=1e-11), nu
    for pair in product(freedom[:-1], repeat=2):
        assert f99(*pair) == pytest.approx(float(fdtri(*pair, 0.99)), rel=1e-9), pair


def test_seeds_are_resampled_exhaustively_or_as_often_as_asked() -> None:
    thirds = np.array([np.bincount(drawn, minlength=3) / 3 for drawn in product(range(3), repeat=3)])
    pairs = [np.bincount(drawn, minlength=2) / 4 for drawn in product(range(2), repeat=2)]
    halves = np.array([[even[0], odd[0], even[1], odd[1]] for even, odd in product(pairs, pairs)])
    for resamples, every in ((Resamples.draw(3, 1000), thirds), (Resamples.draw(4, 1000, HALVES), halves)):
        assert resamples.mass.sum() == pytest.approx(1)
        for weights, mass in zip(resamples.weights[1:], resamples.mass, strict=True):
            assert mass == pytest.approx((every == weights).all(axis=1).mean())
    first, second = (Resamples.draw(9, 1000, HALVES).weights for _ in range(2))
    assert (first.shape, np.array_equal(first, second)) == ((1001, 9), True)
    assert first[:, HALVES[0]].sum(axis=1) == pytest.approx(5 / 9)


def test_interval_of_a_mean_is_the_t_interval_and_that_of_a_rough_statistic_narrower() -> None:
    for seeds, groups in ((3, ()), (5, ()), (6, ()), (4, HALVES), (6, HALVES)):
        values = np.random.default_rng(seeds).standard_normal(seeds)
        resamples = Resamples.draw(seeds, 1000, *([groups] if groups else []))
        found = resamples.estimate(resamples.weights @ values, "")
        variance = np.mean([values[half].var(ddof=1) for half in groups or (slice(None),)])
        mean, half = values.mean(), t95(seeds - max(len(groups), 1)) * np.sqrt(variance / seeds)
        assert (found.value, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))
    resamples = Resamples.draw(5, 1000)  # t of few seeds would make that of a rough statistic wider
    rough = np.random.default_rng(0).standard_normal(len(resamples.weights))
    deviation = np.sqrt(resamples.mass @ (rough[1:] - resamples.mass @ rough[1:]) ** 2)
    half = rough[0] - (resamples.estimate(rough, "").low or 0)
    assert 1.64 * np.sqrt(5 / 4) * deviation < half < 0.9 * t95(4) * np.sqrt(5 / 4) * deviation


def test_no_interval_has_a_reason_and_no_seed_chooses_and_scores() -> None:
    for seeds in (0, 1, 2):
        found = Resamples.draw(seeds, 1000).estimate(np.array([0.5]), "")
        assert (found.value, found.has_interval) == (0.5, False)
        assert f"too few seeds for an interval: {seeds}" in found.reason
    resamples = Resamples.draw(10, 1000)
    assert resamples.estimate(np.full(1001, np.nan), "no cell") == Estimate(None, reason="no cell")
    for lost, number, reason in ((50, np.nan, ""), (150, np.inf, "15%")):
        replicates = resamples.weights @ np.arange(10.0)
        replicates[1:lost] = number
        found = resamples.estimate(replicates, "")
        assert (found.has_interval, reason in found.reason) == (not reason, True)
    excluded = [Estimate(1.0, *ends).excludes(0) for ends in ((0.5, 1.5), (-0.5, 1.5), ())]
    assert excluded == [True, False, False]
    for seeds in (3, 4, 5, 9):
        for left_out in (LeftOut.draw(seeds, 100), LeftOut.one_by_one(seeds, 100)):
            scoring = np.zeros(seeds)
            for choose, score in left_out.ways(left_out.weights()):
                assert not (choose * score).any()
                assert np.concatenate([choose, score]).sum(axis=1) == pytest.approx(1)
                scoring += score[0]
            assert (scoring > 0).all()
    assert LeftOut.draw(2, 100).in_sample


def sequential(y: Float, start: tuple[float | None, float | None] = (None, None)) -> SequentialRegret:
    return analyse(surface(y), start=start, resamples=200).sequential_regret[0]


def test_sequential_regret_is_that_of_one_pass_from_every_start() -> None:
    for y in (BOWL, RIDGE):  # one pass finds the best cell
        none = [value(each.estimate) for each in analyse(surface(repeated(y, 4))).sequential_regret]
        assert none == pytest.approx([0, 0], abs=1e-12)
    by_start = [TURNED[TURNED[:, j].argmin()].min() for j in range(11)]
    found, named = sequential(repeated(TURNED)), sequential(repeated(TURNED), (None, 2.0**3.2))
    assert (found.start, found.starts_out, found.first, named.start) == (None, 0, "lr", 2.0**3)
    costs = value(found.estimate), value(named.estimate)
    assert costs == pytest.approx((np.mean(by_start), by_start[8]))
    mirrored = analyse(surface(repeated(TURNED.T)), start=(2.0**3.2, None)).sequential_regret[1]
    assert (mirrored.first, mirrored.estimate.value) == ("weight_decay", named.estimate.value)
    y = repeated(TURNED)  # cells that are out are never chosen, and empty starts are counted
    y[6:, :3], y[:, 10] = np.nan, np.nan
    found = sequential(y)
    by_start = [np.nanmin(y[int(np.nanargmin(y[:, j, 0])), :, 0]) for j in range(10)]
    assert (found.starts_out, value(found.estimate)) == pytest.approx((1, np.mean(by_start)))
    assert sequential(y, (None, 2.0**5)).estimate.value is None
    for seeds, in_sample, reason in ((2, True, "in sample"), (3, False, "below four seeds"), (4, False, "")):
        found = sequential(noisy(TURNED, seeds, 0.3))
        said = found.in_sample, found.estimate.has_interval, reason in found.estimate.reason
        assert said == (in_sample, seeds == 4, True), seeds


def test_seeds_that_choose_do_not_score() -> None:
    y, by_seed = noisy(BOWL, 3, 1.0), []
    whole = analyse(surface(y))
    rows = np.flatnonzero(whole.basin.any(axis=1))
    pairs = [(i, k) for i in rows for k in rows if abs(i - k) == 1]
    for out in range(3):
        best = np.delete(y, out, axis=2).mean(axis=2).argmin(axis=1)
        by_seed.append(np.mean([y[k, best[i], out] - y[k, best[k], out] for i, k in pairs]))
    found, mean, half = regret(whole, 1), np.mean(by_seed), t95(2) * np.std(by_seed, ddof=1) / sqrt(3)
    assert not found.in_sample
    assert (found.estimate.value, found.estimate.low) == pytest.approx((mean, mean - half))
    for seeds, low, high in ((2, 0.3, np.inf), (3, -0.1, 0.1), (4, -0.1, 0.1)):  # truth: 0
        draws = (noisy(BOWL, seeds, 1.0, stream, offset=0) for stream in range(40))
        every = [analyse(surface(y), resamples=0).transfer_regret[0].estimate for y in draws]
        assert low < np.mean([value(each) for each in every]) < high, seeds


def test_expected_best_is_scored_on_each_seed_in_turn_and_knows_the_direction() -> None:
    y = noisy(BOWL, 5, 1.0)
    by_seed = [y[..., out].flat[np.delete(y, out, axis=2).mean(axis=2).argmin()] for out in range(5)]
    found = analyse(surface(y)).expected_best
    assert (value(found), found.has_interval) == pytest.approx((np.mean(by_seed), True))
    higher = analyse(replace(surface(-y), direction=Direction.MAXIMIZE)).expected_best
    assert (higher.value, higher.low) == pytest.approx((-value(found), -(found.high or 0)))
    assert value(analyse(surface(y, baseline=np.full((11, 5), -9.0))).expected_best) == -9
    assert analyse(surface(y[..., :2])).expected_best.value is None


def test_sensitivity_has_its_known_answers() -> None:
    one = np.where(np.arange(8)[:, None] == 3, 0.2, np.ones((8, 9)))
    for name, y, initial, tuned, fixed in (
        ("flat", np.full((11, 11), 0.3), 1.0, 0.0, 0.0),
        ("one good row of eight", one, 1.0, 7 / 8 * 0.8, 7 / 8 * 0.8),
        ("bowl", BOWL, 30.0, *[np.minimum(0.3 * A[:, 0] ** 2, 30).mean()] * 2),
        ("ridge, of which row 0 is best", RIDGE, 30.0, 0.0, np.minimum((A[:, 0] + 5) ** 2, 30).mean()),
    ):
        found = known(analyse(surface(repeated(y)), initial=initial).lr_sensitivity)
        measured = (value(found.tuned), value(found.fixed), value(found.difference))
        assert measured == pytest.approx((tuned, fixed, fixed - tuned), abs=1e-12), name
    y = repeated(BOWL)
    y[9:] = np.nan  # a diverged row counts as the value at initialisation
    rows = np.where(np.arange(11) < 9, 0.3 * A[:, 0] ** 2, 5.0)
    found = known(analyse(surface(y), initial=[4.0, 5.0, 6.0]).lr_sensitivity)
    assert value(found.tuned) == pytest.approx(np.minimum(rows, 5).mean())
    for unusable in (None, -100.0, float("nan")):  # missing, or not improved by training
        found = known(analyse(surface(noisy(BOWL, 3, 0.3)), initial=unusable).lr_sensitivity)
        assert (found.tuned.value, "value at initialisation" in found.tuned.reason) == (None, True)
