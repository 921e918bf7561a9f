"""Recommendations: the cells worth using, each as code, and the next steps, each with its command."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrwd_sweep.report.recommend.code import CodeLine, recipe
from lrwd_sweep.report.recommend.command import (
    Advice,
    command,
    extended,
    finer,
    new_runs,
    of_all,
    report_command,
    then_report,
)
from lrwd_sweep.report.result import Result, at_cap
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.separability import Separability, Verdict
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS
from lrwd_sweep.science.separability.ridge import MIN_ROWS
from lrwd_sweep.science.surface import MIN_CELLS, CellStatus, blocks, is_flat, most_forgiving
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.catalog import CROSS_ENTROPY, chance_level
from lrwd_sweep.spec.study import Kind, StudySpec

ENOUGH_SEEDS = 5  # for a first interval that is not mostly expansion
_PAYABLE = 32  # seeds; a verdict that needs more is left open
_UNFINISHED, _LATTICE, _SEEDS = range(3)  # order of the steps

_DIRECTION = {"low": "downward", "high": "upward"}
_OPTION = {"lr": "lr", "weight_decay": "wd"}


@dataclass(frozen=True, slots=True)
class Around:
    """A cell and its eight neighbors, in the metric's units."""

    mean: float
    worst: float


@dataclass(frozen=True, slots=True)
class Recommended:
    """A cell worth using."""

    role: str  # "best", "most forgiving", or both
    cell: Cell
    value: float
    around: Around | None  # None if a neighbor is unknown
    timescale_epochs: float | None  # τ over which decay averages the updates, where η = 1
    timescale_steps: float | None
    timescale_steps_projected: float | None  # τ of projected steps, if their share is unknown
    lines: tuple[CodeLine, ...]


@dataclass(frozen=True, slots=True)
class Recommendations:
    """The recommended cells of one study, and its next steps."""

    cells: tuple[Recommended, ...]  # the best, and the most forgiving if it is another cell
    why_not_forgiving: str  # empty if there is a most forgiving cell
    next: tuple[Advice, ...]


def recommendations(result: Result, among: Sequence[Result] = ()) -> Recommendations:
    """Recommend the best and the most forgiving cell, and the next steps with the study or all `among`."""
    best, surface = result.ranked(1), result.surface
    if not best:
        return Recommendations((), "no cell counts", advice(result, among))
    if result.spec.is_search:
        found = (_recommended(result, "best", best[0].cell, best[0].value, None),)
        return Recommendations(found, "the points of a search have no neighbours", advice(result, among))
    (mean, worst), forgiving = blocks(surface), most_forgiving(surface)
    roles = {"best": surface.best(), "most forgiving": forgiving}
    if forgiving == surface.best():
        roles = {"best and most forgiving": forgiving}
    cells = []
    for role, at in roles.items():
        if at is not None:
            around = None if np.isnan(mean[at]) else Around(float(mean[at]), float(worst[at]))
            cells.append(_recommended(result, role, surface.cell(*at), float(surface.mean[at]), around))
    why_not = "" if forgiving else "no cell has all eight neighbours within the lattice and counting"
    return Recommendations(tuple(cells), why_not, advice(result, among))


def _recommended(result: Result, role: str, cell: Cell, value: float, around: Around | None) -> Recommended:
    decay, task = result.conventions(cell), result.spec.task
    steps, lines = decay.timescale_steps, recipe(result.spec, cell, decay)
    epochs = None if steps is None or task is None else steps / task.steps_per_epoch
    return Recommended(role, cell, value, around, epochs, steps, decay.timescale_steps_projected, lines)


@dataclass(frozen=True, slots=True)
class Change:
    """One step as a change of a study's spec."""

    why: str
    spec: StudySpec
    searches_on: bool = False  # a search needs more points for it
    command: tuple[str, ...] | None = None  # if it does not train; empty without a command


def advice(result: Result, among: Sequence[Result] = ()) -> tuple[Advice, ...]:
    """Return the next steps with a study, in order; each command also trains what those before it do.

    A step that trains the lattices of all studies `among` as they are, or more seeds of them, has the command
    of their comparison.
    """
    found, spec, points = list[Advice](), result.spec, _points(result)
    for change in changes(result):
        words = change.command or None
        if change.command is None:
            spec = spec.extended(change.spec)
            points += math.ceil(points / 2) * change.searches_on
            alone = command(spec, result.name, result.storage, points, result.data_dir)
            words = of_all(spec, result, among) or alone
        found.append(Advice(change.why, words))
    return tuple(found) or (Advice(_nothing(result)),)


def _points(result: Result) -> int:
    return len({trial.cell for trial in result.trials}) if result.spec.is_search else 0


def _nothing(result: Result) -> str:
    if result.separability.verdict is Verdict.UNDETERMINED:
        return f"nothing that more of the same would settle; {result.separability.reason}"
    without = result.best is not None and result.best.weight_decay == 0
    best = "has no decay" if without else "is inside the lattice"
    return f"nothing; the best cell {best}, and the verdict has its interval"


def changes(result: Result) -> Iterator[Change]:
    """Yield the steps with a study, in order.

    Missing lanes come first: they may change every other step. Then the lattice is extended past a best cell
    on its edge, or past the best λ of its rows; refined if too few rows or cells carry the ridge; and given
    more seeds if noise leaves it undetermined.
    """
    if lost := _unfinished(result):
        yield Change(lost, result.spec)
        return
    refine, found = result.spec.refine, result.refinement
    if refine is not None and found is not None and found.unfit:
        most = int(found.asked.sum()) + found.unfit
        spec = replace(result.spec, refine=replace(refine, max_runs=most))
        yield Change(f"--max-runs {refine.max_runs} holds no further round", spec)
        return
    if not result.surface.inside.any():
        yield _elsewhere(result)
        return
    overfits = _overfits(result)
    if overfits is not None:
        yield overfits
    if not any(result.spec.lattice.weight_decay):
        yield Change("no cell has decay: sweep wd too", result.spec, command=())
        return
    sides = _sides(result)
    if overfits is not None:  # another learning rate only hides it
        sides = {side: why for side, why in sides.items() if not side.startswith("lr:")}
    if sides:
        yield _extension(result.spec, sides)
    elif result.separability.ridge_slope.value is None:
        yield from _finer(result)
    yield from _more_seeds(result)


def _unfinished(result: Result) -> str:
    """Describe the missing lanes; empty if none is missing."""
    lost, what = result.lacking, "cells"
    if result.spec.is_search:
        done = {(trial.cell, trial.seed) for trial in result.trials if trial.status is not Status.FAILED}
        points = {trial.cell for trial in result.trials}
        lost = sum(any((point, seed) not in done for seed in result.spec.seeds) for point in points)
        what = "points"
    if not lost:
        return ""
    if result.spec.kind is Kind.IMPORT:
        return f"{lost} cells have missing or failed runs: add them to the file"
    return f"{lost} {what} have missing or failed lanes: the same command trains those alone"


def _elsewhere(result: Result) -> Change:
    """Return the step for a study in which no cell counts."""
    cap = result.spec.given_cap
    if cap is not None and np.isfinite(result.surface.values).any():
        why = f"every cell diverged or is {at_cap(result, result.surface)}"
        return Change(f"{why}: give another --cap, or train longer", result.spec, command=())
    if all(trial.detail.startswith("the loss was not finite at step 0 ") for trial in result.trials):
        why = "no loss was finite before the first step: check loss and data"
        return Change(why, result.spec, command=())
    sides = ["lr:low", "lr:high"]
    why = f"no cell has a {result.surface.metric} better than chance: extend lr, or train longer"
    if (result.surface.lanes == CellStatus.DIVERGED.value).any():
        sides, why = ["lr:low"], "no cell counts, and some diverged: extend lr downward"
    return replace(_extension(result.spec, dict.fromkeys(sides, "")), why=why)


def _overfits(result: Result) -> Change | None:
    """Return the step if the best cell classifies well but its cross-entropy is above a uniform guess."""
    best, task = result.surface.best(), result.spec.task
    if best is None or task is None or result.surface.metric != "val_loss" or task.loss != CROSS_ENTROPY:
        return None
    classes = task.data_set.classes
    uniform, chance = math.log(classes), chance_level("val_error", classes)
    cell, loss = result.surface.cell(*best), float(result.surface.mean[best])
    errors = [t.metrics["val_error"] for t in result.trials if t.cell == cell and "val_error" in t.metrics]
    error = sum(errors) / len(errors) if errors else math.inf
    if loss <= uniform or error >= chance:
        return None
    why = (
        f"the best val_loss, {loss:.3g}, is above that of a uniform guess, {uniform:.3g}, though val_error "
        f"is {error:.3g} there: the networks overfit; judge them by their errors too"
    )
    return Change(why, result.spec, command=report_command(result.name, "val_error", result.storage))


def _edges_of_best(result: Result) -> list[str]:
    best = result.best
    without = best is not None and best.weight_decay == 0  # nothing is below no decay
    return [side for side in result.separability.on_edge if not (without and side == "weight_decay:low")]


def _sides(result: Result) -> dict[str, str]:
    """Return the sides to extend the lattice past, with the reason."""
    found, lattice = result.separability, result.spec.lattice
    sides = dict.fromkeys(_edges_of_best(result), "the best cell is on the edge")
    if not result.spec.is_search:  # the rows of a search are too sparse to locate their best λ
        on_edge = sum(found.rows_on_edge.values())
        why = f"the best wd of {on_edge} of {found.basin.any(axis=1).sum()} rows is on the edge"
        sides |= dict.fromkeys(found.rows_on_edge, why)
    for axis, values in (("lr", lattice.lr), ("weight_decay", lattice.weight_decay)):
        if sum(value > 0 for value in values) == 1:
            sides |= {f"{axis}:{end}": f"{_OPTION[axis]} has one value" for end in _DIRECTION}
    return sides


def _extension(spec: StudySpec, sides: dict[str, str]) -> Change:
    """Return the step that extends the lattice past these sides."""
    axes = {"lr": spec.lattice.lr, "weight_decay": spec.lattice.weight_decay}
    words = []
    for side in sides:
        axis, end = side.split(":")
        axes[axis] = extended(axes[axis], end)
        words.append(f"{_OPTION[axis]} {_DIRECTION[end]}")
    reasons = ", ".join(dict.fromkeys(filter(None, sides.values())))
    why = f"{reasons}: extend {' and '.join(words)}"
    return Change(why, replace(spec, lattice=Lattice(axes["lr"], axes["weight_decay"])), searches_on=True)


def _finer(result: Result) -> Iterator[Change]:
    """Yield a finer or longer lattice, or a longer search, if too few cells or rows carry the ridge."""
    spec, lattice = result.spec, result.spec.lattice
    inside = int(result.surface.without_baseline().inside.sum())
    few = inside < MIN_CELLS
    why = f"{inside} cells count, {MIN_CELLS} are needed" if few else "too few rows carry the ridge"
    basin = result.separability.basin
    if basin.any() and is_flat(result.surface.mean[basin]):
        return
    if spec.is_search:
        yield Change(f"{why}: search on", spec, searches_on=True)
    elif len(lattice.lr) < MIN_ROWS:
        yield _extension(spec, {"lr:low": why, "lr:high": why})
    else:
        axes = Lattice(finer(lattice.lr), finer(lattice.weight_decay) if few else lattice.weight_decay)
        yield Change(f"{why}: halve the steps of lr{' and wd' * few}", replace(spec, lattice=axes))


def _more_seeds(result: Result) -> Iterator[Change]:
    """Yield more seeds if the slope is known, its interval is open, and they can settle the verdict."""
    found, seeds, first = result.separability, len(result.spec.seeds), min(result.spec.seeds)
    if found.verdict is not Verdict.UNDETERMINED or found.ridge_slope.value is None:
        return
    more = _seeds_that_settle(found, seeds)
    if more is None:
        return
    few = f"{seeds} of the {MIN_SEEDS} seeds that an interval needs"
    why = few if seeds < MIN_SEEDS else "the verdict is undetermined for noise"
    command = result.spec.command
    if command is not None and not command.takes("seed"):
        yield Change(f"{why}: let the script take {{seed}}", result.spec, command=())
        return
    yield Change(f"{why}: add seeds", replace(result.spec, seeds=tuple(range(first, first + more))))


def _seeds_that_settle(found: Separability, seeds: int) -> int | None:
    """Return how many seeds should settle an undetermined slope; None if a payable number does not.

    Where λ has no measurable effect, F − 1 grows with the seeds: doubled, they must reach the quantile.
    """
    double, test = max(2 * seeds, ENOUGH_SEEDS), found.noise_test
    if seeds < MIN_SEEDS:
        return ENOUGH_SEEDS
    if test is not None and not test.passed:
        grown = 1 + (max(test.f, test.f_of_ranks or 0.0) - 1) * double / seeds
        return double if grown >= test.needed and double <= _PAYABLE else None
    if found.too_near_margin:
        return None
    more = double if found.seeds_to_settle is None else max(found.seeds_to_settle, ENOUGH_SEEDS)
    return more if seeds < more <= max(_PAYABLE, double) else None


def next_step(results: Sequence[Result], names: Sequence[str]) -> Advice:
    """Return the one next step with the studies of a report, under the names it gives them.

    Missing lanes come first, then lattices, then seeds. The command trains the comparison; if only one
    study's lattice changes, it ends with the report of all of them. Without a step that can settle something
    the reason begins with "nothing".
    """
    steps = [
        (_rank(result, change), result, change, name)
        for result, name in zip(results, names, strict=True)
        if (change := _first(result)) is not None
    ]
    if not steps:
        return Advice(f"nothing: {_settled(results, names)}")
    rank, result, change, name = min(steps, key=lambda step: step[0])
    why = f"{name}: {change.why}" if len(results) > 1 else change.why
    if change.command is not None:
        return Advice(why, change.command or None)
    if rank == _LATTICE:
        return _alone(result, change, why, results)
    alike = [(other.spec, label) for each, _, other, label in steps if each == rank]
    spec = replace(result.spec, seeds=max((other.seeds for other, _ in alike), key=len))
    words = of_all(spec, result, results) if len(results) > 1 else None
    if words is None:
        name = name if len(results) > 1 else "the study"
        return _alone(result, change, _why(rank, result, change, [name]), results)
    why = _why(rank, result, replace(change, spec=spec), [label for _, label in alike])
    runs = sum(new_runs(each, replace(each.spec, seeds=spec.seeds)) for each in results)
    return Advice(why, words, runs)


def _why(rank: int, result: Result, change: Change, names: Sequence[str]) -> str:
    """Say what missing lanes or more seeds of these studies are good for."""
    which = " and ".join(names)
    if rank == _UNFINISHED:
        return change.why if result.spec.kind is Kind.IMPORT else f"finishes {which}"
    if len(result.spec.seeds) < MIN_SEEDS:
        return f"a verdict needs {MIN_SEEDS} seeds or more"
    return f"{len(change.spec.seeds)} seeds should settle {which}"


def _rank(result: Result, change: Change) -> int:
    if change.command is None and change.spec == result.spec and not change.searches_on:
        return _UNFINISHED
    return _SEEDS if change.spec.seeds != result.spec.seeds else _LATTICE


def _first(result: Result) -> Change | None:
    """Return the first step that can change the verdict or the best value; None without one."""
    found, every = result.separability, list(changes(result))
    edge = bool(_edges_of_best(result)) or not result.surface.inside.any()
    for change in every:
        longer = change.command is None and change.spec.lattice != result.spec.lattice
        if not longer or edge:
            return change
        few = len(result.spec.seeds) < MIN_SEEDS and len(every) > 1  # a longer axis gives no verdict yet
        if not few and (found.verdict is Verdict.UNDETERMINED or found.windowed):
            return change
    return None


def _settled(results: Sequence[Result], names: Sequence[str]) -> str:
    """Say why no step is worth its runs."""
    open_ = []
    for result, name in zip(results, names, strict=True):
        found = result.separability
        if found.verdict is not Verdict.UNDETERMINED:
            continue
        if found.too_near_margin:
            why = "the slope is too near the margin for any number of seeds"
        elif found.seeds_to_settle is not None:
            why = f"about {found.seeds_to_settle} seeds would settle it"
        elif found.noise_test is not None and not found.noise_test.passed:
            why = "twice the seeds would hardly show an effect of wd"
        else:
            why = found.reason.partition(";")[0]
        open_.append(f"{name}: {why}" if len(results) > 1 else why)
    return "; ".join(open_) or "every verdict is settled, and no best cell is on the edge"


def _alone(result: Result, change: Change, why: str, among: Sequence[Result]) -> Advice:
    """Return the step that trains one study, and reports all of them again."""
    points = _points(result)
    points += math.ceil(points / 2) * change.searches_on
    words = command(change.spec, result.name, result.storage, points, result.data_dir)
    if words is None:
        return Advice(why)
    runs = new_runs(result, change.spec, points)
    if len(among) > 1:
        whole = then_report(words, result, among)
        words, why = whole or words, why + "; then repeat this command" * (whole is None)
    return Advice(why, words, runs)
