"""Where each parameter lies in the flat row of a lane."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """One parameter tensor of a lane: columns `start` to `stop` of the arena."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]  # of one lane
