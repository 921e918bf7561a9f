"""The recommended cells are the best and the most forgiving; next steps have commands that train them."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.recommend import advice, recommendations
from lrwd_sweep.report.recommend.command import Advice, extended, finer
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.lattice import Cell, Lattice, canonical
from lrwd_sweep.science.optimizer import DecayRule, MomentumForm, Optimizer
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.surface import CellStatus, blocks, most_forgiving
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests import studies
from tests.command_line import understood
from tests.report.view.examples import known, lost, study, surface, valley
from tests.studies import LATTICE, Height, bowl

AXIS = LATTICE.lr
BASELINE = Lattice(AXIS, (0.0, *LATTICE.weight_decay))


def trained(height: Height = bowl, **options: Any) -> Result:
    return studies.study(height, None, **options)


def right(a: float, b: float) -> float:
    return bowl(a - 5, b)  # its least value is to the right of the lattice


def as_search(found: Result, *more: Trial, keep: Callable[[Cell], bool] = lambda cell: True) -> Result:
    spec = replace(found.spec, kind=Kind.TPE)
    trials = [trial for trial in found.trials if keep(trial.cell)]
    return result(spec.default_name, spec, "", [*trials, *more])


def with_error(found: Result, error: float, metric: str = "val_loss") -> Result:
    trials = [replace(t, metrics={**t.metrics, "val_error": error}) for t in found.trials]
    return result(found.name, found.spec, "", trials, metric=metric)


def follow(result: Result, given: Advice) -> StudySpec:
    """Return the spec that the advised command trains: of the same study, with all of its cells."""
    found = understood(given.command_line or "")
    assert (found.name, found.storage) == (result.name, result.storage)
    old: StudySpec = result.spec
    new: StudySpec = found.spec
    assert old.differences(new) == []
    assert set(old.lattice.cells()) <= set(new.lattice.cells())
    assert set(old.seeds) <= set(new.seeds)
    return new


def only(found: Result) -> Advice:
    (given,) = advice(found)
    return given


def grown(found: Result, given: Advice) -> set[str]:
    old, new, sides = found.spec.lattice, follow(found, given).lattice, set()
    for axis, before, after in (("lr", old.lr, new.lr), ("wd", old.weight_decay, new.weight_decay)):
        sides |= {f"{axis} downward"} if min(after) < min(before) else set()
        sides |= {f"{axis} upward"} if max(after) > max(before) else set()
    return sides


def test_best_cell_and_the_most_forgiving_are_recommended() -> None:
    assert [cell.role for cell in recommendations(trained()).cells] == ["best and most forgiving"]
    pits = {(-1.0, 1.0): 0.05, (-2.0, 2.0): 1.0}
    best, forgiving = recommendations(trained(lambda a, b: pits.get((a, b), bowl(a, b)))).cells
    assert (best.role, best.cell) == ("best", Cell(2.0**-7, 2.0**-3))
    assert (forgiving.role, forgiving.cell) == ("most forgiving", Cell(2.0**-6, 2.0**-4))
    assert known(forgiving.around).mean < known(best.around).mean
    assert known(best.around).worst == pytest.approx(1.0001)
    edge, *_ = recommendations(trained(lambda a, b: 1 + 2.0**b, lattice=BASELINE)).cells
    assert (edge.cell.weight_decay, edge.around, edge.timescale_epochs, len(edge.lines)) == (0, None, None, 1)
    assert np.isnan(blocks(surface(valley(6, 7), baseline=True))[0][:, :2]).all()  # it is no neighbor
    found = recommendations(study(kind=Kind.TPE))
    assert ([cell.role for cell in found.cells], "search" in found.why_not_forgiving) == (["best"], True)
    found = recommendations(lost())
    assert (found.cells, found.why_not_forgiving) == ((), "no cell counts")
    for rule in DecayRule:
        found = recommendations(study(optimizer=Optimizer(None, rule, "lion"), kind=Kind.IMPORT))
        assert found.cells[0].lines[0].code.startswith("dict(lr="), rule
    base = study(optimizer="adampw")
    trials = [replace(trial, curves={"projection": (0.5, 1.0)}) for trial in base.trials]
    counted, *_ = recommendations(result("x", base.spec, "", trials)).cells
    unknown, *_ = recommendations(base).cells
    lam = counted.cell.weight_decay
    assert counted.timescale_steps == pytest.approx(1 / (lam * (0.25 + 0.75 * 0.1)))
    assert counted.timescale_steps_projected is None
    assert (unknown.timescale_steps, unknown.timescale_steps_projected) == pytest.approx((1 / lam, 10 / lam))


outs = st.sampled_from(["diverged", "capped", "missing", "failed"])


@given(st.integers(0, 4), st.integers(0, 4), outs, st.integers(0, 2**32 - 1))
def test_block_is_a_cell_and_its_eight_neighbours_that_count(i: int, j: int, how: str, stream: int) -> None:
    values = np.random.default_rng(stream).random((5, 6))
    index, (mean, worst) = known(most_forgiving(surface(values))), blocks(surface(values))
    for p, q in np.ndindex(3, 4):
        block = values[p : p + 3, q : q + 3]
        assert (mean[p + 1, q + 1], worst[p + 1, q + 1]) == (pytest.approx(block.mean()), block.max())
    assert (mean[index], np.isnan(mean).sum()) == (np.nanmin(mean), 30 - 12)
    assert most_forgiving(surface(valley(2, 5))) is None
    found = surface(values, cap=10.0)
    found.values[i, j] = 10.0 if how == "capped" else np.nan
    if how != "capped":
        found.lanes[i, j] = CellStatus(how).value
    mean, _ = blocks(found)
    rows, columns = np.indices((5, 6))
    beside = (abs(rows - i) <= 1) & (abs(columns - j) <= 1)
    assert np.isnan(mean[beside]).all()
    assert np.isfinite(mean[1:-1, 1:-1][~beside[1:-1, 1:-1]]).all()


def test_lattice_is_extended_where_its_best_cells_are_on_the_edge() -> None:
    for shift, name, sides in (
        ((5, 0), None, {"lr upward"}),
        ((-5, 0), None, {"lr downward"}),
        ((0, 5), "it's mine", {"wd upward"}),
        ((5, -5), None, {"lr upward", "wd downward"}),
    ):
        found = studies.study(lambda a, b, shift=shift: bowl(a - shift[0], b - shift[1]), name)
        found = replace(found, storage="runs/a b.db")
        first = advice(found)[0]
        assert grown(found, first) == sides
        assert all(side in first.why for side in sides), first.why
    found = trained(lambda a, b: 0.1 + 0.01 * (b + 1.5 * a) ** 2 + 0.001 * a**2)
    assert found.separability.verdict is Verdict.COUPLED
    assert only(found).why == "the best wd of 4 of 7 rows is on the edge: extend wd downward and wd upward"
    assert grown(found, only(found)) == {"wd downward", "wd upward"}
    found = as_search(trained(lambda a, b: bowl(a, 0) + 0.01 * 2.0**b, lattice=BASELINE))
    assert "weight_decay:low" in found.separability.on_edge, "no smaller decay lies beyond none"
    assert only(found).why == "too few rows carry the ridge: search on"


def test_noise_or_few_seeds_add_seeds() -> None:
    def tilted(a: float, b: float) -> float:  # a slope of −0.2, near the margin
        return 0.1 + 0.01 * a**2 + 0.02 * (b + 0.2 * a) ** 2

    noisy, few, near = trained(tilted, noise=0.02, stream=2), trained(seeds=1), trained(tilted, noise=0.01)
    assert (noisy.separability.verdict, noisy.separability.seeds_to_settle) == (Verdict.UNDETERMINED, 6)
    needed = "1 of the 3 seeds that an interval needs: add seeds"
    for found, why, seeds in (noisy, "add seeds", 6), (few, needed, 5):
        assert only(found).why.endswith(why)
        assert len(follow(found, only(found)).seeds) == seeds
    assert near.separability.too_near_margin
    for found, why in (
        (near, "nothing"),
        (trained(), "nothing; the best cell is inside the lattice"),
        (trained(lambda a, b: 0.5), "nothing that more of the same would settle; the basin is flat"),
    ):
        assert (only(found).command, only(found).why.startswith(why)) == (None, True)
    flat = trained(lambda a, b: 0.3, noise=0.01)
    assert not any("seeds" in each.why for each in advice(flat))  # twice of them would not show an effect
    noisy = trained(noise=0.02, seeds=1)
    every = advice(noisy, [trained(optimizer="adam", seeds=1), noisy])
    ((together, *options),) = (each.command for each in every if each.command)
    assert together == "lrwd-sweep compare adam adamw", "compared studies go on together"
    assert not any("--seeds" in words for words in options)  # five are the default
    task = Task(momentum=0.5, nesterov=True, momentum_form=MomentumForm.TORCH, decay_all=False)
    found = trained(right, seeds=1, optimizer="sgd")
    momentum = replace(found.spec, task=task)
    found = result(momentum.default_name, momentum, "", found.trials)
    first, second = (follow(found, each) for each in advice(found))
    assert (len(first.seeds), len(second.seeds), second.lattice) == (1, 5, first.lattice)


def test_missing_lanes_come_first_and_small_lattices_grow() -> None:
    found = trained(lambda a, b: math.inf if a == -3 else bowl(a - 5, b))
    assert only(found).why.startswith("7 cells have missing or failed lanes")
    assert follow(found, only(found)) == found.spec
    (both,) = advice(found, [trained(optimizer="adam"), found])
    assert known(both.command)[0] == "lrwd-sweep compare adam adamw"
    search = as_search(trained(), Trial(Cell(0.01, 0.01), 0, Status.FAILED))
    assert only(search).why.startswith("1 points have missing or failed lanes")
    two, few, many = AXIS[3:5], AXIS[2:5], tuple(2.0 ** np.arange(-12, 0))
    small = trained(lattice=Lattice(few, few))
    assert only(small).why == "9 cells count, 10 are needed: halve the steps of lr and wd"
    lattice = follow(small, only(small)).lattice
    assert (len(lattice.lr), len(lattice.weight_decay)) == (5, 5)
    assert any("extend lr" in each.why for each in advice(trained(lattice=Lattice(two, AXIS))))
    for lattice, axis in ((Lattice(two[:1], many), "lr"), (Lattice(many, two[:1]), "wd")):
        found = trained(lattice=lattice)
        first = advice(found)[0]
        assert first.why == f"{axis} has one value: extend {axis} downward and {axis} upward"
        longer = follow(found, first).lattice
        assert min(len(longer.lr), len(longer.weight_decay)) >= 5


def test_study_in_which_nothing_counts_or_that_overfits_is_told_why() -> None:
    found = trained(lambda a, b: math.nan)
    assert "some diverged: extend lr downward" in only(found).why
    assert grown(found, only(found)) == {"lr downward"}
    lost = [replace(trial, detail="the loss was not finite at step 0 of 9") for trial in found.trials]
    assert only(result(found.name, found.spec, "", lost)) == Advice(
        "no loss was finite before the first step: check loss and data"
    )
    found = trained(lambda a, b: math.nan if a > 0 else 3.0)
    why = "every cell diverged or is at or above the cap of 2.5: give another --cap, or train longer"
    assert only(result(found.name, replace(found.spec, given_cap=2.5), "", found.trials)) == Advice(why)
    above = trained(lambda a, b: 3.0 + 0.1 * a + 0.02 * b**2)  # a uniform guess among ten classes
    by_error = with_error(above, 0.9, "val_error")
    assert only(by_error).why == "no cell has a val_error better than chance: extend lr, or train longer"
    assert "extend lr downward" in advice(with_error(above, 0.9))[0].why, "at chance it does not overfit"
    first, *others = advice(with_error(above, 0.3))
    uniform = "the best val_loss, 2.7, is above that of a uniform guess, 2.3, though val_error is 0.3"
    assert uniform in first.why
    assert first.command == (f"lrwd-sweep report {above.name}", "--metric val_error")
    assert not any("lr " in each.why for each in others)


def test_search_continues_with_more_points_and_an_import_without_a_command() -> None:
    found = as_search(trained(right))
    command = understood(advice(found)[0].command_line or "")
    wider = command.spec
    assert (wider.kind, command.name, command.points) == (Kind.TPE, found.name, math.ceil(49 * 1.5))
    assert max(wider.lattice.lr) > max(AXIS)
    sparse = as_search(trained(), keep=lambda cell: 4 * cell.lr == cell.weight_decay)
    assert only(sparse).why == "7 cells count, 10 are needed: search on"
    command = understood(only(sparse).command_line or "")
    assert (command.spec, command.points) == (sparse.spec, 11)
    for seeds in (1, 3):
        found = trained(right, seeds=seeds, kind=Kind.IMPORT)
        assert all(each.command is None and each.why for each in advice(found))
    found = trained(lambda a, b: bowl(a, 0), lattice=Lattice(AXIS, (0.0,)), kind=Kind.IMPORT)
    assert only(found) == Advice("no cell has decay: sweep wd too")


values = st.lists(st.floats(1e-12, 1e6), min_size=2, max_size=8, unique_by=lambda v: f"{v:.12g}")


@given(values.map(lambda axis: Lattice(tuple(axis), (1.0,)).lr), st.sampled_from(["low", "high"]))
def test_longer_and_finer_axes_keep_their_values(axis: tuple[float, ...], end: str) -> None:
    longer, denser = extended(axis, end), finer(axis)
    assert set(axis) <= set(longer) & set(denser)
    assert all(value == canonical(value) for value in longer)
    assert all(value < axis[0] if end == "low" else value > axis[-1] for value in set(longer) - set(axis))
    assert (denser[0], denser[-1]) == (axis[0], axis[-1])
    assert len(denser) <= 2 * len(axis) - 1
    for low, high in pairwise(axis):
        assert high / low < 1 + 1e-9 or any(low < value < high for value in denser)
    for shorter, expected in (  # at its spacing, two octaves or two values
        ((1.0, 1.001), (1.0, 1.001, 1.002, 1.003)),
        (tuple(2.0 ** (k / 2) for k in range(5)), tuple(2.0 ** (k / 2) for k in range(9))),
    ):
        assert extended(shorter, "high") == pytest.approx(expected, rel=1e-5)
