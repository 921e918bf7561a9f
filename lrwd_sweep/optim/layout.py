"""Positions of the parameters in the flat row of a lane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """One parameter tensor of a lane: columns `start` to `stop` of the arena."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]  # of one lane

    @property
    def columns(self) -> slice:
        """Its columns, to index the arena with."""
        return slice(self.start, self.stop)

    @property
    def is_matrix(self) -> bool:
        """True for more than one dimension: neither a bias nor a parameter of normalisation."""
        return len(self.shape) > 1


def runs(parts: Sequence[slice], count: int, alone: Sequence[slice] = ()) -> tuple[list[int], list[bool]]:
    """Split `count` columns into runs inside and outside the parts; return their ends and which are inside.

    Each slice of `alone` becomes a run of its own.
    """
    ends = sorted({0, count, *(end for part in (*parts, *alone) for end in (part.start, part.stop))})
    return ends, [any(part.start <= start < part.stop for part in parts) for start in ends[:-1]]


def columns(segments: Iterable[Segment]) -> tuple[slice, ...]:
    """Return the columns of segments in the arena's order, neighbours merged into one slice."""
    found: list[slice] = []
    for segment in segments:
        if found and found[-1].stop == segment.start:
            found[-1] = slice(found[-1].start, segment.stop)
        else:
            found.append(segment.columns)
    return tuple(found)
