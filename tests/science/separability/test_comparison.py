"""The paired comparison of two surfaces."""

from __future__ import annotations

import numpy as np
import pytest

from lrwd_sweep.science.separability import analyse, compare
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, repeated, surface, value

TILTED = (L + A) ** 2 + 0.2 * A**2


def test_ridge_against_bowl_is_told_apart_and_the_closer_one_named() -> None:
    ridge, bowl = surface(noisy(TILTED, 3, 0.1)), surface(noisy(BOWL, 3, 0.1, stream=1))
    found = compare(ridge, bowl, name_a="adam", name_b="adamw")
    slopes = [value(analyse(each).ridge_slope) for each in (ridge, bowl)]
    assert value(found.slope_difference) == pytest.approx(slopes[1] - slopes[0])
    assert found.slope_difference.value == pytest.approx(1, abs=0.1)
    assert found.slope_difference.excludes(0)
    assert "adam is product-coupled (ridge slope −" in found.verdict
    assert "adamw is separable" in found.verdict
    assert "their slopes differ by" in found.verdict
    assert found.verdict.endswith("the latter is the closer to separable")


def test_a_surface_without_an_effect_of_decay_is_called_so() -> None:
    found = compare(surface(noisy(0.3 * A**2, 3, 1.0)), surface(noisy(BOWL, 3, 0.1)))
    assert "; λ has no measurable effect within rows) and b is separable (ridge slope" in found.verdict


def test_swapping_the_two_swaps_the_signs() -> None:
    a, b = surface(noisy(TILTED, 3, 0.3)), surface(noisy(RIDGE + BOWL, 3, 0.3, stream=1))
    forth, back = compare(a, b), compare(b, a)
    for one, other in (
        (forth.slope_difference, back.slope_difference),
        (forth.best_difference, back.best_difference),
    ):
        assert one.value is not None
        assert one.low is not None
        assert (one.value, one.low) == pytest.approx((-(other.value or 0), -(other.high or 0)))
    assert forth.regret_ratio.value == pytest.approx(1 / (back.regret_ratio.value or 0))
    same = compare(a, a)
    assert (same.slope_difference.value, same.slope_difference.low) == (0, 0)
    assert same.regret_ratio.value == pytest.approx(1)
    assert "a difference of their slopes is not shown" in same.verdict


def test_pairing_by_seed_cancels_what_a_seed_does_to_both() -> None:
    offset = np.array([-3.0, 0.5, 4.0])
    a = noisy(BOWL, 3, 0.01, offset=0) + offset
    b = noisy(BOWL + 0.5, 3, 0.01, stream=1, offset=0) + offset
    reversed_b = surface(b[..., ::-1], seeds=(2, 1, 0))
    for found in (compare(surface(a), surface(b)), compare(surface(a, seeds=(0, 1, 2)), reversed_b)):
        assert found.best_difference.low is not None
        assert found.best_difference.high is not None
        assert 0.4 < found.best_difference.low < found.best_difference.high < 0.6


def test_only_common_seeds_are_compared() -> None:
    a, b = noisy(TILTED, 4, 0.2), noisy(BOWL, 5, 0.2, stream=1)
    found = compare(surface(a, seeds=(0, 1, 2, 9)), surface(b, seeds=(0, 1, 2, 7, 8)))
    same = compare(surface(a[..., :3]), surface(b[..., :3]))
    assert found.slope_difference == same.slope_difference
    assert found.best_difference == same.best_difference
    assert f"a is {analyse(surface(a)).verdict} (ridge slope" in found.verdict  # on all seeds of its own
    assert f"b is {analyse(surface(b)).verdict} (ridge slope" in found.verdict
    strict = compare(surface(a), surface(b), margin=0.01)
    assert "b is undetermined" in strict.verdict
    assert strict.slope_difference == compare(surface(a), surface(b)).slope_difference


def test_fewer_than_three_common_seeds_give_values_without_intervals() -> None:
    for seeds in ((5, 6, 7), (1, 2, 8)):
        a, b = surface(noisy(TILTED, 3, 0.2)), surface(noisy(BOWL, 3, 0.2, stream=1), seeds=seeds)
        found = compare(a, b)
        for estimate in (found.slope_difference, found.best_difference):
            assert estimate.value is not None
            assert not estimate.has_interval
            assert "too few common seeds" in estimate.reason
        assert "whether their slopes differ is undetermined: too few common seeds" in found.verdict


def test_regret_ratio_is_that_of_the_smallest_common_distance_if_both_lose_something() -> None:
    a, b = surface(repeated(RIDGE)), surface(repeated(2 * RIDGE[::2]), np.arange(-5.0, 6.0, 2), None)
    assert compare(a, b).regret_ratio.value == pytest.approx(2 * 4 / 4)
    nothing = compare(surface(repeated(BOWL)), surface(repeated(RIDGE))).regret_ratio
    assert nothing.value is None
    assert "not above 0" in nothing.reason


def test_best_difference_counts_the_baseline_and_needs_one_metric() -> None:
    bowl = surface(repeated(BOWL))
    baseline = np.full((11, 3), -2.0)
    found = compare(bowl, surface(repeated(BOWL), baseline=baseline))
    assert found.best_difference.value == pytest.approx(-2)
    found = compare(bowl, surface(repeated(RIDGE), metric="val_error"))
    assert (found.best_difference.value, found.regret_ratio.value) == (None, None)
    assert "val_loss and val_error" in found.best_difference.reason
    assert found.slope_difference.value == pytest.approx(-1)


def test_verdict_claims_nothing_of_failures_and_gives_a_zero_no_sign() -> None:
    lost = surface(np.full((11, 11, 3), np.nan))
    assert compare(lost, lost).best_difference.value is None
    assert compare(lost, lost).verdict == (
        "a is undetermined (no ridge slope) and b is undetermined (no ridge slope); "
        "whether their slopes differ is undetermined: a ridge slope is undetermined"
    )
    tilted = 0.3 * A**2 + 0.5 * (L + 0.002 * A) ** 2
    found = compare(surface(repeated(tilted)), surface(repeated(BOWL)))
    assert found.verdict.startswith("a is separable (ridge slope 0.00) and b is separable (ridge slope 0.00)")
