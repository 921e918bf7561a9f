"""A trial: the outcome of one lane, which is one cell and one seed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lrwd_sweep.science.lattice import Cell


class Status(StrEnum):
    """The end of a lane."""

    COMPLETE = "complete"  # trained to the last step, every metric finite
    DIVERGED = "diverged"  # a loss became NaN or infinite: an outcome, never retried
    FAILED = "failed"  # an error outside the mathematics, such as no memory; retried by the next run


class Direction(StrEnum):
    """The better end of a metric."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one lane; `metrics` is empty unless it is complete.

    Under warm restarts `metrics` are of the last snapshot. A diverged lane keeps its earlier snapshots.
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
    """Return the cells with an unfinished lane by seed, without seeds that have none."""
    cells = list(cells)
    todo = {seed: [cell for cell in cells if (cell, seed) not in finished] for seed in seeds}
    return {seed: missing for seed, missing in todo.items() if missing}
