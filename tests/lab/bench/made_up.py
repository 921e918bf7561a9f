"""Results that nobody measured."""

from __future__ import annotations

from lrwd_sweep.lab.bench.bandwidth import Bandwidth, Bandwidths
from lrwd_sweep.lab.bench.contenders import ENGINE, entries
from lrwd_sweep.lab.bench.overhead import Overhead
from lrwd_sweep.lab.bench.race import Floor, Race, Timing
from lrwd_sweep.lab.bench.scaling import Point, Scaling
from lrwd_sweep.lab.bench.spread import Spread
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task

TRAINING = Task(epochs=2)
LATTICE = Lattice((2**-9, 2**-8, 2**-7), (1.0, 8.0, 32.0))


def race() -> Race:
    """The engine eight times as fast as plain, and vmap not there."""
    engine, plain, vmap = entries(["plain", "vmap"])
    rate, slow, floor = Spread((8000.0, 8800.0)), Spread((1000.0, 1100.0)), Spread((16000.0, 16000.0))
    assert engine.name == ENGINE
    return Race(
        (
            Timing(engine, 363, rate, rate.over(rate)),
            Timing(plain, 16, slow, rate.over(slow)),
            Timing(vmap, absent="RuntimeError: [/x] is no batching rule"),
        ),
        Floor(15e6, 6e6, floor, rate.over(floor)),
    )


def scaling(most: int = 2000) -> Scaling:
    """Half a second, and ten milliseconds per lane; a tenth slower in the second of two runs."""
    lanes = [n for n in (1, 10, 20, 50, 100, 500, 1000, 2000) if n <= most]
    seconds = [0.5 + 0.01 * n for n in lanes]
    points = (Point(n, Spread((t, 1.1 * t))) for n, t in zip(lanes, seconds, strict=True))
    return Scaling(tuple(points), steps=60, at_once=32)


def overhead() -> Overhead:
    """Within what is wanted."""
    return Overhead(Spread((2.0, 2.5)), 10_000, Spread((1e-4, 1e-4)), Spread((6e-4, 4e-4)))


def bandwidths() -> Bandwidths:
    """A card on which one update is fused."""
    found = (Bandwidth("sgdw", False, 1e12, 4e12), Bandwidth("adamw", True, 3.6e12, 4e12))
    return Bandwidths("A card of 80 GB", found)
