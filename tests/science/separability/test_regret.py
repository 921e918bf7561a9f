"""What simpler tuning costs: known answers, and scoring on seeds that were left out."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.separability import LrSensitivity, SequentialRegret, analyse
from lrwd_sweep.science.separability.bootstrap import t95
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Direction
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, regret, repeated, surface, value

TURNED = 0.5 * (A + L) ** 2 + 0.1 * (A - L) ** 2  # tuned one at a time from 0, it is off by ρ² per sweep


def sequential(y: Float, start: tuple[float | None, float | None] = (None, None)) -> SequentialRegret:
    """The sequential regret of tuning the learning rate first."""
    return analyse(surface(y), start=start, resamples=200).sequential_regret[0]


def test_tuning_one_at_a_time_costs_nothing_on_a_bowl_and_on_a_perfect_ridge() -> None:
    for y in (BOWL, RIDGE):
        for found in analyse(surface(repeated(y, 4))).sequential_regret:
            assert value(found.estimate) == pytest.approx(0, abs=1e-12)


def test_sequential_regret_is_that_of_one_pass_from_every_start() -> None:
    by_start = []
    for j in range(11):
        i = int(TURNED[:, j].argmin())
        by_start.append(TURNED[i].min())
    found = sequential(repeated(TURNED))
    assert (found.start, found.starts_out, found.first) == (None, 0, "lr")
    assert value(found.estimate) == pytest.approx(np.mean(by_start))
    named = sequential(repeated(TURNED), (None, 2.0**3.2))
    assert named.start == 2.0**3
    assert value(named.estimate) == pytest.approx(by_start[8])
    mirrored = analyse(surface(repeated(TURNED.T)), start=(2.0**3.2, None)).sequential_regret[1]
    assert (mirrored.first, mirrored.estimate.value) == ("weight_decay", named.estimate.value)


def test_cells_that_are_out_are_never_chosen_and_empty_starts_are_counted() -> None:
    y = repeated(TURNED)
    y[6:, :3], y[:, 10] = np.nan, np.nan
    found = sequential(y)
    by_start = [np.nanmin(y[int(np.nanargmin(y[:, j, 0])), :, 0]) for j in range(10)]
    assert found.starts_out == 1
    assert value(found.estimate) == pytest.approx(np.mean(by_start))
    assert sequential(y, (None, 2.0**5)).estimate.value is None


def test_sequential_regret_has_an_interval_from_four_seeds_on() -> None:
    found = {seeds: sequential(noisy(TURNED, seeds, 0.3)) for seeds in (2, 3, 4)}
    assert [each.in_sample for each in found.values()] == [True, False, False]
    assert [each.estimate.has_interval for each in found.values()] == [False, False, True]
    assert found[2].estimate.reason == "in sample: lies high"
    assert "below four seeds" in found[3].estimate.reason


def test_three_seeds_choose_on_two_and_score_on_the_third() -> None:
    y = noisy(BOWL, 3, 1.0)
    by_seed = []
    for out in range(3):
        best = np.delete(y, out, axis=2).mean(axis=2).argmin(axis=1)
        rows = np.flatnonzero(analyse(surface(y)).basin.any(axis=1))
        pairs = [(i, k) for i in rows for k in rows if abs(i - k) == 1]
        by_seed.append(np.mean([y[k, best[i], out] - y[k, best[k], out] for i, k in pairs]))
    found = regret(analyse(surface(y)), 1)
    half = t95(2) * np.std(by_seed, ddof=1) / sqrt(3)
    assert not found.in_sample
    assert (found.estimate.value, found.estimate.low) == pytest.approx(
        (np.mean(by_seed), np.mean(by_seed) - half)
    )


def test_scoring_on_other_seeds_takes_the_optimism_out() -> None:
    transfer, best, lowest = {}, {}, {}
    for seeds in (2, 3, 4):
        draws = [noisy(BOWL, seeds, 1.0, stream, offset=0) for stream in range(40)]
        found = [analyse(surface(y), resamples=0) for y in draws]
        transfer[seeds] = np.mean([value(each.transfer_regret[0].estimate) for each in found])
        best[seeds] = [each.expected_best.value for each in found]
        lowest[seeds] = np.mean([y.mean(axis=2).min() for y in draws])
    assert transfer[2] > 0.3  # truth: 0
    assert max(abs(transfer[3]), abs(transfer[4])) < 0.1
    assert lowest[3] < -0.3 < 0 < np.mean(np.asarray(best[3], dtype=float)) < 1  # of the cell that was chosen
    assert set(best[2]) == {None}


def test_expected_best_is_scored_on_each_seed_in_turn_and_knows_the_direction() -> None:
    y = noisy(BOWL, 5, 1.0)
    by_seed = [y[..., out].flat[np.delete(y, out, axis=2).mean(axis=2).argmin()] for out in range(5)]
    found = analyse(surface(y)).expected_best
    assert value(found) == pytest.approx(np.mean(by_seed))
    assert found.has_interval
    higher = analyse(replace(surface(-y), direction=Direction.MAXIMIZE)).expected_best
    assert (higher.value, higher.low) == pytest.approx((-value(found), -(found.high or 0)))
    based = analyse(surface(y, baseline=np.full((11, 5), -9.0))).expected_best
    assert value(based) == -9


def sensitivity(y: Float, initial: float | list[float] | None = 1.0) -> LrSensitivity:
    """The sensitivity to the learning rate, which must be reported."""
    found = analyse(surface(y), initial=initial).lr_sensitivity
    assert found is not None
    return found


def test_sensitivity_of_a_flat_surface_and_of_a_single_good_row() -> None:
    assert value(sensitivity(repeated(np.full((11, 11), 0.3))).tuned) == pytest.approx(0, abs=1e-12)
    one = np.full((8, 9), 1.0)
    one[3] = 0.2
    found = sensitivity(repeated(one))
    for estimate in (found.tuned, found.fixed):
        assert value(estimate) == pytest.approx(7 / 8 * 0.8)
    assert value(found.difference) == pytest.approx(0)


def test_difference_of_sensitivities_is_what_retuning_decay_buys() -> None:
    product = sensitivity(repeated(RIDGE), 30.0)
    assert value(product.tuned) == 0
    assert value(product.difference) == value(product.fixed) > 0
    separable = sensitivity(repeated(BOWL), 30.0)
    assert value(separable.difference) == pytest.approx(0)
    assert value(separable.tuned) == pytest.approx(np.minimum(0.3 * A[:, 0] ** 2, 30).mean())


def test_cells_that_diverged_count_the_value_at_initialisation() -> None:
    y = repeated(BOWL)
    y[9:] = np.nan
    rows = np.where(np.arange(11) < 9, 0.3 * A[:, 0] ** 2, 5.0)
    assert value(sensitivity(y, [4.0, 5.0, 6.0]).tuned) == pytest.approx(np.minimum(rows, 5).mean())


@given(scale=st.floats(0.1, 10), level=st.floats(-10, 10), stream=st.integers(0, 100))
def test_sensitivity_and_sequential_regret_scale_with_the_metric(
    scale: float, level: float, stream: int
) -> None:
    y = noisy(TURNED, 3, 0.5, stream)
    here = analyse(surface(y), initial=20.0, resamples=0)
    there = analyse(surface(scale * y + level), initial=scale * 20 + level, resamples=0)
    pairs = [(here.sequential_regret[k].estimate, there.sequential_regret[k].estimate) for k in (0, 1)]
    assert here.lr_sensitivity is not None
    assert there.lr_sensitivity is not None
    pairs.append((here.lr_sensitivity.fixed, there.lr_sensitivity.fixed))
    for mine, other in pairs:
        assert value(other) == pytest.approx(scale * value(mine), rel=1e-6, abs=1e-7)


def test_sensitivity_needs_a_value_at_initialisation_that_training_improved() -> None:
    for initial in (None, -100.0, float("nan")):
        found = sensitivity(noisy(BOWL, 3, 0.3), initial)
        assert found.tuned.value is None
        assert "the value at initialisation" in found.tuned.reason
