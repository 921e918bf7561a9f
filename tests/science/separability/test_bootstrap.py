"""The bootstrap over seeds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lrwd_sweep.science.separability.bootstrap import HALVES, Estimate, Resamples, t95


@pytest.mark.parametrize(("nu", "t"), [(2, 2.920), (3, 2.353), (4, 2.132), (9, 1.833), (30, 1.697)])
def test_t95_is_the_tabulated_quantile(nu: int, t: float) -> None:
    assert t95(nu) == pytest.approx(t, rel=3e-3)


def test_few_seeds_are_resampled_exhaustively_with_their_true_probabilities() -> None:
    resamples = Resamples.draw(3, 1000)
    every = np.array([np.bincount(drawn, minlength=3) / 3 for drawn in product(range(3), repeat=3)])
    for weights, mass in zip(resamples.weights[1:], resamples.mass, strict=True):
        assert mass == pytest.approx((every == weights).all(axis=1).mean())
    assert resamples.mass.sum() == pytest.approx(1)


def test_many_seeds_are_resampled_as_often_as_asked_and_always_alike() -> None:
    first, second = Resamples.draw(10, 1000), Resamples.draw(10, 1000)
    assert first.weights.shape == (1001, 10)
    assert np.array_equal(first.weights, second.weights)
    assert first.weights.sum(axis=1) == pytest.approx(1)


def test_halves_are_resampled_each_by_itself_with_their_true_probabilities() -> None:
    resamples = Resamples.draw(4, 1000, HALVES)
    pairs = [np.bincount(drawn, minlength=2) / 4 for drawn in product(range(2), repeat=2)]
    every = np.array([[even[0], odd[0], even[1], odd[1]] for even, odd in product(pairs, pairs)])
    assert len(resamples.mass) == 9
    for weights, mass in zip(resamples.weights[1:], resamples.mass, strict=True):
        assert mass == pytest.approx((every == weights).all(axis=1).mean())
    many = Resamples.draw(9, 1000, HALVES)
    assert [many.weights[:, half].sum(axis=1) for half in HALVES] == [
        pytest.approx(5 / 9),
        pytest.approx(4 / 9),
    ]


@pytest.mark.parametrize("seeds", [4, 6])
def test_interval_in_halves_is_the_t_interval_of_two_samples(seeds: int) -> None:
    values = np.random.default_rng(seeds).standard_normal(seeds)
    resamples = Resamples.draw(seeds, 1000, HALVES)
    found = resamples.estimate(resamples.weights @ values, "")
    pooled = sum(values[half].var(ddof=1) for half in HALVES) / 2
    half = t95(seeds - 2) * np.sqrt(pooled / seeds)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


@pytest.mark.parametrize("seeds", [3, 5, 6])
def test_interval_of_a_mean_is_the_t_interval(seeds: int) -> None:
    values = np.random.default_rng(seeds).standard_normal(seeds)
    resamples = Resamples.draw(seeds, 1000)
    found = resamples.estimate(resamples.weights @ values, "")
    half = t95(seeds - 1) * values.std(ddof=1) / np.sqrt(seeds)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_interval_of_a_rough_statistic_is_narrower_than_t_of_few_seeds_would_make_it() -> None:
    resamples = Resamples.draw(5, 1000)
    rough = np.random.default_rng(0).standard_normal(len(resamples.weights))
    found = resamples.estimate(rough, "")
    assert found.low is not None
    deviation = np.sqrt(resamples.mass @ (rough[1:] - resamples.mass @ rough[1:]) ** 2)
    half = rough[0] - found.low
    assert 1.64 * np.sqrt(5 / 4) * deviation < half < 0.9 * t95(4) * np.sqrt(5 / 4) * deviation


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_say_so(seeds: int) -> None:
    resamples = Resamples.draw(seeds, 1000)
    found = resamples.estimate(np.array([0.5]), "")
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert f"too few seeds for an interval: {seeds}" in found.reason


def test_an_undefined_statistic_has_no_value_and_says_why() -> None:
    resamples = Resamples.draw(3, 1000)
    found = resamples.estimate(np.full(len(resamples.weights), np.nan), "the moon is full")
    assert found == Estimate(None, reason="the moon is full")


def test_a_statistic_undefined_in_more_than_a_tenth_of_the_resamples_has_no_interval() -> None:
    resamples = Resamples.draw(10, 1000)
    replicates = resamples.weights @ np.arange(10.0)
    few, many = replicates.copy(), replicates.copy()
    few[1:50], many[1:150] = np.nan, np.inf
    assert resamples.estimate(few, "").has_interval
    found = resamples.estimate(many, "")
    assert not found.has_interval
    assert "15%" in found.reason


def test_excludes_needs_an_interval() -> None:
    assert Estimate(1.0, 0.5, 1.5).excludes(0)
    assert not Estimate(1.0, -0.5, 1.5).excludes(0)
    assert not Estimate(1.0).excludes(0)
