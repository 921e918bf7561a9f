"""What to do next follows from what is there, and the command does it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.recommend.advice import Advice, advice, extended, finer
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.lattice import Cell, Lattice, canonical
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import MomentumForm, Task
from tests.command_line import understood

Value = Callable[[float, float, int], float]  # of x = log2 α, y = log2 λ (−inf without decay) and the seed
LATTICE = Lattice(tuple(2.0 ** np.arange(-9, -2)), tuple(2.0 ** np.arange(-9, -2)))
CENTRE = -6


def separable(x: float, y: float, seed: int) -> float:
    """A bowl in the middle of the lattice."""
    return 0.1 + 0.01 * (x - CENTRE) ** 2 + 0.02 * (y - CENTRE) ** 2 + 0.001 * seed


def trained(
    value: Value,
    *,
    lattice: Lattice = LATTICE,
    seeds: int = 3,
    kind: Kind = Kind.GRID,
    name: str | None = None,
    storage: str | None = None,
    optimizer: str = "adamw",
    task: Task | None = None,
) -> Result:
    """A study of the digits whose lanes have these values; NaN diverges, infinity is missing."""
    task = None if kind is Kind.IMPORT else task or Task()
    spec = StudySpec(kind, Optimizer.parse(optimizer), lattice, tuple(range(seeds)), "val_loss", task)
    trials = []
    for cell in lattice.cells():
        for seed in spec.seeds:
            decay = math.log2(cell.weight_decay) if cell.weight_decay else -math.inf
            found = value(math.log2(cell.lr), decay, seed)
            if math.isnan(found):
                trials.append(Trial(cell, seed, Status.DIVERGED))
            elif math.isfinite(found):
                trials.append(Trial(cell, seed, Status.COMPLETE, {"val_loss": found}))
    return result(name or spec.default_name, spec, "", trials, storage=storage)


def follow(result: Result, given: Advice) -> StudySpec:
    """The spec that the advised command trains: of the same study, holding all that is there."""
    assert given.command_line is not None
    found = understood(given.command_line)
    assert found.name == result.name
    assert found.storage == result.storage
    assert found.spec is not None
    assert result.spec.differences(found.spec) == []
    assert set(result.spec.lattice.cells()) <= set(found.spec.lattice.cells())
    assert set(result.spec.seeds) <= set(found.spec.seeds)
    return found.spec


def test_a_settled_study_needs_nothing() -> None:
    (only,) = advice(trained(separable))
    assert only.why.startswith("nothing; the best cell is inside the lattice")
    assert only.command is None


@pytest.mark.parametrize(
    ("shift_a", "shift_l", "words"),
    [
        (5, 0, ["lr upward"]),
        (-5, 0, ["lr downward"]),
        (0, 5, ["wd upward"]),
        (5, -5, ["lr upward", "wd downward"]),
    ],
)
@pytest.mark.parametrize("study_name", [None, "it's mine"])
def test_best_on_the_edge_extends_the_lattice_there(
    shift_a: int, shift_l: int, words: list[str], study_name: str | None
) -> None:
    found = trained(
        lambda x, y, seed: separable(x - shift_a, y - shift_l, seed), name=study_name, storage="runs/a b.db"
    )
    first = advice(found)[0]
    assert first.why.endswith(f"extend {' and '.join(words)}")
    lattice = follow(found, first).lattice
    assert (max(lattice.lr) > max(LATTICE.lr)) is (shift_a > 0)
    assert (min(lattice.lr) < min(LATTICE.lr)) is (shift_a < 0)
    assert (max(lattice.weight_decay) > max(LATTICE.weight_decay)) is (shift_l > 0)
    assert (min(lattice.weight_decay) < min(LATTICE.weight_decay)) is (shift_l < 0)


def test_a_ridge_that_leaves_the_wd_axis_extends_it_though_a_slope_is_known() -> None:
    def steep(x: float, y: float, seed: int) -> float:
        return 0.1 + 0.01 * (y - CENTRE + 1.5 * (x - CENTRE)) ** 2 + 0.001 * (x - CENTRE) ** 2 + 0.001 * seed

    found = trained(steep)
    assert found.separability.verdict is Verdict.COUPLED
    (only,) = advice(found)
    assert only.why == "the best wd of 4 of 7 rows is on the edge: extend wd downward and wd upward"
    lattice = follow(found, only).lattice
    assert min(lattice.weight_decay) < min(LATTICE.weight_decay)
    assert max(lattice.weight_decay) > max(LATTICE.weight_decay)


def test_noise_adds_seeds() -> None:
    rng = np.random.default_rng(0)
    found = trained(lambda x, y, seed: 0.3 + 0.01 * rng.standard_normal() + separable(x, y, seed) / 50)
    assert found.separability.verdict is Verdict.UNDETERMINED
    last = advice(found)[-1]
    assert last.why.endswith("add seeds")
    assert len(follow(found, last).seeds) == 6


def test_too_few_seeds_for_an_interval_adds_seeds() -> None:
    found = trained(separable, seeds=1)
    (only,) = advice(found)
    assert only.why == "1 of the 3 seeds that an interval needs: add seeds"
    assert len(follow(found, only).seeds) == 5


def test_each_command_holds_what_those_before_it_train() -> None:
    found = trained(lambda x, y, seed: separable(x - 5, y, seed), seeds=1)
    extend, seeds = advice(found)
    first, second = follow(found, extend), follow(found, seeds)
    assert len(first.seeds) == 1
    assert second.lattice == first.lattice
    assert len(second.seeds) == 5


def test_seeds_are_not_blamed_where_rows_are_too_few() -> None:
    found = trained(separable, lattice=Lattice(LATTICE.lr[2:5], LATTICE.weight_decay[2:5]))
    (only,) = advice(found)
    assert only.why == "9 cells count, 10 are needed: halve the steps of lr and wd"
    lattice = follow(found, only).lattice
    assert (len(lattice.lr), len(lattice.weight_decay)) == (5, 5)


def test_two_rows_extend_the_learning_rate() -> None:
    found = trained(separable, lattice=Lattice((2.0**CENTRE, 2.0 ** (CENTRE + 1)), LATTICE.weight_decay))
    assert any("extend lr" in each.why for each in advice(found))


@pytest.mark.parametrize(
    ("lattice", "words"),
    [
        (Lattice((2.0**CENTRE,), tuple(2.0 ** np.arange(-12, 0))), "lr has one value: extend lr"),
        (Lattice(tuple(2.0 ** np.arange(-12, 0)), (2.0**CENTRE,)), "wd has one value: extend wd"),
    ],
)
def test_a_single_row_or_column_is_extended_both_ways(lattice: Lattice, words: str) -> None:
    found = trained(separable, lattice=lattice)
    first = advice(found)[0]
    assert first.why == f"{words} downward and {words[-2:]} upward"
    longer = follow(found, first).lattice
    assert min(len(longer.lr), len(longer.weight_decay)) >= 5


@pytest.mark.parametrize(
    ("optimizer", "task"),
    [
        ("adamw:normalized", Task(schedule=Schedule.RESTARTS, t_0=3, warmup=2)),
        ("sgd", Task(momentum=0.5, nesterov=True, momentum_form=MomentumForm.TORCH)),
        ("amsgradw:corrected:normalized", Task(beta1=0.8, eps=1e-6, decay_all=False)),
        ("adagradw:fixed", Task(schedule=Schedule.LINEAR, eta_min=0.1)),
        ("rmsprop", Task(momentum=0.3, augment="crop-flip")),
        ("sgdpw", Task(nesterov=True)),
    ],
)
def test_the_advised_command_trains_the_same_study_of_any_optimizer(optimizer: str, task: Task) -> None:
    found = trained(lambda x, y, seed: separable(x - 5, y, seed), seeds=1, optimizer=optimizer, task=task)
    extend, seeds = advice(found)
    assert max(follow(found, extend).lattice.lr) > max(LATTICE.lr)
    assert len(follow(found, seeds).seeds) == 5


def test_rows_with_their_best_decay_on_the_edge_extend_it() -> None:
    def valley(x: float, y: float, seed: int) -> float:
        return 0.1 + 0.01 * (x - CENTRE) ** 2 + 0.02 * (y + 12 + (x == CENTRE) * 7) ** 2

    found = trained(valley)
    assert found.separability.ridge_slope.value is None
    first = advice(found)[0]
    assert "extend wd downward" in first.why
    assert min(follow(found, first).lattice.weight_decay) < min(LATTICE.weight_decay)


def test_missing_lanes_come_first_and_by_the_same_command() -> None:
    found = trained(lambda x, y, seed: math.inf if (x, seed) == (-9, 2) else separable(x - 5, y, seed))
    (only,) = advice(found)
    assert only.why.startswith("7 cells have missing or failed lanes")
    assert follow(found, only) == found.spec


def test_no_decay_being_best_asks_for_no_smaller_decay() -> None:
    lattice = Lattice(LATTICE.lr, (0.0, *LATTICE.weight_decay))
    found = trained(lambda x, y, seed: separable(x, CENTRE, seed) + 0.01 * 2.0**y, lattice=lattice)
    assert found.best is not None
    assert found.best.weight_decay == 0
    assert "weight_decay:low" in found.separability.on_edge
    assert not any("best cell is on the edge" in each.why for each in advice(found))


def test_where_all_diverged_the_learning_rate_goes_down() -> None:
    found = trained(lambda x, y, seed: math.nan)
    (only,) = advice(found)
    assert "some diverged: extend lr downward" in only.why
    assert min(follow(found, only).lattice.lr) < min(LATTICE.lr)


def test_a_flat_basin_is_no_matter_of_more_training() -> None:
    (only,) = advice(trained(lambda x, y, seed: 0.5))
    assert only.why.startswith("nothing that more of the same would settle; the basin is flat")
    assert only.command is None


@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize("seeds", [1, 3])
def test_an_imported_study_gets_words_alone(shift: int, seeds: int) -> None:
    found = trained(lambda x, y, seed: separable(x - shift, y, seed), seeds=seeds, kind=Kind.IMPORT)
    assert all(each.command is None and each.why for each in advice(found))


def test_an_imported_study_without_decay_is_to_have_some() -> None:
    lattice = Lattice(LATTICE.lr, (0.0,))
    (only,) = advice(trained(lambda x, y, seed: separable(x, 0, seed), lattice=lattice, kind=Kind.IMPORT))
    assert only == Advice("no cell has decay: sweep wd too")


def test_a_search_goes_on_with_more_points_in_a_larger_box() -> None:
    grid = trained(lambda x, y, seed: separable(x - 5, y, seed))
    spec = replace(grid.spec, kind=Kind.TPE)
    found = result(spec.default_name, spec, "", grid.trials)
    first = advice(found)[0]
    assert first.command_line is not None
    command = understood(first.command_line)
    assert command.spec is not None
    assert (command.spec.kind, command.name) == (Kind.TPE, found.name)
    assert command.points == math.ceil(49 * 1.5)
    assert max(command.spec.lattice.lr) > max(LATTICE.lr)


def test_a_search_too_sparse_for_a_ridge_goes_on() -> None:
    grid = trained(separable)
    spec = replace(grid.spec, kind=Kind.TPE)
    diagonal = set(zip(LATTICE.lr, LATTICE.weight_decay, strict=True))
    sparse = [t for t in grid.trials if (t.cell.lr, t.cell.weight_decay) in diagonal]
    (only,) = advice(result(spec.default_name, spec, "", sparse))
    assert only.why == "7 cells count, 10 are needed: search on"
    assert only.command_line is not None
    command = understood(only.command_line)
    assert (command.spec, command.points) == (spec, 11)


def test_a_point_without_all_its_seeds_is_finished_first() -> None:
    grid = trained(separable)
    spec = replace(grid.spec, kind=Kind.TPE)
    found = result(spec.default_name, spec, "", [*grid.trials, Trial(Cell(0.01, 0.01), 0, Status.FAILED)])
    (only,) = advice(found)
    assert only.why.startswith("1 points have missing or failed lanes")


axes = st.lists(st.floats(1e-12, 1e6), min_size=2, max_size=8, unique_by=lambda v: f"{v:.12g}").map(
    lambda values: Lattice(tuple(values), (1.0,)).lr
)


@given(axes, st.sampled_from(["low", "high"]))
def test_an_extended_axis_goes_on_at_its_end_alone(axis: tuple[float, ...], end: str) -> None:
    longer = extended(axis, end)
    new = set(longer) - set(axis)
    assert set(axis) <= set(longer)
    assert all(value == canonical(value) for value in longer)
    assert all(value < axis[0] if end == "low" else value > axis[-1] for value in new)


@pytest.mark.parametrize(
    ("axis", "longer"),
    [
        ((0.25, 0.5, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0)),
        ((1e-3, 1e-2, 1e-1), (1e-3, 1e-2, 1e-1, 1.0, 10.0)),
        ((0.0, 0.5, 1.0), (0.0, 0.5, 1.0, 2.0, 4.0)),
        ((1.0, 1.001), (1.0, 1.001, 1.002, 1.003)),
    ],
)
def test_an_axis_is_extended_at_its_spacing(axis: tuple[float, ...], longer: tuple[float, ...]) -> None:
    assert extended(axis, "high") == pytest.approx(longer, rel=1e-5)


@given(axes)
def test_a_finer_axis_has_a_value_between_every_two(axis: tuple[float, ...]) -> None:
    result = finer(axis)
    assert set(axis) <= set(result)
    assert (result[0], result[-1]) == (axis[0], axis[-1])
    assert len(result) <= 2 * len(axis) - 1
    for low, high in pairwise(axis):
        assert high / low < 1 + 1e-9 or any(low < value < high for value in result)


def test_an_absurdly_coarse_axis_is_no_problem() -> None:
    axis = (1e-300, 1e300)
    assert extended(axis, "high") == extended(axis, "low") == axis
    assert finer(axis) == (1e-300, 1.0, 1e300)


def overfitting(x: float, y: float, seed: int) -> float:
    """A cross-entropy above that of a uniform guess among ten, best at the smallest rate."""
    return 3.0 + 0.1 * (x - CENTRE) + 0.02 * (y - CENTRE) ** 2 + 0.001 * seed


def with_error(found: Result, error: float) -> Result:
    """The same study, with this val_error in every lane."""
    trials = [replace(t, metrics={**t.metrics, "val_error": error}) for t in found.trials]
    return result(found.name, found.spec, "", trials)


def test_a_network_that_overfits_is_not_sent_to_other_learning_rates() -> None:
    found = with_error(trained(overfitting), 0.3)
    assert found.best is not None
    assert found.separability.on_edge == ("lr:low",)
    first, *others = advice(found)
    assert (
        "the best val_loss, 2.7, is above that of a uniform guess, 2.3, though val_error is 0.3" in first.why
    )
    assert first.command == (f"lrwd-sweep report {found.name}", "--metric val_error")
    assert not any("lr " in each.why for each in others)


def test_a_network_that_knows_no_better_than_chance_does_not_overfit() -> None:
    (first, *_) = advice(with_error(trained(overfitting), 0.9))
    assert "extend lr downward" in first.why


def test_no_cell_better_than_chance_is_said_of_errors_alone() -> None:
    found = with_error(trained(overfitting), 0.9)
    judged = result(found.name, found.spec, "", found.trials, metric="val_error")
    (only,) = advice(judged)
    assert only.why == "no cell has a val_error better than chance: extend lr, or train longer"


def test_where_no_cell_is_better_than_the_given_cap_the_cap_is_named() -> None:
    found = trained(lambda x, y, seed: math.nan if x > CENTRE else 3.0)
    capped = result(found.name, replace(found.spec, given_cap=2.5), "", found.trials)
    (only,) = advice(capped)
    assert only == Advice(
        "every cell diverged or is at or above the cap of 2.5: give another --cap, or train longer"
    )


def test_an_interrupted_comparison_is_continued_by_the_comparison() -> None:
    adam = trained(separable, optimizer="adam")
    adamw = trained(lambda x, y, seed: math.inf if seed else 0.1)
    (only,) = advice(adamw, [adam, adamw])
    assert only.command is not None
    assert only.command[0] == "lrwd-sweep compare adam adamw"
    (alone,) = advice(adamw)
    assert alone.command is not None
    assert alone.command[0] == "lrwd-sweep grid"


def test_more_seeds_of_compared_studies_are_trained_by_the_comparison() -> None:
    rng = np.random.default_rng(0)
    noisy = trained(lambda x, y, seed: separable(x, y, seed) + rng.normal(0, 0.02), seeds=1)
    adam = trained(separable, optimizer="adam", seeds=1)
    (more,) = (each for each in advice(noisy, [adam, noisy]) if "add seeds" in each.why)
    assert more.command is not None
    assert more.command[0] == "lrwd-sweep compare adam adamw"
    assert "--seeds 5" in more.command
