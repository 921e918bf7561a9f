"""The paired comparison of two surfaces."""

import numpy as np
import pytest

from lrwd_sweep.science.separability import analyse, compare
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, repeated, surface, value

TILTED = (L + A) ** 2 + 0.2 * A**2


def test_closer_to_separable_is_named_and_nothing_claimed_of_failures() -> None:
    ridge, bowl = surface(noisy(TILTED, 3, 0.1)), surface(noisy(BOWL, 3, 0.1, stream=1))
    found = compare(ridge, bowl, name_a="adam", name_b="adamw")
    slopes = [value(analyse(each).ridge_slope) for each in (ridge, bowl)]
    assert value(found.slope_difference) == pytest.approx(slopes[1] - slopes[0])
    for part in ("adam is product-coupled (ridge slope −", "adamw is separable", "their slopes differ by",
                 "the latter is the closer to separable"):  # fmt: skip
        assert part in found.verdict
    found = compare(surface(noisy(0.3 * A**2, 3, 1.0)), surface(noisy(BOWL, 3, 0.1)))
    assert "; λ has no measurable effect within rows) and b is separable (ridge slope" in found.verdict
    lost = surface(np.full((11, 11, 3), np.nan))
    assert compare(lost, lost).best_difference.value is None
    assert compare(lost, lost).verdict == (
        "a is undetermined (no ridge slope) and b is undetermined (no ridge slope); "
        "whether their slopes differ is undetermined: a ridge slope is undetermined"
    )
    tilted = 0.3 * A**2 + 0.5 * (L + 0.002 * A) ** 2
    found = compare(surface(repeated(tilted)), surface(repeated(BOWL)))
    assert found.verdict.startswith("a is separable (ridge slope 0.00) and b is separable (ridge slope 0.00)")


def test_swapping_the_two_swaps_the_signs() -> None:
    a, b = surface(noisy(TILTED, 3, 0.3)), surface(noisy(RIDGE + BOWL, 3, 0.3, stream=1))
    forth, back, same = compare(a, b), compare(b, a), compare(a, a)
    assert forth.slope_difference == back.slope_difference.negated()
    assert forth.regret_ratio.value == pytest.approx(1 / (back.regret_ratio.value or 0))
    assert (same.slope_difference.value, same.slope_difference.low) == (0, 0)
    assert same.regret_ratio.value == pytest.approx(1)
    assert "a difference of their slopes is not shown" in same.verdict


def test_pairing_by_seed_cancels_what_a_seed_does_to_both() -> None:
    offset = np.array([-3.0, 0.5, 4.0])
    a = noisy(BOWL, 3, 0.01, offset=0) + offset
    b = noisy(BOWL + 0.5, 3, 0.01, stream=1, offset=0) + offset
    for other in (surface(b), surface(b[..., ::-1], seeds=(2, 1, 0))):
        found = compare(surface(a), other).best_difference
        assert 0.4 < (found.low or 0) < (found.high or 0) < 0.6


def test_only_common_seeds_are_compared() -> None:
    a, b = noisy(TILTED, 4, 0.2), noisy(BOWL, 5, 0.2, stream=1)
    found = compare(surface(a, seeds=(0, 1, 2, 9)), surface(b, seeds=(0, 1, 2, 7, 8)))
    same = compare(surface(a[..., :3]), surface(b[..., :3]))
    assert found.slope_difference == same.slope_difference
    assert found.best_difference == same.best_difference
    assert "b is undetermined" in compare(surface(a), surface(b), margin=0.01).verdict
    for seeds in ((5, 6, 7), (1, 2, 8)):  # fewer than three in common: values without intervals
        found = compare(surface(a[..., :3]), surface(b[..., :3], seeds=seeds))
        for estimate in (found.slope_difference, found.best_difference):
            assert (estimate.value is None, estimate.has_interval) == (False, False)
            assert "too few common seeds" in estimate.reason
        assert "whether their slopes differ is undetermined: too few common seeds" in found.verdict


def test_regret_ratio_and_best_difference_need_a_loss_and_one_metric() -> None:
    a, b = surface(repeated(RIDGE)), surface(repeated(2 * RIDGE[::2]), np.arange(-5.0, 6.0, 2), None)
    assert compare(a, b).regret_ratio.value == pytest.approx(2 * 4 / 4)  # at the smallest common distance
    bowl = surface(repeated(BOWL))
    nothing = compare(bowl, a).regret_ratio
    assert nothing.value is None
    assert "not above 0" in nothing.reason
    found = compare(bowl, surface(repeated(BOWL), baseline=np.full((11, 3), -2.0)))
    assert found.best_difference.value == pytest.approx(-2)  # the baseline counts
    found = compare(bowl, surface(repeated(RIDGE), metric="val_error"))
    assert (found.best_difference.value, found.regret_ratio.value) == (None, None)
    assert "val_loss and val_error" in found.best_difference.reason
    assert found.slope_difference.value == pytest.approx(-1)
