"""What happens while packs train, told without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Trial


@dataclass(frozen=True, slots=True)
class Pack:
    """The lanes that train together: cells of one seed, on the same batches."""

    cells: tuple[Cell, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """A pack passed an epoch."""

    pack: Pack
    epoch: int  # counted from 1
    metrics: Mapping[str, Sequence[float]]  # train_loss, val_loss, val_error by lane; NaN where it diverged


@dataclass(frozen=True, slots=True)
class PackDone:
    """A pack is finished: a trial per cell, in order."""

    pack: Pack
    trials: Sequence[Trial]


class Watcher(Protocol):
    """Who looks on while packs train; called in the thread that called the sweep."""

    def begin(self, packs: Sequence[Pack]) -> None:
        """These packs train next."""

    def happened(self, event: EpochDone | PackDone) -> None:
        """A pack passed an epoch, or is finished and stored."""


class Unwatched:
    """Nobody looks on."""

    def begin(self, packs: Sequence[Pack]) -> None:
        """These packs train next."""

    def happened(self, event: EpochDone | PackDone) -> None:
        """A pack passed an epoch, or is finished and stored."""
