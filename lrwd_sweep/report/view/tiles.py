"""Tiles: the marks and values that a heatmap shows of a surface, cell by cell or pooled to fit its room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import CellStatus, Surface

_TOP = 10  # the paper's black circles


class Mark(Enum):
    """The status of a tile; if several apply, the first in this order is drawn."""

    NONE = auto()
    BEST = auto()
    TOP = auto()  # one of the ten best
    PARTIAL = auto()  # the mean of some of its seeds; the others are missing
    DIVERGED = auto()
    FAILED = auto()
    MISSING = auto()


class Ridge(Enum):
    """The part of a tile in the ridge: its row's best λ, of a row that carries the ridge slope or not."""

    NONE = auto()
    CARRIES = auto()
    APART = auto()


_LOST = {CellStatus.DIVERGED: Mark.DIVERGED, CellStatus.FAILED: Mark.FAILED}


@dataclass(frozen=True, slots=True)
class Tile:
    """One drawn cell: the best of the lattice cells that it represents."""

    value: float | None  # None if there is none to show
    mark: Mark = Mark.NONE
    ridge: Ridge = Ridge.NONE

    @property
    def best_of_row(self) -> bool:
        """Whether the tile holds its row's best λ."""
        return self.ridge is not Ridge.NONE


@dataclass(frozen=True, slots=True)
class Tiles:
    """A drawn lattice, the largest α on top."""

    rows: tuple[tuple[Tile, ...], ...]
    row_values: tuple[float, ...]  # the α that labels each row
    column_values: tuple[float, ...]
    baseline: bool  # the first column is λ = 0

    @classmethod
    def of(
        cls,
        surface: Surface,
        separability: Separability | None = None,
        *,
        pool: tuple[int, int] = (1, 1),
        ranked: bool = True,
    ) -> Tiles:
        """Tile `surface`, pooling `pool` = (rows, columns) cells into one; λ = 0 is never pooled.

        Good cells and the rows' best are marked if values are `ranked`, that is, one end is better. A cell
        that lacks some of its seeds is drawn and ranks nowhere. Ties go to the smaller index.
        """
        values, partial, counts = surface.mean_so_far, surface.partial, surface.inside
        height = surface.minimized().mean_so_far  # lower is better
        rank = np.where(counts, height, np.inf)
        marks: dict[tuple[int, int], Mark] = {}
        if ranked:
            order = np.argsort(rank, axis=None, kind="stable")[: min(int(counts.sum()), _TOP)]
            best = [divmod(int(k), rank.shape[1]) for k in order]
            marks = dict.fromkeys(best, Mark.TOP) if counts.sum() > _TOP else {}
            marks |= dict.fromkeys(best[:1], Mark.BEST)

        def tile(rows: Sequence[int], columns: Sequence[int]) -> Tile:
            """Show the best value of a block, else one that does not count, else the block's status."""
            block = [(i, j) for i in rows for j in columns]
            known = [cell for cell in block if np.isfinite(values[cell])]
            if known:
                cell = min(known, key=lambda cell: (rank[cell], height[cell]))
                found = [marks[cell] for cell in block if cell in marks]
                unmarked = Mark.PARTIAL if partial[cell] else Mark.NONE
                return Tile(float(values[cell]), min(found, key=_order, default=unmarked))
            return Tile(
                None, min((_LOST.get(surface.status(i, j), Mark.MISSING) for i, j in block), key=_order)
            )

        baseline = bool(len(surface.weight_decay) and surface.weight_decay[0] == 0)
        row_groups = _groups(len(surface.lr), pool[0])[::-1]
        column_groups = _groups(len(surface.weight_decay), pool[1], int(baseline))
        carrying = {i for i, _ in separability.ridge} if separability else set(range(len(surface.lr)))
        drawn = []
        for group in row_groups:
            tiles = [tile(group, columns) for columns in column_groups]
            scores = [rank[np.ix_(group, columns)].min() for columns in column_groups[baseline:]]
            if ranked and len(scores) > 1 and np.isfinite(min(scores)):
                place = int(np.argmin(scores)) + baseline
                ridge = Ridge.CARRIES if carrying & set(group) else Ridge.APART
                tiles[place] = replace(tiles[place], ridge=ridge)
            drawn.append(tuple(tiles))
        return cls(
            tuple(drawn),
            tuple(float(surface.lr[group[0]]) for group in row_groups),
            tuple(float(surface.weight_decay[columns[0]]) for columns in column_groups),
            baseline,
        )

    @property
    def every(self) -> list[Tile]:
        """All tiles, row by row."""
        return [tile for row in self.rows for tile in row]


def _order(mark: Mark) -> int:
    return mark.value


def _groups(count: int, size: int, single: int = 0) -> list[list[int]]:
    """Group the indices below `count` by `size`; the first `single` of them stay alone."""
    every = list(range(count))
    return [[k] for k in every[:single]] + [every[k : k + size] for k in range(single, count, size)]


def ridge_runs(ridge: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Split the ridge, (row, log₂ λ*) by rising row, into runs of neighbouring rows."""
    runs: list[list[tuple[int, float]]] = []
    for i, minimum in ridge:
        if runs and runs[-1][-1][0] == i - 1:
            runs[-1].append((i, minimum))
        else:
            runs.append([(i, minimum)])
    return runs


def seeds_of(surfaces: Sequence[Surface]) -> str:
    """Say what a cell's value averages, as in `mean of 3 seeds`."""
    counts = sorted({len(surface.seeds) for surface in surfaces})
    if any(surface.partial.any() for surface in surfaces):
        return "mean of the seeds so far"
    return "one seed" if counts == [1] else f"mean of {' or '.join(map(str, counts))} seeds"


def runs_of(surfaces: Sequence[Surface]) -> str:
    """Say how many of the runs are done, as in `62 of 363 runs`."""
    done, every = (sum(part) for part in zip(*(surface.runs for surface in surfaces), strict=True))
    return f"{done} of {every} runs"
