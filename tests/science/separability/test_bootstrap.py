"""The bootstrap over seeds."""

from itertools import product

import numpy as np
import pytest
from scipy.special import fdtri, stdtrit  # type: ignore[import-untyped]

from lrwd_sweep.science.separability.bootstrap import HALVES, Estimate, LeftOut, Resamples, f99, t95


def test_quantiles_are_those_of_scipy() -> None:
    freedom = (1, 1.0001, 1.7, 2, 3, 4.4, 10, 33, 110, 440, 996, 1001, 1e5)
    for nu in (*freedom, 1e9):
        assert t95(nu) == pytest.approx(float(stdtrit(nu, 0.95)), rel=1e-11), nu
    for first, second in product(freedom, freedom):
        known = float(fdtri(first, second, 0.99))
        assert f99(first, second) == pytest.approx(known, rel=1e-9), (first, second)


def test_seeds_are_resampled_exhaustively_or_as_often_as_asked() -> None:
    thirds = np.array([np.bincount(drawn, minlength=3) / 3 for drawn in product(range(3), repeat=3)])
    pairs = [np.bincount(drawn, minlength=2) / 4 for drawn in product(range(2), repeat=2)]
    halves = np.array([[even[0], odd[0], even[1], odd[1]] for even, odd in product(pairs, pairs)])
    for resamples, every in ((Resamples.draw(3, 1000), thirds), (Resamples.draw(4, 1000, HALVES), halves)):
        assert resamples.mass.sum() == pytest.approx(1)
        for weights, mass in zip(resamples.weights[1:], resamples.mass, strict=True):
            assert mass == pytest.approx((every == weights).all(axis=1).mean())
    first, second = Resamples.draw(10, 1000), Resamples.draw(10, 1000)
    assert first.weights.shape == (1001, 10)
    assert np.array_equal(first.weights, second.weights)
    halves = Resamples.draw(9, 1000, HALVES).weights
    assert halves[:, HALVES[0]].sum(axis=1) == pytest.approx(5 / 9)


def test_interval_of_a_mean_is_the_t_interval_of_one_sample_or_of_two() -> None:
    for seeds, groups in ((3, ()), (5, ()), (6, ()), (4, HALVES), (6, HALVES)):
        values = np.random.default_rng(seeds).standard_normal(seeds)
        resamples = Resamples.draw(seeds, 1000, *([groups] if groups else []))
        found = resamples.estimate(resamples.weights @ values, "")
        variance = np.mean([values[half].var(ddof=1) for half in groups or (slice(None),)])
        half = t95(seeds - max(len(groups), 1)) * np.sqrt(variance / seeds)
        mean = values.mean()
        assert (found.value, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))


def test_interval_of_a_rough_statistic_is_narrower_than_t_of_few_seeds_would_make_it() -> None:
    resamples = Resamples.draw(5, 1000)
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
    nothing = resamples.estimate(np.full(1001, np.nan), "no cell")
    assert nothing == Estimate(None, reason="no cell")
    few, many = (resamples.weights @ np.arange(10.0) for _ in range(2))
    few[1:50], many[1:150] = np.nan, np.inf
    assert resamples.estimate(few, "").has_interval
    assert not resamples.estimate(many, "").has_interval
    assert "15%" in resamples.estimate(many, "").reason
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
