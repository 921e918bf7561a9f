"""The plan: which lanes train together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.job import Pack

_OVERHEAD = 2  # what a pack costs besides its lanes, in lanes: the interpreter's share of its steps


def plan(todo: Mapping[int, Sequence[Cell]], lanes: int, slots: int = 1) -> list[Pack]:
    """Divide each seed's cells into as few packs of at most `lanes` as possible, the largest first.

    The last packs are halved if otherwise some slots would wait for others that have a whole pack to train.
    """
    packs = []
    for seed, cells in todo.items():
        count = math.ceil(len(cells) / lanes)
        bounds = [len(cells) * k // count for k in range(count + 1)]
        packs += [Pack(tuple(cells[low:high]), seed) for low, high in pairwise(bounds)]
    plans = [_halved(packs, count) for count in range(min(slots, len(packs)) + 1)]
    return min(plans, key=lambda plan: _time(plan, slots))


def _halved(packs: Sequence[Pack], count: int) -> list[Pack]:
    """Split the last `count` packs in two; order all by size, the largest first."""
    kept = len(packs) - count
    halves = [half for pack in packs[kept:] for half in pack.halves()]
    return sorted([*packs[:kept], *halves], key=lambda pack: -len(pack.cells))


def _time(packs: Sequence[Pack], slots: int) -> int:
    """Compute the time of the busiest slot, in lanes, if each takes the next pack when it is free."""
    loads = [0] * slots
    for pack in packs:
        heappush(loads, heappop(loads) + len(pack.cells) + _OVERHEAD)
    return max(loads)
