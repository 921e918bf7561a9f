"""Axes are read in every spelling; trials become cells, of which a surface knows those that count."""

import math
import pickle
import re
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.lattice import Cell, Lattice, canonical, format_axis, format_value, parse_axis
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.surface import CellStatus, Surface
from lrwd_sweep.science.trial import Direction, Status, Trial, metric_direction, says_higher
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.science.separability.surfaces import BOWL, repeated, surface

values = st.floats(1e-300, 1e300)


@given(st.floats(0, 1e300), values, st.integers(-3, 3))
def test_12_significant_digits_are_a_values_identity(any_value: float, value: float, ulps: int) -> None:
    assert canonical(canonical(any_value)) == canonical(any_value)
    assert math.isclose(canonical(any_value), any_value, rel_tol=5e-12, abs_tol=1e-307)
    value = canonical(value)
    assert Cell(value * (1 + ulps * 2.0**-52), 0.0) == Cell(value, 0.0)
    assert math.copysign(1, Cell(0.1, -0.0).weight_decay) == 1
    assert math.copysign(1, Lattice((0.1,), (-0.0,)).weight_decay[0]) == 1
    one, other = Lattice((0.2,), (1.0, 0.0)), Lattice((0.1, 0.2), (0.0,))
    lattice = one.union(other)  # cells go row by row
    assert list(lattice.cells()) == [Cell(0.1, 0), Cell(0.1, 1), Cell(0.2, 0), Cell(0.2, 1)]
    assert lattice == other.union(one) == lattice.union(one)
    assert pickle.loads(pickle.dumps(Cell(0.1, 0.2))) == Cell(0.1, 0.2)


def test_every_form_of_an_axis_is_read_and_other_texts_refused() -> None:
    for text, values in {
        "2^-3:2^-1": (0.125, 0.25, 0.5),
        "2^-14.8:2^-7.8": tuple(2**-k for k in (14.8, 13.8, 12.8, 11.8, 10.8, 9.8, 8.8, 7.8)),
        "1e-4:1e-1:4": (1e-4, 1e-3, 1e-2, 1e-1),
        "0.25:1:5": (0.25, 2**-1.5, 0.5, 2**-0.5, 1.0),
        "1e-3, 2^-2 ,3": (0.001, 0.25, 3.0),
        "2^-3:2^-1,1:4:3": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    }.items():
        assert parse_axis(text, "lr") == tuple(map(canonical, values)), text
    assert parse_axis("0,1e-4,1e-3,2^-3:2^-2", "wd") == (0.0, 1e-4, 1e-3, 0.125, 0.25)
    for low, high, steps, times in ((1e-4, 0.1, 3, 4), (3e-7, 5.1, 7, 3), (0.3, 0.31, 11, 5)):
        coarse, fine = (parse_axis(f"{low}:{high}:{n + 1}", "lr") for n in (steps, steps * times))
        assert set(coarse) <= set(fine), "a finer range has the cells of the coarse one"
    for axis, refused in (("lr", REFUSED), ("weight_decay", REFUSED_DECAYS)):
        for complaint, texts in refused.items():
            for text in texts:
                assert_raises(f"^{axis}=.*{re.escape(complaint)}", parse_axis, text, axis)


REFUSED = {  # texts of a learning-rate axis by the complaint
    "has an empty value": ["", " ", "1,,2"],
    "'0' is not a positive number; use values above 0": ["0,0.1", "0:1:3"],
    "is not a positive number": ["nan,1", "inf,1", "2^-5000,1", "-1,1"],
    "is not a number": ["2^5000,1", "ten,20", "1_0,20", "1e-400,1", "2^x:2^3"],
    "a range as 2^-8:2^-4": ["2^-8..2^-4"],
    "names 1 twice": ["1,2,1.0000000000001", "2^-1:2^1,1"],
    "is reversed or unordered": ["2,1"],
    "is empty or reversed": ["2^-1:2^-3", "2^-1:2^-1"],
    "has no count; write 1e-4:1e-1:9": ["1e-4:1e-1"],
    "octaves; give a count as in 2^-3:2^-1.5:9": ["2^-3:2^-1.5"],
    "has too many ':'": ["1:2:3:4"],
    "is not a whole number of at least 2": ["1:2:1", "1:2:2.5"],
    "the count 1000000000 is too large; choose at most ": ["1:2:1000000000"],
}
REFUSED_DECAYS = {
    "names 0 twice": ["0,0,1,2"],
    "is reversed or unordered": ["1,0,2"],
    "starts at 0, where a log axis has no step; write 0,LOW:HIGH": ["0:1:3"],
    "0 itself may stand in a list as a baseline": ["-1,1"],
}


@given(st.sets(values.map(canonical), min_size=1, max_size=6), st.booleans())
def test_formatted_axis_is_read_back(positive: set[float], baseline: bool) -> None:
    axis = (*([0.0] if baseline else []), *sorted(positive))
    assert parse_axis(format_axis(axis), "wd") == axis
    for text in ("2^-12:2^-2", "0,2^-3.5:2^0.5", "0.0001:0.1:10", "0.001,0.1", "0,2^-2,2^3"):
        assert format_axis(parse_axis(text, "weight_decay")) == text  # its shorthand
    for number, text in ((0.12500000004, "0.12500000004"), (3e-4, "0.0003"), (1.7e308, "1.7e+308"),
                         (0.0, "0"), (1.0, "2^0"), (canonical(2.0**-3.5), "2^-3.5")):  # fmt: skip
        assert format_value(number) == text


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
    assert surface(np.full((3, 3, 2), np.nan)).best() is laid_out(seeds=()).best() is None


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
    none, both = (partial(metric_direction, maximize=given, minimize=given) for given in (False, True))
    assert_raises("'val_acc' .*add maximize=True, or minimize=True if", none, "val_acc")
    assert_raises("maximize=True and minimize=True exclude each other", both, "val_acc")
    assert none("val_loss") is Direction.MINIMIZE
    for metric, asked in product(("val_acc", "val_loss"), Direction):
        one = {direction.value: direction is asked for direction in Direction}
        assert metric_direction(metric, **one) is asked
