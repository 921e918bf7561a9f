"""Tiles: what a heatmap shows of a surface, cell by cell, or pooled where there is less room than cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import Bool, CellStatus, Float, Surface

_TOP = 10  # the paper's black circles


class Mark(Enum):
    """What stands out about a tile; of several, the first in this order is drawn."""

    NONE = auto()
    BEST = auto()
    TOP = auto()  # one of the ten best
    PARTIAL = auto()  # the mean of some of its seeds; the others are missing
    DIVERGED = auto()
    FAILED = auto()
    MISSING = auto()


class Ridge(Enum):
    """Whether a tile holds its row's best λ, and whether that row carries the ridge slope."""

    NONE = auto()
    CARRIES = auto()
    APART = auto()

    @property
    def marked(self) -> bool:
        """Whether it is the row's best at all."""
        return self is not Ridge.NONE


_MARK_OF = {CellStatus.DIVERGED: Mark.DIVERGED, CellStatus.FAILED: Mark.FAILED}


@dataclass(frozen=True, slots=True)
class Tile:
    """One drawn cell: the best of the lattice cells that it stands for."""

    value: float | None  # None when it has none to show
    mark: Mark = Mark.NONE
    ridge: Ridge = Ridge.NONE


@dataclass(frozen=True, slots=True)
class Tiles:
    """A drawn lattice, the largest α on top."""

    rows: tuple[tuple[Tile, ...], ...]
    row_values: tuple[float, ...]  # the α that a row is labelled with
    column_values: tuple[float, ...]
    baseline: bool  # the first column is λ = 0
    pooled: tuple[int, int]  # lattice rows and columns per tile

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

        Unless values are `ranked`, one end being better, neither good cells nor the rows' best are marked. A
        cell that lacks some of its seeds is drawn and counts for nothing.
        """
        cells = _Cells.of(surface)
        if not ranked:
            cells = replace(cells, marks={})
        baseline = bool(len(surface.weight_decay) and surface.weight_decay[0] == 0)
        row_groups = _groups(len(surface.lr), pool[0])[::-1]
        column_groups = _groups(len(surface.weight_decay), pool[1], int(baseline))
        carrying = {i for i, _ in separability.ridge} if separability else set(range(len(surface.lr)))
        rows = []
        for group in row_groups:
            tiles = [cells.tile(group, columns) for columns in column_groups]
            place = cells.ridge(group, column_groups[baseline:])
            if ranked and place is not None:
                ridge = Ridge.CARRIES if carrying & set(group) else Ridge.APART
                tiles[place + baseline] = replace(tiles[place + baseline], ridge=ridge)
            rows.append(tuple(tiles))
        return cls(
            tuple(rows),
            tuple(float(surface.lr[group[0]]) for group in row_groups),
            tuple(float(surface.weight_decay[columns[0]]) for columns in column_groups),
            baseline,
            pool,
        )


def _groups(count: int, size: int, alone: int = 0) -> list[list[int]]:
    """Indices below `count` in groups of `size`, the first `alone` of them each by itself."""
    every = list(range(count))
    return [[k] for k in every[:alone]] + [every[k : k + size] for k in range(alone, count, size)]


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """A surface, ranked."""

    surface: Surface
    values: Float  # (I, J) what is drawn; NaN where there is nothing
    partial: Bool  # (I, J) whether it is the mean of some of the seeds
    height: Float  # (I, J) the values, lower being better
    ranked: Float  # (I, J) the same where it counts; infinite elsewhere
    marks: dict[tuple[int, int], Mark]  # of the best cell and, where more than ten count, of the ten best

    @classmethod
    def of(cls, surface: Surface) -> _Cells:
        """Rank the cells; ties go to the smaller index."""
        values, counts = surface.mean_so_far, surface.inside
        height = surface.minimized().mean_so_far
        ranked = np.where(counts, height, np.inf)
        order = np.argsort(ranked, axis=None, kind="stable")[: min(int(counts.sum()), _TOP)]
        best = [divmod(int(k), ranked.shape[1]) for k in order]
        top = dict.fromkeys(best, Mark.TOP) if counts.sum() > _TOP else {}
        marks = top | dict.fromkeys(best[:1], Mark.BEST)
        return cls(surface, values, surface.partial, height, ranked, marks)

    def tile(self, rows: Sequence[int], columns: Sequence[int]) -> Tile:
        """The tile of a block: its best value, else one that does not count, else what became of it."""
        block = [(i, j) for i in rows for j in columns]
        known = [cell for cell in block if np.isfinite(self.values[cell])]
        if known:
            cell = min(known, key=lambda cell: (self.ranked[cell], self.height[cell]))
            found = [self.marks[cell] for cell in block if cell in self.marks]
            plain = Mark.PARTIAL if self.partial[cell] else Mark.NONE
            return Tile(float(self.values[cell]), min(found, key=_rank, default=plain))
        lost = [_MARK_OF.get(self.surface.status(i, j), Mark.MISSING) for i, j in block]
        return Tile(None, min(lost, key=_rank))

    def ridge(self, rows: Sequence[int], column_groups: Sequence[Sequence[int]]) -> int | None:
        """Which of the column groups holds the rows' best cell; None when there is no choice or no value."""
        if len(column_groups) < 2:
            return None
        scores = [min(self.ranked[i, j] for i in rows for j in columns) for columns in column_groups]
        return int(np.argmin(scores)) if np.isfinite(min(scores)) else None


def _rank(mark: Mark) -> int:
    return mark.value
