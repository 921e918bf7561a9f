"""Shard: the part of a study's lanes that one of several commands trains, into a store of its own."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.lattice import Cell, Lattice

MOST_SHARDS = 10_000
_FEWEST = 16  # lanes besides the first of each store, from which the number of shards can be told

Given = str | tuple[int, int]  # "3/8" or (3, 8)


@dataclass(frozen=True, slots=True)
class Shard:
    """The K-th of N parts of the lanes, K from 1.

    A lane's part follows from (α, λ, seed) only: it stays as it is in a larger lattice or with more seeds.
    """

    part: int = 1
    parts: int = 1

    @classmethod
    def of(cls, given: Given) -> Self:
        """Read "3/8" or (3, 8). Raises UsageError.

        >>> Shard.of("3/8") == Shard.of((3, 8)), str(Shard.of("3/8"))
        (True, 'shard 3 of 8')
        """
        if not isinstance(given, str):
            given = "/".join(map(str, given)) if isinstance(given, tuple | list) else str(given)
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", given.strip())
        part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= part <= parts <= MOST_SHARDS:
            raise UsageError(
                f"{arg('shard', given)} is not the K-th of N parts, K from 1 to N and N at most "
                f"{MOST_SHARDS}; write for example {arg('shard', '1/4')}"
            )
        return cls(part, parts)

    def __str__(self) -> str:
        return f"shard {self.part} of {self.parts}"

    def holds(self, cell: Cell, seed: int) -> bool:
        """Return True if a lane belongs to this shard."""
        return self.parts == 1 or _number(cell, seed) % self.parts == self.part - 1

    def among(self, lanes: Mapping[int, Sequence[Cell]]) -> dict[int, list[Cell]]:
        """Return the cells of each seed whose lanes belong to this shard, without seeds that have none."""
        mine = {seed: [cell for cell in cells if self.holds(cell, seed)] for seed, cells in lanes.items()}
        return {seed: cells for seed, cells in mine.items() if cells}

    def count(self, lattice: Lattice, seeds: Sequence[int]) -> int:
        """Count the lanes of a lattice that belong to this shard."""
        if self.parts == 1:
            return len(lattice) * len(seeds)
        return sum(self.holds(cell, seed) for cell in lattice.cells() for seed in seeds)


WHOLE = Shard()


def refuse_shard(shard: Shard | None) -> None:
    """Raise UsageError for a shard of a search."""
    if shard is not None:
        raise UsageError(
            f"{arg('shard', f'{shard.part}/{shard.parts}')} divides a lattice, not a search: TPE chooses its "
            f"next points from all results so far; leave {arg('shard')} out, or train a grid"
        )


def refuse_refined_shard(shard: Shard | None, refines: Iterable[object]) -> None:
    """Raise UsageError for a shard of a lattice that is refined, whose `refine` is not None."""
    if shard is not None and any(refine is not None for refine in refines):
        raise UsageError(
            f"{arg('refine', True)} decides from all results so far, and a shard knows only its own; leave "
            f"{arg('shard')} out, or train the whole lattice"
        )


def find_parts(stores: Iterable[Iterable[tuple[Cell, int]]]) -> int:
    """Return N if each store holds the lanes of one of N shards, as far as their lanes tell; else 1.

    The numbers of a shard's lanes are equal modulo N, so N divides all their differences.
    """
    found, compared = 0, 0
    for lanes in stores:
        first, *others = [_number(cell, seed) for cell, seed in lanes] or [0]
        found = math.gcd(found, *(number - first for number in others))
        compared += len(others)
    return found if compared >= _FEWEST and found <= MOST_SHARDS else 1


def _number(cell: Cell, seed: int) -> int:
    """Return a number of 64 bits that is the same for a lane on every machine, and looks random."""
    text = f"{cell.lr:.12g} {cell.weight_decay:.12g} {seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
