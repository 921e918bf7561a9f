"""Estimate the time of studies on this machine from a few steps of each kind of network and optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrwd_sweep.engine.choice import chosen
from lrwd_sweep.engine.device import choose, prepare
from lrwd_sweep.engine.speed import measure
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

SECONDS = 10.0  # for the measurements


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """The time of studies that train one after another, from empty."""

    seconds: float
    whole: bool  # measured on packs as they would train; else extrapolated from smaller ones


def estimate(specs: Sequence[StudySpec], seconds: float = SECONDS) -> TimeEstimate:
    """Measure for about `seconds` and add up. Raises DeviceError when a study has no room."""
    lanes = [len(spec.lattice) * len(spec.seeds) for spec in specs]
    kinds: dict[tuple[object, ...], list[int]] = {}  # studies whose steps cost the same
    for k, spec in enumerate(specs):
        kinds.setdefault((spec.optimizer.family, *_step(_task(spec))), []).append(k)
    place, total, whole = choose("auto"), 0.0, True
    prepare(place)
    for alike in kinds.values():
        first = specs[alike[0]]
        task = chosen(_task(first), place)
        speed = measure(first.optimizer, task, max(lanes[k] for k in alike), seconds / len(kinds))
        total += sum(lanes[k] * speed.seconds(_task(specs[k])) for k in alike)
        whole = whole and speed.whole
    return TimeEstimate(total, whole)


def _task(spec: StudySpec) -> Task:
    assert spec.task is not None, "an imported study does not train"
    return spec.task


def _step(task: Task) -> tuple[object, ...]:
    """Return the settings on which the cost of one step depends."""
    t = task
    return t.net, t.net_options, t.loss, t.data_set, t.batch_size, t.precision
