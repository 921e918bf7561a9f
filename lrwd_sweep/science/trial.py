"""A trial: the outcome of one lane, that is of one cell and one seed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lrwd_sweep.science.lattice import Cell


class Status(StrEnum):
    """How a lane ended."""

    COMPLETE = "complete"  # trained to the last step, every metric finite
    DIVERGED = "diverged"  # a loss became NaN or infinite: an outcome, never retried
    FAILED = "failed"  # an error outside the mathematics, such as no memory; retried by the next run


class Direction(StrEnum):
    """Which end of a metric is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Trial:
    """What one lane left behind; `metrics` is empty unless it is complete.

    Under warm restarts `metrics` are those of the newest snapshot, which is what such a run hands over. A
    diverged lane keeps the snapshots from before.
    """

    cell: Cell
    seed: int
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)  # by name, e.g. val_loss
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # one value per epoch, by name
    detail: str = ""  # where it diverged, or why it failed
    snapshots: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # metrics by epoch of restart


def unfinished(
    cells: Iterable[Cell], seeds: Sequence[int], finished: Container[tuple[Cell, int]]
) -> dict[int, list[Cell]]:
    """By seed, the cells whose lane is not finished; seeds that have none are left out."""
    cells = list(cells)
    todo = {seed: [cell for cell in cells if (cell, seed) not in finished] for seed in seeds}
    return {seed: missing for seed, missing in todo.items() if missing}
