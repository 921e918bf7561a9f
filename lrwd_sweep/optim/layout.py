"""Where each parameter lies in the flat row of a lane."""

from __future__ import annotations

from collections.abc import Iterable
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
        """Whether it has more than one dimension: neither a bias nor a parameter of normalisation."""
        return len(self.shape) > 1


def columns(segments: Iterable[Segment]) -> tuple[slice, ...]:
    """The columns of segments in the arena's order, neighbours merged into one slice."""
    found: list[slice] = []
    for segment in segments:
        if found and found[-1].stop == segment.start:
            found[-1] = slice(found[-1].start, segment.stop)
        else:
            found.append(segment.columns)
    return tuple(found)
