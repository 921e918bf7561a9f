"""What an update takes from its time: numbers of the host, or one row of a table on the device."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lrwd_sweep.science.schedule import Timetable

Number = float | Tensor  # (), on the device


@dataclass(frozen=True, slots=True)
class Now:
    """The numbers of step t = 1, 2, … that are the same in every lane."""

    eta: Number  # η_t
    root_n: Number  # √N, by which normalised decay is divided
    rest1: Number  # 1 − β₁ᵗ
    root2: Number  # √(1 − β₂ᵗ)

    @classmethod
    def at(cls, eta: float, t: int, n: int, betas: tuple[float, float]) -> Now:
        """Of step t, in float64."""
        return cls(eta, math.sqrt(n), 1 - betas[0] ** t, math.sqrt(1 - betas[1] ** t))

    @classmethod
    def of_row(cls, table: Tensor, t: Tensor) -> Now:  # (steps, 4), (1,)
        """Row t = 0, 1, … of a table, read without the host."""
        return cls(*table.index_select(0, t)[0].unbind())


def table(timetable: Timetable, betas: tuple[float, float], like: Tensor) -> Tensor:  # (steps, 4)
    """Every step's numbers, computed in float64, on the device and in the precision of `like`."""
    return _numbers(timetable, betas).to(like.device, like.dtype, copy=True)


@lru_cache(maxsize=4)
def _numbers(timetable: Timetable, betas: tuple[float, float]) -> Tensor:
    """The same for all packs of a study: long runs have hundreds of thousands of steps."""
    steps = range(timetable.epochs * timetable.steps_per_epoch)
    rows = [astuple(Now.at(timetable.eta(t), t + 1, timetable.steps_of_cycle(t), betas)) for t in steps]
    return torch.tensor(rows, dtype=torch.float64)
