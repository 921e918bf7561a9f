"""Trials become cells, a surface knows which of them count, and a metric its better end."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.surface import CellStatus, Surface
from lrwd_sweep.science.trial import Direction, Status, Trial, metric_direction, says_higher
from lrwd_sweep.spec.task import Task
from tests.science.separability.surfaces import BOWL, repeated, surface

LATTICE = Lattice((0.1, 0.2), (0.0, 0.01, 0.02))
LOST = "diverged"
Lane = tuple[float, float, int, float | str]  # lr, weight decay, seed, value or status


def laid_out(*lanes: Lane, seeds: tuple[int, ...] = (0, 1), cap: float | None = None) -> Surface:
    trials = []
    for lr, decay, seed, value in lanes:
        ended = (Status(value),) if isinstance(value, str) else (Status.COMPLETE, {"val_loss": value})
        trials.append(Trial(Cell(lr, decay), seed, *ended))
    return Surface.from_trials(trials, LATTICE, seeds, metric="val_loss", rule=DecayRule.COUPLED, cap=cap)


def test_every_trial_is_laid_out_in_its_place() -> None:
    places = list(product(LATTICE.lr, LATTICE.weight_decay, (0, 1)))
    found = laid_out(*((*place, float(k)) for k, place in reversed([*enumerate(places)])), seeds=(1, 0))
    assert found.values.tolist() == [[[1, 0], [3, 2], [5, 4]], [[7, 6], [9, 8], [11, 10]]]
    assert [found.cell(i, j) for i, j in np.ndindex(2, 3)] == list(LATTICE.cells())
    assert found.counts() == {"cells": 6, "complete": 6, "missing": 0, "failed": 0, "diverged": 0}
    other = laid_out((0.3, 0.01, 0, 1.0), (0.1, 0.03, 0, 1.0), (0.1, 0.01, 7, 1.0))
    assert other.counts()["missing"] == 6, "trials of other cells and seeds are ignored"


def test_cell_counts_with_every_seed_complete_and_has_the_worst_status() -> None:
    found = laid_out((0.1, 0.0, 0, 1.0), (0.1, 0.0, 1, 2.0), (0.1, 0.01, 0, 1.0), (0.1, 0.02, 0, LOST))
    assert found.inside.tolist() == [[True, False, False], [False] * 3]
    assert found.out.tolist() == [[False, False, True], [False] * 3]
    assert (found.mean[0, 0], found.sem[0, 0], np.isnan(found.mean[0, 1])) == (1.5, 0.5, True)
    assert np.isnan(surface(BOWL).sem).all(), "one seed has no standard error"
    assert laid_out((0.1, 0.01, 0, 1.0)).status(0, 1) is CellStatus.MISSING
    assert laid_out((0.1, 0.01, 1, "failed")).status(0, 1) is CellStatus.FAILED
    assert laid_out((0.1, 0.01, 0, LOST), (0.1, 0.01, 1, "failed")).status(0, 1) is CellStatus.DIVERGED
    assert laid_out(seeds=()).status(0, 1) is CellStatus.MISSING


def test_best_counts_below_the_cap_and_has_the_smaller_index_of_equals() -> None:
    lanes = (0.1, 0.0, 0, 0.9), (0.1, 0.0, 1, 0.1), (0.1, 0.01, 0, 0.8), (0.1, 0.01, 1, 0.8)
    assert laid_out(*lanes, cap=0.9).inside[0].tolist() == [False, True, False]
    for cap in (0.9, np.log(10), 0.1):  # the mean of 7 equal values can round below the cap
        assert not surface(np.full((2, 2, 7), cap), cap=cap).inside.any()
    for value, out in ((0.5, True), (0.6, False)):
        found = replace(laid_out((0.1, 0.0, 0, value), seeds=(0,), cap=0.5), direction=Direction.MAXIMIZE)
        assert (found.out[0, 0], found.inside[0, 0], found.minimized().cap) == (out, not out, -0.5)
    assert surface(np.ones((3, 3, 2))).best() == (0, 0)
    whole = surface(repeated(BOWL), baseline=np.full((11, 3), -1.0))
    assert whole.best() == (0, 0)
    assert np.array_equal(whole.without_baseline().values, repeated(BOWL))
    some = surface(BOWL[..., None] + np.arange(3), seeds=(5, 6, 7)).with_seeds((7, 5))
    assert (some.seeds, np.array_equal(some.values, BOWL[..., None] + [2, 0])) == ((7, 5), True)
    assert surface(np.full((3, 3, 2), np.nan)).best() is None
    assert laid_out(seeds=()).best() is None


def test_means_are_numpys_to_the_bit_and_exist_for_partial_cells() -> None:
    values = np.random.default_rng(0).lognormal(size=(5, 4, 3))
    found = surface(values)
    assert np.array_equal(found.mean, values.mean(axis=2))
    assert np.array_equal(found.sem, values.std(axis=2, ddof=1) / np.sqrt(3))
    found = surface(np.array([[[1e300, 0.3, 0.4], [1.7e308, 1.7e308, 1.7e308], [0.1, 0.2, 0.6]]]))
    assert found.mean[0] == pytest.approx([1e300 / 3, 1.7e308, 0.3])
    assert found.sem[0, [0, 2]] == pytest.approx([1e300 / 3, np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3)])
    assert found.sem[0, 1] < 1e300
    assert found.mean_so_far[0] == pytest.approx(found.mean[0])
    lost = (0.2, 0.0, 0, 5.0), (0.2, 0.0, 1, LOST)
    found = laid_out((0.1, 0.0, 0, 1.0), (0.1, 0.0, 1, 2.0), (0.1, 0.01, 1, 4.0), *lost)
    assert found.mean_so_far[0].tolist()[:2] == [1.5, 4.0]
    assert np.isnan(found.mean_so_far[1, 0])
    assert found.partial.tolist() == [[False, True, False], [False, False, False]]
    assert (found.runs, found.best(), found.inside[0, 1]) == ((5, 12), (0, 0), False)


HIGHER = """
    acc val_acc valAcc ACCURACY test/accuracy Accuracy@1 f1 F1Score best.f1_macro macroF1 rocAUC AP AP50 mAP
    map bleu4 ROUGE-L rougeL r2 R2_score score top1 val_top5 iou mIoU meanIoU dice_coef mean_reward
    neg_log_loss valacc accs ep_rew_mean bertscore ROCAUC nDCG@10 R@10 hits@1 top-5 val_top_1 R^2 r_squared
    log_likelihood exact_match win_rate neg_acc
"""
LOWER = """
    value loss val_loss top1_error acc_err diceLoss perplexity mapping inaccuracy accident fraction
    scoreboardless score_loss log_loss … neg_log_likelihood error_rate lr@10 miss_rate laptop1 err_rate stop1
"""


def test_whole_words_of_a_name_imply_that_higher_is_better() -> None:
    assert [name for name in [*HIGHER.split(), "episode return"] if not says_higher(name)] == []
    assert [name for name in [*LOWER.split(), *Task().metrics, "", "stop 5"] if says_higher(name)] == []


def test_name_that_implies_higher_is_refused_until_one_direction_is_given() -> None:
    with pytest.raises(UsageError, match=r"'val_acc' .*add maximize=True, or minimize=True if"):
        metric_direction("val_acc", maximize=False, minimize=False)
    assert metric_direction("val_loss", maximize=False, minimize=False) is Direction.MINIMIZE
    for metric, asked in product(("val_acc", "val_loss"), Direction):
        one = {direction.value: direction is asked for direction in Direction}
        assert metric_direction(metric, **one) is asked
    with pytest.raises(UsageError, match="maximize=True and minimize=True exclude each other"):
        metric_direction("val_acc", maximize=True, minimize=True)
