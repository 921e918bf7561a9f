"""The next steps follow from the results, and their commands train them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.recommend import advice
from lrwd_sweep.report.recommend.command import Advice, extended, finer
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.lattice import Cell, Lattice, canonical
from lrwd_sweep.science.optimizer import MomentumForm, Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.command_line import understood

Value = Callable[[float, float, int], float]  # of x = log2 α, y = log2 λ (−inf without decay) and the seed
AXIS, CENTRE = tuple(2.0 ** np.arange(-9, -2)), -6
LATTICE = Lattice(AXIS, AXIS)


def bowl(x: float, y: float, seed: int) -> float:
    return 0.1 + 0.01 * (x - CENTRE) ** 2 + 0.02 * (y - CENTRE) ** 2 + 0.001 * seed


def right(x: float, y: float, seed: int) -> float:
    """Return a bowl whose least value is to the right of the lattice."""
    return bowl(x - 5, y, seed)


def overfitting(x: float, y: float, seed: int) -> float:
    """Return a loss above a uniform guess among ten classes, least at the smallest rate."""
    return 3.0 + 0.1 * (x - CENTRE) + 0.02 * (y - CENTRE) ** 2 + 0.001 * seed


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
    """Return a study of the digits whose lanes have these values; NaN diverges, infinity is missing."""
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
    return replace(result(name or spec.default_name, spec, "", trials), storage=storage)


def as_search(found: Result, *more: Trial, keep: Callable[[Cell], bool] = lambda cell: True) -> Result:
    spec = replace(found.spec, kind=Kind.TPE)
    trials = [trial for trial in found.trials if keep(trial.cell)]
    return result(spec.default_name, spec, "", [*trials, *more])


def follow(result: Result, given: Advice) -> StudySpec:
    """Return the spec that the advised command trains: of the same study, with all of its cells."""
    assert given.command_line is not None
    found = understood(given.command_line)
    assert (found.name, found.storage) == (result.name, result.storage)
    assert found.spec is not None
    assert result.spec.differences(found.spec) == []
    assert set(result.spec.lattice.cells()) <= set(found.spec.lattice.cells())
    assert set(result.spec.seeds) <= set(found.spec.seeds)
    return found.spec


def only(found: Result) -> Advice:
    (given,) = advice(found)
    return given


def grown(found: Result, given: Advice) -> set[str]:
    """Return the sides on which the advised command extends the lattice."""
    spec = follow(found, given).lattice
    ends = {
        "lr": (found.spec.lattice.lr, spec.lr),
        "wd": (found.spec.lattice.weight_decay, spec.weight_decay),
    }
    low = {f"{axis} downward" for axis, (old, new) in ends.items() if min(new) < min(old)}
    return low | {f"{axis} upward" for axis, (old, new) in ends.items() if max(new) > max(old)}


def test_lattice_is_extended_where_its_best_cells_are_on_the_edge() -> None:
    for right, up, name in ((5, 0, None), (-5, 0, None), (0, 5, "it's mine"), (5, -5, None)):
        found = trained(
            lambda x, y, seed, a=right, b=up: bowl(x - a, y - b, seed),  # type: ignore[misc]
            name=name,
            storage="runs/a b.db",
        )
        first, sides = advice(found)[0], {"lr": right, "wd": up}
        assert grown(found, first) == {
            f"{axis} {'upward' if shift > 0 else 'downward'}" for axis, shift in sides.items() if shift
        }
        assert all(side in first.why for side in grown(found, first)), first.why

    def steep(x: float, y: float, seed: int) -> float:
        return 0.1 + 0.01 * (y - CENTRE + 1.5 * (x - CENTRE)) ** 2 + 0.001 * (x - CENTRE) ** 2 + 0.001 * seed

    found = trained(steep)
    assert found.separability.verdict is Verdict.COUPLED
    assert only(found).why == "the best wd of 4 of 7 rows is on the edge: extend wd downward and wd upward"
    assert grown(found, only(found)) == {"wd downward", "wd upward"}
    found = trained(
        lambda x, y, seed: 0.1 + 0.01 * (x - CENTRE) ** 2 + 0.02 * (y + 12 + (x == CENTRE) * 7) ** 2
    )
    assert found.separability.ridge_slope.value is None
    assert grown(found, advice(found)[0]) == {"wd downward"}
    found = trained(
        lambda x, y, seed: bowl(x, CENTRE, seed) + 0.01 * 2.0**y, lattice=Lattice(AXIS, (0.0, *AXIS))
    )
    assert "weight_decay:low" in found.separability.on_edge, "no smaller decay lies beyond none"
    assert not any("best cell is on the edge" in each.why for each in advice(found))


def tilted(noise: float, draw: int) -> Result:
    """Return a noisy bowl whose ridge slope is −0.2, near the margin."""
    rng = np.random.default_rng(draw)
    return trained(lambda x, y, seed: bowl(x, y + 0.2 * (x - CENTRE), seed) + noise * rng.standard_normal())


def test_noise_or_few_seeds_add_seeds() -> None:
    noisy, few, rng = tilted(0.02, 2), trained(bowl, seeds=1), np.random.default_rng(0)
    assert (noisy.separability.verdict, noisy.separability.seeds_to_settle) == (Verdict.UNDETERMINED, 6)
    for found, why, seeds in (
        (noisy, "add seeds", 6),
        (few, "1 of the 3 seeds that an interval needs: add seeds", 5),
    ):
        assert only(found).why.endswith(why)
        assert len(follow(found, only(found)).seeds) == seeds
    near = tilted(0.01, 0)
    assert near.separability.too_near_margin
    for found, why in (
        (near, "nothing"),
        (trained(bowl), "nothing; the best cell is inside the lattice"),
        (trained(lambda x, y, seed: 0.5), "nothing that more of the same would settle; the basin is flat"),
    ):
        assert (only(found).command, only(found).why.startswith(why)) == (None, True)
    lost = trained(lambda x, y, seed: 0.3 + 0.01 * rng.standard_normal())
    assert not any("seeds" in each.why for each in advice(lost))  # twice of them would not show an effect


def test_each_command_trains_the_same_study_and_what_those_before_it_train() -> None:
    for optimizer, task in (
        ("adamw", Task()),
        ("adamw:normalized", Task(schedule=Schedule.RESTARTS, t_0=3, warmup=2)),
        ("sgd", Task(momentum=0.5, nesterov=True, momentum_form=MomentumForm.TORCH, decay_all=False)),
    ):
        found = trained(right, seeds=1, optimizer=optimizer, task=task)
        first, second = (follow(found, each) for each in advice(found))
        assert (len(first.seeds), len(second.seeds)) == (1, 5), optimizer
        assert second.lattice == first.lattice
        assert max(first.lattice.lr) > max(AXIS)


def test_missing_lanes_come_first_and_small_lattices_grow() -> None:
    found = trained(lambda x, y, seed: math.inf if (x, seed) == (-9, 2) else right(x, y, seed))
    assert only(found).why.startswith("7 cells have missing or failed lanes")
    assert follow(found, only(found)) == found.spec
    search = as_search(trained(bowl), Trial(Cell(0.01, 0.01), 0, Status.FAILED))
    assert only(search).why.startswith("1 points have missing or failed lanes")
    two, few, many = (2.0**CENTRE, 2.0 ** (CENTRE + 1)), AXIS[2:5], tuple(2.0 ** np.arange(-12, 0))
    small = trained(bowl, lattice=Lattice(few, few))
    assert only(small).why == "9 cells count, 10 are needed: halve the steps of lr and wd"
    lattice = follow(small, only(small)).lattice
    assert (len(lattice.lr), len(lattice.weight_decay)) == (5, 5)
    assert any("extend lr" in each.why for each in advice(trained(bowl, lattice=Lattice(two, AXIS))))
    for lattice, axis in ((Lattice(two[:1], many), "lr"), (Lattice(many, two[:1]), "wd")):
        found = trained(bowl, lattice=lattice)
        first = advice(found)[0]
        assert first.why == f"{axis} has one value: extend {axis} downward and {axis} upward"
        longer = follow(found, first).lattice
        assert min(len(longer.lr), len(longer.weight_decay)) >= 5


def test_study_in_which_nothing_counts_is_told_why() -> None:
    found = trained(lambda x, y, seed: math.nan)
    assert "some diverged: extend lr downward" in only(found).why
    assert grown(found, only(found)) == {"lr downward"}
    found = trained(lambda x, y, seed: math.nan if x > CENTRE else 3.0)
    why = "every cell diverged or is at or above the cap of 2.5: give another --cap, or train longer"
    assert only(result(found.name, replace(found.spec, given_cap=2.5), "", found.trials)) == Advice(why)
    found = with_error(trained(overfitting), 0.9)
    found = result(found.name, found.spec, "", found.trials, metric="val_error")
    assert only(found).why == "no cell has a val_error better than chance: extend lr, or train longer"


def test_search_continues_with_more_points_and_an_import_without_a_command() -> None:
    found = as_search(trained(right))
    command = understood(advice(found)[0].command_line or "")
    assert command.spec is not None
    assert (command.spec.kind, command.name, command.points) == (Kind.TPE, found.name, math.ceil(49 * 1.5))
    assert max(command.spec.lattice.lr) > max(AXIS)
    sparse = as_search(trained(bowl), keep=lambda cell: cell.lr == cell.weight_decay)
    assert only(sparse).why == "7 cells count, 10 are needed: search on"
    command = understood(only(sparse).command_line or "")
    assert (command.spec, command.points) == (sparse.spec, 11)
    for value in (bowl, right):
        for seeds in (1, 3):
            found = trained(value, seeds=seeds, kind=Kind.IMPORT)
            assert all(each.command is None and each.why for each in advice(found))
    lattice = Lattice(AXIS, (0.0,))
    found = trained(lambda x, y, seed: bowl(x, 0, seed), lattice=lattice, kind=Kind.IMPORT)
    assert only(found) == Advice("no cell has decay: sweep wd too")


axes = st.lists(st.floats(1e-12, 1e6), min_size=2, max_size=8, unique_by=lambda v: f"{v:.12g}").map(
    lambda values: Lattice(tuple(values), (1.0,)).lr
)


@given(axes, st.sampled_from(["low", "high"]))
def test_longer_and_finer_axes_keep_their_values(axis: tuple[float, ...], end: str) -> None:
    longer, denser = extended(axis, end), finer(axis)
    new = set(longer) - set(axis)
    assert set(axis) <= set(longer)
    assert all(value == canonical(value) for value in longer)
    assert all(value < axis[0] if end == "low" else value > axis[-1] for value in new)
    assert set(axis) <= set(denser)
    assert (denser[0], denser[-1]) == (axis[0], axis[-1])
    assert len(denser) <= 2 * len(axis) - 1
    for low, high in pairwise(axis):
        assert high / low < 1 + 1e-9 or any(low < value < high for value in denser)
    for shorter, expected in (  # at its spacing
        ((0.25, 0.5, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0)),
        ((0.0, 0.5, 1.0), (0.0, 0.5, 1.0, 2.0, 4.0)),
        ((1.0, 1.001), (1.0, 1.001, 1.002, 1.003)),
        (tuple(2.0 ** (k / 2) for k in range(5)), tuple(2.0 ** (k / 2) for k in range(9))),  # two octaves
        ((1e-300, 1e300), (1e-300, 1e300)),
    ):
        assert extended(shorter, "high") == pytest.approx(expected, rel=1e-5)


def with_error(found: Result, error: float) -> Result:
    trials = [replace(t, metrics={**t.metrics, "val_error": error}) for t in found.trials]
    return result(found.name, found.spec, "", trials)


def test_overfitting_network_is_judged_by_its_error() -> None:
    found = with_error(trained(overfitting), 0.3)
    assert found.separability.on_edge == ("lr:low",)
    first, *others = advice(found)
    uniform = "the best val_loss, 2.7, is above that of a uniform guess, 2.3, though val_error is 0.3"
    assert uniform in first.why
    assert first.command == (f"lrwd-sweep report {found.name}", "--metric val_error")
    assert not any("lr " in each.why for each in others)
    (first, *_) = advice(with_error(trained(overfitting), 0.9))
    assert "extend lr downward" in first.why, "at chance level it does not overfit"


def test_compared_studies_are_continued_by_their_comparison() -> None:
    adam, adamw = trained(bowl, optimizer="adam"), trained(lambda x, y, seed: math.inf if seed else 0.1)
    (both,) = advice(adamw, [adam, adamw])
    assert (both.command or [""])[0] == "lrwd-sweep compare adam adamw"
    assert (only(adamw).command or [""])[0] == "lrwd-sweep grid"
    rng = np.random.default_rng(0)
    noisy = trained(lambda x, y, seed: bowl(x, y, seed) + rng.normal(0, 0.02), seeds=1)
    adam = trained(bowl, optimizer="adam", seeds=1)
    (more,) = (each for each in advice(noisy, [adam, noisy]) if "add seeds" in each.why)
    assert more.command is not None
    assert more.command[0] == "lrwd-sweep compare adam adamw"
    assert not any("--seeds" in words for words in more.command)  # five are the default
