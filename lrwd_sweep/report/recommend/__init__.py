"""Recommendations: the cells worth using, each as code, and the next steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lrwd_sweep.report.recommend.advice import Advice, advice
from lrwd_sweep.report.recommend.code import CodeLine, recipe
from lrwd_sweep.report.result import Result
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.surface import Float, Surface
from lrwd_sweep.science.trial import Direction


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
