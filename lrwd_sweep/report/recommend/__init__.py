"""Recommendations: the cells worth using, each as code, and the one next step with all studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lrwd_sweep.report.recommend.advice import Advice, Change, advice, changes, edges_of_best, of_all
from lrwd_sweep.report.recommend.code import CodeLine, recipe
from lrwd_sweep.report.recommend.command import again_command, command
from lrwd_sweep.report.result import Result
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS
from lrwd_sweep.science.surface import Float, Surface
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.spec.study import Kind, StudySpec

_UNFINISHED, _LATTICE, _SEEDS = range(3)  # order of the steps
_SHORT = 200  # characters of a command that ends with the report


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


class Blocks(NamedTuple):
    """Each cell with its eight neighbors, (I, J); NaN if one of the nine does not count."""

    mean: Float
    worst: Float


def blocks(surface: Surface) -> Blocks:
    """Summarize the 3×3 block around every cell, diagonal neighbors included.

    A cell on the edge of the λ > 0 lattice has unknown neighbors: NaN, as for a cell beside one that
    diverged, reached the cap, failed or is missing. The baseline λ = 0 has no place on a log axis and
    no neighbors.
    """
    y = np.where(surface.inside & (surface.weight_decay > 0), surface.mean, np.nan)
    mean, worst = np.full_like(y, np.nan), np.full_like(y, np.nan)
    if min(y.shape) >= 3:
        nine = sliding_window_view(y, (3, 3))
        farthest = nine.min if surface.direction is Direction.MAXIMIZE else nine.max
        with np.errstate(over="ignore"):
            mean[1:-1, 1:-1], worst[1:-1, 1:-1] = nine.mean(axis=(2, 3)), farthest(axis=(2, 3))
    return Blocks(mean, worst)


def most_forgiving(surface: Surface) -> tuple[int, int] | None:
    """Return the index (i, j) of the cell with the best mean over its 3×3 block, the smaller one of equals.

    It suits a task that differs a little, or α and λ that cannot be set exactly. None if no cell has a block.
    """
    mean = blocks(surface.minimized()).mean
    if np.isnan(mean).all():
        return None
    i, j = divmod(int(np.nanargmin(mean)), mean.shape[1])
    return i, j


def recommendations(result: Result, among: Sequence[Result] = ()) -> Recommendations:
    """Recommend the best and the most forgiving cell, and the next steps with the study or all `among`."""
    best = result.ranked(1)
    if not best:
        return Recommendations((), "no cell counts", advice(result, among))
    if result.spec.is_search:
        found = (_recommended(result, "best", best[0].cell, best[0].value, None),)
        return Recommendations(found, "the points of a search have no neighbours", advice(result, among))
    around = blocks(result.surface)
    forgiving = most_forgiving(result.surface)
    roles: dict[tuple[int, int], list[str]] = {}
    for role, index in (("best", result.surface.best()), ("most forgiving", forgiving)):
        if index is not None:
            roles.setdefault(index, []).append(role)
    cells = tuple(
        _recommended(
            result,
            " and ".join(names),
            result.surface.cell(*index),
            float(result.surface.mean[index]),
            None if np.isnan(around.mean[index]) else Around(*(float(part[index]) for part in around)),
        )
        for index, names in roles.items()
    )
    why_not = "" if forgiving else "no cell has all eight neighbours within the lattice and counting"
    return Recommendations(cells, why_not, advice(result, among))


def _recommended(result: Result, role: str, cell: Cell, value: float, around: Around | None) -> Recommended:
    decay, t = result.conventions(cell), result.spec.task
    steps = decay.timescale_steps
    epochs = None if steps is None or t is None else steps / t.steps_per_epoch
    slowest, lines = decay.timescale_steps_projected, recipe(result.spec, cell, decay)
    return Recommended(role, cell, value, around, epochs, steps, slowest, lines)


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
    runs = sum(_missing(each, replace(each.spec, seeds=spec.seeds)) for each in results)
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
    edge = bool(edges_of_best(result)) or not result.surface.inside.any()
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
    points = len({trial.cell for trial in result.trials}) if result.spec.is_search else 0
    points += math.ceil(points / 2) * change.searches_on
    words = command(change.spec, result.name, result.storage, points, result.data_dir)
    if words is None:
        return Advice(why)
    runs = _missing(result, change.spec, points)
    if len(among) > 1:
        again = again_command([each.name for each in among], result.storage)
        compare = of_all(result.spec, result, among) if _same_seeds(among) else None
        again = min(filter(None, [again, compare]), key=lambda words: len(" ".join(words)), default=())
        if len(" ".join((*words, *again))) <= _SHORT:
            words = (*words, *(("&&", *again) if again else ()))
        else:
            why = f"{why}; then repeat this command"
    return Advice(why, words, runs)


def _same_seeds(results: Sequence[Result]) -> bool:
    return len({result.spec.seeds for result in results}) == 1


def _missing(result: Result, spec: StudySpec, points: int = 0) -> int:
    """Count the runs of a spec that the study does not have yet."""
    if (found := result.refinement) is not None and spec.refine is not None:
        if spec.refine != result.spec.refine:
            return found.unfit
        if spec.lattice == result.spec.lattice and (new := len(spec.seeds) - len(found.seeds)) > 0:
            return int(found.asked[..., len(found.seeds) - 1].sum()) * new
        return int(found.todo.sum())
    cells = points if spec.is_search else len(set(spec.lattice.cells()))
    done = sum(trial.status is not Status.FAILED and trial.seed in spec.seeds for trial in result.trials)
    return max(cells * len(spec.seeds) - done, 0)
