"""The next steps: finish, extend the lattice, refine it, or add seeds, and the command that does it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lrwd_sweep.report.recommend.command import command, compare_command, report_command
from lrwd_sweep.report.result import Result, at_cap
from lrwd_sweep.science.lattice import Cell, Lattice, canonical, format_value, parse_axis
from lrwd_sweep.science.separability import Separability, Verdict
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS
from lrwd_sweep.science.separability.ridge import MIN_ROWS
from lrwd_sweep.science.surface import MIN_CELLS, CellStatus, is_flat
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.catalog import CROSS_ENTROPY, chance_level
from lrwd_sweep.spec.study import Kind, StudySpec

OCTAVES = 2.0  # least extension of an axis
MIN_EXTENSION = 2  # least number of further values
ENOUGH_SEEDS = 5  # for a first interval that is not mostly expansion
_PAYABLE = 32  # seeds; a verdict that needs more is left open

_DIRECTION = {"low": "downward", "high": "upward"}
_OPTION = {"lr": "lr", "weight_decay": "wd"}


@dataclass(frozen=True, slots=True)
class Advice:
    """One next step and its reason, and the words of its command, if it has one."""

    why: str
    command: tuple[str, ...] | None = None
    runs: int | None = None  # that the command trains; None if it was not counted

    @property
    def command_line(self) -> str | None:
        """Return the command on one line."""
        return None if self.command is None else " ".join(self.command)


@dataclass(frozen=True, slots=True)
class Change:
    """One step as a change of a study's spec."""

    why: str
    spec: StudySpec
    searches_on: bool = False  # a search needs more points for it
    command: tuple[str, ...] | None = None  # if it does not train; empty without a command


def advice(result: Result, among: Sequence[Result] = ()) -> tuple[Advice, ...]:
    """Return the next steps with a study, in order; each command also trains what those before it do.

    Missing lanes come first: they may change every other step. Then the lattice is extended past a best cell
    on its edge, or past the best λ of its rows; refined if too few rows or cells carry the ridge; and given
    more seeds if noise leaves it undetermined. A step that trains the lattices of all studies `among` as they
    are, or more seeds of them, has the command of their comparison.
    """
    points = len({trial.cell for trial in result.trials}) if result.spec.is_search else 0
    found: list[Advice] = []
    spec = result.spec
    for change in changes(result):
        if change.command is not None:
            found.append(Advice(change.why, change.command or None))
            continue
        spec = spec.extended(change.spec)
        points += math.ceil(points / 2) * change.searches_on
        words = of_all(spec, result, among)
        words = words or command(spec, result.name, result.storage, points, result.data_dir)
        found.append(Advice(change.why, words))
    return tuple(found) or (Advice(_nothing(result)),)


def of_all(spec: StudySpec, result: Result, among: Sequence[Result]) -> tuple[str, ...] | None:
    """Return the command that trains a study's spec together with the others; None without one."""
    if result not in among or spec.lattice != result.spec.lattice:
        return None
    specs = {each.name: spec if each is result else replace(each.spec, seeds=spec.seeds) for each in among}
    return compare_command(specs, result.storage, result.data_dir)


def _nothing(result: Result) -> str:
    if result.separability.verdict is Verdict.UNDETERMINED:
        return f"nothing that more of the same would settle; {result.separability.reason}"
    without = result.best is not None and result.best.weight_decay == 0
    best = "has no decay" if without else "is inside the lattice"
    return f"nothing; the best cell {best}, and the verdict has its interval"


def changes(result: Result) -> Iterator[Change]:
    """Yield the steps with a study, in order."""
    lost = _unfinished(result)
    if lost:
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
    sides = {**edges_of_best(result), **_edges_of_rows(result), **_ends_of_single(result.spec.lattice)}
    if overfits is not None:  # another learning rate only hides it
        sides = {side: why for side, why in sides.items() if not side.startswith("lr:")}
    if sides:
        yield _extension(result.spec, sides)
    elif result.separability.ridge_slope.value is None:
        yield from _finer(result)
    yield from _more_seeds(result)


def _unfinished(result: Result) -> str:
    """Describe the missing lanes; empty if none is missing."""
    if result.spec.is_search:
        done: dict[object, set[int]] = {}
        for trial in result.trials:
            lanes = done.setdefault(trial.cell, set())
            lanes.update({trial.seed} if trial.status is not Status.FAILED else ())
        lost = sum(not lanes.issuperset(result.spec.seeds) for lanes in done.values())
        what = "points"
    else:
        lost, what = result.lacking, "cells"
    if not lost:
        return ""
    if result.spec.kind is Kind.IMPORT:
        return f"{lost} cells have missing or failed runs: add them to the file"
    return f"{lost} {what} have missing or failed lanes: the same command trains those alone"


def _elsewhere(result: Result) -> Change:
    """Return the step for a study in which no cell counts."""
    cap = result.spec.given_cap
    if cap is not None and np.isfinite(result.surface.values).any():
        why = (
            f"every cell diverged or is {at_cap(result, result.surface)}: give another --cap, or train longer"
        )
        return Change(why, result.spec, command=())
    if (result.surface.lanes == CellStatus.DIVERGED.value).any():
        change = _extension(result.spec, {"lr:low": ""})
        return replace(change, why="no cell counts, and some diverged: extend lr downward")
    change = _extension(result.spec, {"lr:low": "", "lr:high": ""})
    why = f"no cell has a {result.surface.metric} better than chance: extend lr, or train longer"
    return replace(change, why=why)


def _overfits(result: Result) -> Change | None:
    """Return the step if the best cell classifies well but its cross-entropy is above a uniform guess."""
    best, t = result.surface.best(), result.spec.task
    if best is None or t is None or result.surface.metric != "val_loss" or t.loss != CROSS_ENTROPY:
        return None
    uniform, chance = math.log(t.data_set.classes), chance_level("val_error", t.data_set.classes)
    cell, loss = result.surface.cell(*best), float(result.surface.mean[best])
    errors = [trial.metrics["val_error"] for trial in result.trials if _is_of(trial, cell, "val_error")]
    error = sum(errors) / len(errors) if errors else math.inf
    if loss <= uniform or error >= chance:
        return None
    why = (
        f"the best val_loss, {loss:.3g}, is above that of a uniform guess, {uniform:.3g}, though val_error "
        f"is {error:.3g} there: the networks overfit; judge them by their errors too"
    )
    return Change(why, result.spec, command=report_command(result.name, "val_error", result.storage))


def _is_of(trial: Trial, cell: Cell, metric: str) -> bool:
    return trial.cell == cell and metric in trial.metrics


def edges_of_best(result: Result) -> dict[str, str]:
    """Return the sides of the lattice that the best cell lies on, with the reason to extend them."""
    best = result.best
    without = best is not None and best.weight_decay == 0  # nothing is below no decay
    return {
        side: "the best cell is on the edge"
        for side in result.separability.on_edge
        if not (without and side == "weight_decay:low")
    }


def _ends_of_single(lattice: Lattice) -> dict[str, str]:
    """Return both sides of an axis with one value above 0, with the reason to extend them."""
    axes = {"lr": lattice.lr, "weight_decay": lattice.weight_decay}
    return {
        f"{axis}:{end}": f"{_OPTION[axis]} has one value"
        for axis, values in axes.items()
        if sum(value > 0 for value in values) == 1
        for end in _DIRECTION
    }


def _edges_of_rows(result: Result) -> dict[str, str]:
    """Return the sides of the λ axis that hold the best λ of too many of the basin's rows."""
    if result.spec.is_search:
        return {}  # the rows of a search are too sparse to locate their best λ
    counts, basin = result.separability.rows_on_edge, result.separability.basin
    why = f"the best wd of {sum(counts.values())} of {basin.any(axis=1).sum()} rows is on the edge"
    return dict.fromkeys(counts, why)


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


def extended(axis: tuple[float, ...], end: str) -> tuple[float, ...]:
    """Extend an axis at its "low" or "high" end, at about its spacing there.

    It grows by at least two octaves and two values, and at most doubles its values.

    >>> extended((0.25, 0.5, 1.0), "high")
    (0.25, 0.5, 1.0, 2.0, 4.0)
    """
    positive = [value for value in axis if value > 0]
    if len(positive) < 2:
        ratio = 2.0
    else:
        ratio = positive[1] / positive[0] if end == "low" else positive[-1] / positive[-2]
    count = math.ceil(round(OCTAVES / math.log2(ratio), 6))
    count = max(MIN_EXTENSION, min(count, len(positive)))
    value, step = (positive[0], 1 / ratio) if end == "low" else (positive[-1], ratio)
    further = [value := value * step for _ in range(count)]
    return tuple(sorted({*axis, *(_readable(value, ratio) for value in further if 0 < value < math.inf)}))


def finer(axis: Sequence[float]) -> tuple[float, ...]:
    """Insert about the geometric mean between every two values of an axis.

    >>> finer((0.0, 0.25, 1.0))
    (0.0, 0.25, 0.5, 1.0)
    """
    positive = [value for value in axis if value > 0]
    low, high, count = positive[0], positive[-1], 2 * len(positive) - 1
    if count > 2:
        even = parse_axis(f"{low!r}:{high!r}:{count}", "wd")  # meets an even axis in all its values
        if set(positive) <= set(even):
            return tuple(sorted({*axis, *even}))
    between = [_readable(math.sqrt(a) * math.sqrt(b), math.sqrt(b / a)) for a, b in pairwise(positive)]
    return tuple(sorted({*axis, *between}))


def _readable(value: float, ratio: float) -> float:
    """Round a new value of an axis to a hundredth of the axis' step, unless it is a power of two."""
    exact = canonical(value)
    if format_value(exact).startswith("2^"):
        return exact
    places = min(max(2 - math.floor(math.log10(min(ratio - 1, 9.0))), 2), 11)
    return float(f"{value:.{places}e}")


def _finer(result: Result) -> Iterator[Change]:
    """Yield a finer or longer lattice, or a longer search, if too few cells or rows carry the ridge."""
    spec, lattice = result.spec, result.spec.lattice
    inside = int(result.surface.without_baseline().inside.sum())
    few = inside < MIN_CELLS
    why = f"{inside} cells count, {MIN_CELLS} are needed" if few else "too few rows carry the ridge"
    if _is_flat(result):
        return
    if spec.is_search:
        yield Change(f"{why}: search on", spec, searches_on=True)
    elif len(lattice.lr) < MIN_ROWS:
        yield _extension(spec, {"lr:low": why, "lr:high": why})
    else:
        axes = Lattice(finer(lattice.lr), finer(lattice.weight_decay) if few else lattice.weight_decay)
        yield Change(f"{why}: halve the steps of lr{' and wd' * few}", replace(spec, lattice=axes))


def _is_flat(result: Result) -> bool:
    """Check if all cells of the basin have the same value."""
    basin = result.separability.basin
    return bool(basin.any()) and is_flat(result.surface.mean[basin])


def _more_seeds(result: Result) -> Iterator[Change]:
    """Yield more seeds if the slope is known, its interval is open, and they can settle the verdict."""
    found, seeds, first = result.separability, len(result.spec.seeds), min(result.spec.seeds)
    if found.verdict is not Verdict.UNDETERMINED or found.ridge_slope.value is None:
        return
    more = _seeds_that_settle(found, seeds)
    if more is None:
        return
    why = "the verdict is undetermined for noise"
    if seeds < MIN_SEEDS:
        why = f"{seeds} of the {MIN_SEEDS} seeds that an interval needs"
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
