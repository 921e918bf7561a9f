"""What `bench` measured, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lrwd_sweep.lab.bench.bandwidth import Bandwidths
from lrwd_sweep.lab.bench.chart import chart
from lrwd_sweep.lab.bench.overhead import Overhead
from lrwd_sweep.lab.bench.race import Floor, Race
from lrwd_sweep.lab.bench.scaling import Scaling
from lrwd_sweep.lab.bench.spread import Spread, rate_form
from lrwd_sweep.report.view.notation import counted, plain
from lrwd_sweep.spec.catalog import FLOAT32
from lrwd_sweep.spec.task import Task


def shown(
    result: Race | Scaling | Overhead | Bandwidths, task: Task, machine: Mapping[str, Any]
) -> Iterator[RenderableType]:
    """The figures, and below them what they were measured on."""
    match result:
        case Race():
            yield from _race(result)
        case Scaling():
            yield from _scaling(result)
        case Overhead():
            yield _overhead(result)
        case Bandwidths():
            yield _bandwidths(result)
            yield Text(f"{plain(result.device)}, torch {machine['torch']}, {machine['date'][:10]}")
            return
    where = plain(machine["gpu"] or f"{machine['cpu']}, {counted(machine['cores'], 'core')}")
    rounded = "" if task.precision == FLOAT32 else f"{task.precision}, "
    yield Text(
        f"{plain(task.data)}, {task.net}, {rounded}AdamW, {counted(task.epochs, 'epoch')} of "
        f"{task.steps_per_epoch} batches of {task.batch_size}; {where}, torch {machine['torch']}, "
        f"{machine['date'][:10]}"
    )


def _race(race: Race) -> Iterator[RenderableType]:
    """One row per contender, the engine first; the floor; who did not run, and why."""
    table = _table("contender", "lanes", "lane-steps/s", "lrwd-sweep is faster by")
    for k, timing in enumerate(race.timings):
        name = f"{timing.entry.name}: {timing.entry.about}"
        if timing.rate is None or timing.lead is None:
            table.add_row(name, "", "not available", "")
        else:
            lead = timing.lead.text(".1f", "×") if k else ""
            rate = timing.rate.text(rate_form(timing.rate.median))
            table.add_row(name, str(timing.lanes), rate, lead)
    yield table
    for timing in race.timings:
        if timing.absent:
            yield Text(plain(f"{timing.entry.name} is not available: {timing.absent}"))
    yield Text(_floor(race.floor))


def _floor(floor: Floor) -> str:
    speed, share = floor.rate.times(floor.flop / 1e9), floor.validation / floor.flop
    rate = floor.rate.text(rate_form(floor.rate.median))
    reached = floor.reached.median * speed.median
    return (
        f"floor: the matrix products of a lane-step, {floor.flop / 1e6:,.1f} MFLOP, {share:.0%} of them for "
        f"validation, at {speed.text(',.0f')} GFLOP/s: {rate} lane-steps/s; lrwd-sweep reaches "
        f"{floor.reached.times(100).text('.0f', ' %')} of that, {reached:,.0f} GFLOP/s"
    )


def _scaling(scaling: Scaling) -> Iterator[RenderableType]:
    """The chart, its points, and the line through them."""
    drawn = chart(scaling)
    assert drawn is not None, "there are points"
    yield drawn
    table = _table("lanes", "seconds", "ms per lane and step")
    for point in scaling.points:
        cost = point.seconds.times(1e3 / (point.lanes * scaling.steps))
        table.add_row(str(point.lanes), point.seconds.text(".3g"), cost.text(".3g"))
    yield table
    if line := scaling.line:
        lanes, share = scaling.furthest
        yield Text(
            f"{scaling.at_once} lanes train at a time; from {scaling.fitted[0].lanes} on they take "
            f"{line.text}; {lanes} lanes are furthest from that, by {share:+.1%}"
        )


def _overhead(overhead: Overhead) -> Table:
    """What is paid once, and what for every lane."""
    both = Spread(tuple(map(sum, zip(overhead.sampler.values, overhead.store.values, strict=True))))
    per_lane = f"per lane, of {overhead.lanes:,}"
    table = _table("what is paid besides training", "")
    table.add_row("from the start of the process to the end of an epoch", overhead.start.text(".2f", " s"))
    for name, seconds in (("sampler", overhead.sampler), ("store", overhead.store), ("both", both)):
        table.add_row(f"{name}, {per_lane}", seconds.times(1e3).text(".3f", " ms"))
    return table


def _bandwidths(result: Bandwidths) -> Table:
    """One row per optimizer: what it has to move, per second, and what share of a copy's rate that is."""
    table = _table("update", "by", "GB/s", "of a copy")
    for one in result.found:
        by = "kernels" if one.fused else "torch's operators"
        table.add_row(one.optimizer, by, f"{one.rate / 1e9:,.0f}", f"{one.share:.0%}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")  # a narrow terminal breaks words; it hides none
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table
