"""Results of `bench` that were not measured."""

from lrwd_sweep.lab import bench
from lrwd_sweep.lab.bench import ABOUT, ENGINE, Measurement, Spread, Timing
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task

TASK = Task(epochs=2)
LATTICE = Lattice((2**-9, 2**-8, 2**-7), (1.0, 8.0, 32.0))
ASKED = Measurement(TASK, LATTICE)


def race() -> bench.Race:
    """Make a race in which the engine is eight times as fast as plain, and vmap did not run."""
    rate, slow, floor = Spread.of([8000.0, 8800.0]), Spread.of([1000.0, 1100.0]), Spread.of([16000.0])
    timings = (
        Timing(ENGINE, ABOUT[ENGINE], True, None, 363, rate, Spread.of([1.0])),
        Timing("plain", ABOUT["plain"], True, None, 16, slow, Spread.of([8.0, 8.0])),
        Timing("vmap", ABOUT["vmap"], False, "RuntimeError: [/x] is no batching rule"),
    )
    return bench.Race(timings, bench.Floor(15e6, 6e6, floor.times(15e6), floor, Spread.of([0.5, 0.55])))


def scaling() -> bench.Scaling:
    """Make seconds of 0.5 and 10 milliseconds per lane, a tenth more in the second of two runs."""
    seconds = {n: 0.5 + 0.01 * n for n in (1, 10, 20, 50, 100, 500, 1000, 2000)}
    points = [bench.ScalingPoint(n, Spread.of([each, 1.1 * each])) for n, each in seconds.items()]
    line = bench.fit_line({p.lanes: p.seconds.median for p in points if p.lanes >= 32})
    return bench.Scaling(32, tuple(points), line)


def overhead() -> bench.Overhead:
    """Make an overhead of 2.25 s, and of 0.6 ms per lane."""
    sampler, store = Spread.of([1e-4, 1e-4]), Spread.of([6e-4, 4e-4])
    return bench.Overhead(Spread.of([2.0, 2.5]), 10_000, sampler, store, Spread.of([7e-4, 5e-4]))
