"""Surfaces: how trials become cells, and which cells count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.surface import CellStatus, Surface
from lrwd_sweep.science.trial import Direction, Status, Trial
from tests.science.separability.surfaces import BOWL, repeated, surface

LATTICE = Lattice((0.1, 0.2), (0.0, 0.01, 0.02))


def trial(lr: float, weight_decay: float, seed: int, value: float | None) -> Trial:
    """A complete trial, or a diverged one."""
    cell = Cell(lr, weight_decay)
    if value is None:
        return Trial(cell, seed, Status.DIVERGED)
    return Trial(cell, seed, Status.COMPLETE, {"val_loss": value})


def laid_out(*trials: Trial, seeds: tuple[int, ...] = (0, 1), cap: float | None = None) -> Surface:
    return Surface.from_trials(trials, LATTICE, seeds, metric="val_loss", rule=DecayRule.COUPLED, cap=cap)


def test_from_trials_puts_every_trial_in_its_place_whatever_the_order() -> None:
    trials = [
        trial(lr, decay, seed, 100 * i + 10 * j + seed)
        for i, lr in enumerate(LATTICE.lr)
        for j, decay in enumerate(LATTICE.weight_decay)
        for seed in (0, 1)
    ]
    found = laid_out(*reversed(trials), seeds=(1, 0))
    for i, j in np.ndindex(2, 3):
        assert found.values[i, j].tolist() == [100 * i + 10 * j + 1, 100 * i + 10 * j]
        assert found.cell(i, j) == Cell(LATTICE.lr[i], LATTICE.weight_decay[j])
    assert found.counts() == {"cells": 6, "complete": 6, "missing": 0, "failed": 0, "diverged": 0}


def test_from_trials_leaves_other_cells_and_seeds_aside() -> None:
    found = laid_out(trial(0.3, 0.01, 0, 1.0), trial(0.1, 0.03, 0, 1.0), trial(0.1, 0.01, 7, 1.0))
    assert np.isnan(found.values).all()
    assert found.counts()["missing"] == 6


def test_a_complete_trial_without_the_metric_is_missing() -> None:
    other = Trial(Cell(0.1, 0.01), 0, Status.COMPLETE, {"val_error": 0.1})
    assert laid_out(other, seeds=(0,)).status(0, 1) is CellStatus.MISSING


def test_a_cell_is_as_bad_as_its_worst_seed() -> None:
    failed = Trial(Cell(0.1, 0.01), 1, Status.FAILED)
    assert laid_out(trial(0.1, 0.01, 0, 1.0)).status(0, 1) is CellStatus.MISSING
    assert laid_out(failed).status(0, 1) is CellStatus.FAILED
    assert laid_out(trial(0.1, 0.01, 0, None), failed).status(0, 1) is CellStatus.DIVERGED
    assert laid_out(seeds=()).status(0, 1) is CellStatus.MISSING


def test_a_cell_counts_only_with_every_seed_complete() -> None:
    found = laid_out(
        trial(0.1, 0.0, 0, 1.0), trial(0.1, 0.0, 1, 2.0), trial(0.1, 0.01, 0, 1.0), trial(0.1, 0.02, 0, None)
    )
    assert found.inside.tolist() == [[True, False, False], [False] * 3]
    assert found.out.tolist() == [[False, False, True], [False] * 3]
    assert found.mean[0, 0] == 1.5
    assert found.sem[0, 0] == pytest.approx(0.5)
    assert np.isnan(found.mean[0, 1])


def test_a_cell_that_reached_the_cap_in_one_seed_is_out() -> None:
    found = laid_out(
        trial(0.1, 0.0, 0, 0.9), trial(0.1, 0.0, 1, 0.1), trial(0.1, 0.01, 0, 0.8), trial(0.1, 0.01, 1, 0.8),
        cap=0.9,
    )  # fmt: skip
    assert found.inside[0].tolist() == [False, True, False]


@pytest.mark.parametrize("cap", [0.9, np.log(10), 0.1])
def test_a_cell_capped_in_every_seed_is_out_although_its_mean_rounds_below_the_cap(cap: float) -> None:
    found = surface(np.full((2, 2, 7), cap), cap=cap)
    assert not found.inside.any()


def test_best_takes_the_smaller_index_of_equals_and_may_be_the_baseline() -> None:
    equal = surface(np.ones((3, 3, 2)))
    assert equal.best() == (0, 0)
    baseline = repeated(np.full((11, 1), 5.0))[:, 0]
    baseline[4] = -1.0
    assert surface(repeated(BOWL), baseline=baseline).best() == (4, 0)


def test_best_of_nothing_is_nothing() -> None:
    assert surface(np.full((3, 3, 2), np.nan)).best() is None
    assert laid_out(seeds=()).best() is None


def test_one_seed_has_no_standard_error() -> None:
    assert np.isnan(surface(BOWL).sem).all()


def test_without_baseline_drops_the_zero_column_alone() -> None:
    whole = surface(repeated(BOWL), baseline=np.zeros((11, 3)))
    positive = whole.without_baseline()
    assert whole.weight_decay[0] == 0
    assert np.array_equal(positive.weight_decay, whole.weight_decay[1:])
    assert np.array_equal(positive.values, repeated(BOWL))
    assert positive.without_baseline() is positive


def test_with_seeds_keeps_these_seeds_in_this_order() -> None:
    whole = surface(BOWL[..., None] + np.arange(3), seeds=(5, 6, 7))
    some = whole.with_seeds((7, 5))
    assert some.seeds == (7, 5)
    assert np.array_equal(some.values, whole.values[..., [2, 0]])


def test_the_mean_so_far_is_that_of_the_seeds_there_are() -> None:
    found = laid_out(
        trial(0.1, 0.0, 0, 1.0),
        trial(0.1, 0.0, 1, 2.0),
        trial(0.1, 0.01, 1, 4.0),
        trial(0.2, 0.0, 0, 5.0),
        trial(0.2, 0.0, 1, None),
    )
    assert found.mean_so_far[0].tolist()[:2] == [1.5, 4.0]
    assert np.isnan(found.mean_so_far[1, 0])
    assert found.partial.tolist() == [[False, True, False], [False, False, False]]
    assert found.runs == (5, 12)
    assert found.best() == (0, 0)
    assert not found.inside[0, 1]


def test_where_higher_is_better_the_cap_is_a_lower_limit() -> None:
    found = replace(laid_out(trial(0.1, 0.0, 0, 0.5), seeds=(0,), cap=0.5), direction=Direction.MAXIMIZE)
    assert found.out[0, 0]
    above = replace(found, values=found.values + 0.1)
    assert not above.out[0, 0]
    assert above.inside[0, 0]
    assert above.minimized().cap == -0.5


def test_absurdly_large_values_have_a_mean_and_a_standard_error() -> None:
    values = np.array([[[1e300, 0.3, 0.4], [1.7e308, 1.7e308, 1.7e308], [0.1, 0.2, 0.6]]])
    found = surface(values)
    assert found.mean[0] == pytest.approx([1e300 / 3, 1.7e308, 0.3])
    assert found.sem[0, [0, 2]] == pytest.approx([1e300 / 3, np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3)])
    assert found.sem[0, 1] < 1e300
    assert found.mean_so_far[0] == pytest.approx(found.mean[0])


def test_means_and_errors_are_those_of_numpy_to_the_bit() -> None:
    values = np.random.default_rng(0).lognormal(size=(5, 4, 3))
    found = surface(values)
    assert np.array_equal(found.mean, values.mean(axis=2))
    assert np.array_equal(found.sem, values.std(axis=2, ddof=1) / np.sqrt(3))
